"""Nearest keys by every index: time, memory and recall."""
