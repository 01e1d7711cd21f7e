"""The paper's claims and all tables as one page, RESULTS_DIR/index.html: cells beside the paper's numbers, run records,
plots.

A browser is all it needs: style, script and data are in it, and it loads nothing. Each number of ours is one that a
record holds.

claims, views, runs, grid, figures, search and section make plain view data; render.py puts it into templates/; page.js
filters, sorts and shows records.
"""

from adept.tables.page.render import html, words_of, write_page

__all__ = ["html", "words_of", "write_page"]
