"""The user guide: Markdown files, `guide/<language>/<page>.md`, English where there is no other."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

from madmail.web.site import files

GUIDE = Path(__file__).parent / 'guide'

_markdown = MarkdownIt('commonmark', {'html': False}).enable('table')


def find(language: str, page: str) -> tuple[Path, str] | None:
    """The file of a page and the language it is in."""
    for code in dict.fromkeys((language, 'en')):
        path = files.below(GUIDE, f'{code}/{page}.md')
        if path is not None:
            return path, code
    return None


def pages(language: str) -> list[tuple[str, str]]:
    """Names and titles of all pages but the first."""
    found = []
    for path in sorted((GUIDE / 'en').glob('*.md')):
        if path.stem != 'index' and (one := find(language, path.stem)) is not None:
            found.append((path.stem, title(one[0])))
    return found


@lru_cache(64)
def title(path: Path) -> str:
    first = path.read_text('utf-8').partition('\n')[0]
    return first.lstrip('# ').strip()


@lru_cache(64)
def rendered(path: Path) -> Markup:
    """PERF: 1 to 3 ms a page, once."""
    return Markup(_markdown.render(path.read_text('utf-8')))
