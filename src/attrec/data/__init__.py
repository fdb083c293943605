"""From a file's line to encoded histories. No tensor library is imported in here."""
