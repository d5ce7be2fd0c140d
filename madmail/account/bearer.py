"""Words of chance that whoever holds them may use: tokens, keys, made passwords."""

from __future__ import annotations

import secrets


def fresh(octets: int) -> str:
    """A new one of so many random octets, in the characters of RFC 4648 section 5.

    It begins with a letter or a digit: on a command line a dash would make an
    option of it.
    """
    while True:
        word = secrets.token_urlsafe(octets)
        if word[0].isalnum():
            return word
