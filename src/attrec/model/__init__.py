"""The paper's network. Nothing in here knows a file, an id or a vocabulary."""
