"""The languages of the pages, and which one a visitor gets."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

LANGUAGES = ('en', 'es', 'ru', 'fa')
RIGHT_TO_LEFT = ('fa',)
TEXTS = Path(__file__).parent / 'texts'


@cache
def texts(language: str) -> dict[str, str]:
    """All texts of a language by key."""
    found: dict[str, str] = json.loads((TEXTS / f'{language}.json').read_text('utf-8'))
    return found


def direction(language: str) -> str:
    return 'rtl' if language in RIGHT_TO_LEFT else 'ltr'


def chosen(asked: str | None, setting: str, accepted: str) -> str:
    """By the link, the operator's setting (auto = by the browser), RFC 9110 12.5.4, English."""
    if asked in LANGUAGES:
        return str(asked)
    if setting in LANGUAGES:
        return setting
    best, weight = 'en', 0.0
    for part in accepted[:500].split(','):
        tag, _, parameter = part.strip().partition(';')
        language = tag.strip().lower().partition('-')[0]
        try:
            quality = float(parameter.strip().removeprefix('q=') or 1)
        except ValueError:
            continue
        if language in LANGUAGES and quality > weight:
            best, weight = language, quality
    return best
