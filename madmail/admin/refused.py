"""Why an operation is not done: the one exception of `madmail.admin`.

The command line prints the text and exits with 1; the admin API answers the
status of the word (`madmail.web.admin.answer`).
"""

from __future__ import annotations

from typing import Literal

Word = Literal[
    'invalid',  # what was asked for makes no sense
    'missing',  # what it is about does not exist
    'exists',
    'forbidden',  # never, whoever asks
    'unavailable',  # cannot be asked or done at the moment, or is not set up
    'busy',  # another one is under way
    'failed',  # should have worked
]

# What a shard answers, see `madmail.shard.calls`.
_SHARD: dict[str, tuple[Word, str]] = {
    'missing': ('missing', 'there is no such account'),
    'exists': ('exists', 'the account exists already'),
    'name': (
        'invalid',
        'the user name is reserved, too short, too long or has forbidden characters',
    ),
    'password': ('invalid', 'the password is too short or too long'),
    'full': ('unavailable', 'the disk or database is full'),
}


class Refused(Exception):
    """The operation was not done; `text` is one clear sentence for the operator."""

    def __init__(self, word: Word, text: str) -> None:
        super().__init__(text)
        self.word = word
        self.text = text


def by_shard(word: str) -> Refused:
    """The error word of a shard call as a refusal."""
    return Refused(*_SHARD.get(word, ('failed', word)))
