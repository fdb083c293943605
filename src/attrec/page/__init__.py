"""A picture of a model: one HTML file that says what it learnt, how good it is, and why."""

from attrec.page.write import page_of, write_page

__all__ = ["page_of", "write_page"]
