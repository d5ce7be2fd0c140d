"""IMAP commands after login, one file a command family.

Importing the package registers all of them, see `registry`.
"""

from madmail.imap.commands import (
    any,
    append,
    compress,
    copy,
    expunge,
    fetch,
    folders,
    idle,
    list,
    metadata,
    notify,
    quota,
    search,
    select,
    store,
    thread,
)

__all__ = [
    'any',
    'append',
    'compress',
    'copy',
    'expunge',
    'fetch',
    'folders',
    'idle',
    'list',
    'metadata',
    'notify',
    'quota',
    'search',
    'select',
    'store',
    'thread',
]
