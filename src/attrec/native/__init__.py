"""Compiled inner loops, where an installation has them.

They are plain C without Python in it (kernels.c), built when a wheel is made or where a source
install finds a compiler. Everything they do is also written in PyTorch, which is what they must
equal, and what runs without them: slower, with the same result.
"""
