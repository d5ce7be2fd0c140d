"""Finding a page's file: the operator's own directory first, then what comes with madmail.

A name from a URL never leaves its directory: each part is plain, and the real path,
links followed, must lie below the real directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

PACKAGE = Path(__file__).parent
STATIC = PACKAGE / 'static'
TEMPLATES = PACKAGE / 'templates'
TYPES = {
    '.css': 'text/css; charset=utf-8',
    '.js': 'text/javascript; charset=utf-8',
    '.svg': 'image/svg+xml',
    '.png': 'image/png',
    '.jpg': 'image/jpeg',
    '.jpeg': 'image/jpeg',
    '.webp': 'image/webp',
    '.ico': 'image/x-icon',
    '.woff2': 'font/woff2',
    '.txt': 'text/plain; charset=utf-8',
    '.xml': 'application/xml; charset=utf-8',
    '.json': 'application/json',
    '.pdf': 'application/pdf',
}
LARGEST = 16 * 1024 * 1024  # octets of a file that is served

_PART = re.compile(r'[A-Za-z0-9_-][A-Za-z0-9._ -]{0,99}')


def below(directory: Path, name: str) -> Path | None:
    """The regular file `name` in `directory`, or None."""
    parts = name.split('/')
    if len(parts) > 8 or not all(_PART.fullmatch(part) for part in parts):
        return None
    root = os.path.realpath(directory)
    path = os.path.realpath(os.path.join(root, *parts))
    if not path.startswith(root + os.sep) or not os.path.isfile(path):
        return None
    if any(part.startswith('.') for part in path[len(root) + 1 :].split(os.sep)):
        return None  # a link to what is hidden
    return Path(path)


def static(own: Path | None, name: str) -> tuple[Path, str] | None:
    """A file that is served as it is, and its type."""
    kind = TYPES.get(os.path.splitext(name)[1].lower())
    if kind is None:
        return None
    for directory in (own, STATIC):
        found = below(directory, name) if directory is not None else None
        if found is not None and found.stat().st_size <= LARGEST:
            return found, kind
    return None
