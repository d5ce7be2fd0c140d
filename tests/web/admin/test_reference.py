"""The reference page says what the registry has."""

from __future__ import annotations

from pathlib import Path

from madmail.web.admin import reference, registry

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_page_is_the_one_made_from_the_code() -> None:
    assert (ROOT / reference.PAGE).read_text(encoding='utf-8') == reference.page()


def test_every_handler_says_what_it_does() -> None:
    for name, methods in registry.resources().items():
        for method, handler in methods.items():
            text = getattr(handler, 'func', handler).__doc__
            assert text, f'{method} {name} has no docstring'
            assert f'- **{method}** ' in reference.page()
