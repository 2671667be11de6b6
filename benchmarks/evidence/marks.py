"""Generated parts of pages."""

from __future__ import annotations

import re


def fill(page: str, name: str, text: str) -> str:
    """Return a page with `text` between its marks ``<!-- name -->`` and ``<!-- end -->``."""
    marked = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    return marked.sub(lambda _: f"\n{text}\n\n", page, count=1)  # once, because an empty place matches twice
