"""One-line breakages that the tests must notice."""
