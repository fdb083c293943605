"""Ten million rows through reading, cleaning and encoding."""
