"""Which commands there are, and which capabilities they bring.

Each command module registers its handlers with `command` and the words it
stands for with `capability`, so a new extension is one new module.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntFlag
from typing import TYPE_CHECKING, NamedTuple

from madmail.imap.syntax import Command

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

# Gives the status line behind the tag, b'OK …', b'NO …'; None if it wrote that line itself.
# Raises syntax.Bad to refuse.
Handler = Callable[['ImapSession', Command], 'bytes | None']
Word = str | Callable[['ImapSession'], str]


class Tell(IntFlag):
    """Untagged news that may stand before a command's status line."""

    NOTHING = 0
    EXISTS = 1
    FLAGS = 2
    EXPUNGE = 4
    EVERYTHING = 7
    OWN = 8  # the command itself expunges, which is told in any case


class Verb(NamedTuple):
    handler: Handler
    selected: bool  # needs a selected mailbox
    writes: bool  # needs it read-write
    tell: Tell
    vital: bool  # a fault of ours closes the connection: NO would make clients lose mail


VERBS: dict[str, Verb] = {}
_words: list[Word] = []
ENABLES: dict[str, str] = {}  # what ENABLE knows (RFC 5161): upper case to spelling


def command(
    *names: str,
    selected: bool = False,
    writes: bool = False,
    tell: Tell = Tell.EVERYTHING,
    vital: bool = False,
) -> Callable[[Handler], Handler]:
    """Register the function as handler of the commands `names`, without UID prefix."""

    def register(handler: Handler) -> Handler:
        for name in names:
            assert name not in VERBS
            VERBS[name] = Verb(handler, selected, writes, tell, vital)
        return handler

    return register


def capability(*words: Word) -> None:
    """Announce the words after login; a function gives a word that depends on settings or on
    the account, or ''."""
    _words.extend(words)


def enables(*words: str) -> None:
    """Let ENABLE put these extensions into the session's `enabled`, in upper case."""
    ENABLES.update((word.upper(), word) for word in words)


def capabilities(session: ImapSession) -> bytes:
    """The list as it stands in CAPABILITY responses and codes (RFC 3501 7.2.1)."""
    words = [word if isinstance(word, str) else word(session) for word in _words]
    return ' '.join(filter(None, words)).encode('ascii')


# RFC 3501 6.1.1: IMAP4rev1 must be in every list; clients look for it first.
capability('IMAP4rev1', 'LITERAL+', 'XCHATMAIL')
