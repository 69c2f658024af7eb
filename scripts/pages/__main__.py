"""Write the pages that are made from the code."""

from __future__ import annotations

from scripts.pages.made import DOCS, PAGES

if __name__ == "__main__":
    for name, made in PAGES.items():
        (DOCS / name).write_text(made())
