"""APPEND and REPLACE: the text between their literals (RFC 3501 6.3.11, RFC 8508).

The message literals of these commands are not in the frame but on the wire, so
the command is read in steps: `Messages` is given the text up to a literal, the
text between two, and the text behind the last, and says what to do.  One step
`Begin` starts a message (MULTIAPPEND, RFC 3502); what follows are its pieces:
octets of the literal that comes next, or URLs (CATENATE, RFC 4469).
"""

from __future__ import annotations

from collections.abc import Callable

from madmail.imap.grammar_mailbox import append_options
from madmail.imap.syntax import Append, Bad, Begin, Frame, Octets, Step, Url
from madmail.imap.tokens import Reader

MAX_PIECES = 200  # of all messages in one command
MAX_URL = 8192  # octets


class Messages:
    """The messages of one command; remembers what stands open across a literal."""

    __slots__ = ('_brackets', '_left', '_next', '_single', '_utf8')

    def __init__(self, *, single: bool) -> None:
        """`single`: REPLACE, which takes one message only (RFC 8508 3)."""
        self._single = single
        self._left = MAX_PIECES
        self._brackets = False  # in the parentheses of CATENATE
        self._utf8 = False  # in the parentheses of UTF8
        self._next: Callable[[Reader, bool, list[Step]], bool] = self._message

    def first(self, reader: Reader, *, last: bool) -> Append:
        """From behind the command's name on; with `last` no literal follows."""
        reader.space()
        replaced = None
        if self._single:
            # RFC 8508 6: one number
            replaced = 0 if reader.at(b'*') else reader.nz_number()
            reader.space()
        mailbox = reader.mailbox()
        return Append(mailbox, self._read(reader, last), replaced)

    def more(self, frame: Frame) -> tuple[Step, ...]:
        """The text between two literals; the last step is the second of them."""
        return self._read(Reader(frame), last=False)

    def end(self, trailing: bytes) -> tuple[Step, ...]:
        """The text behind the last literal."""
        return self._read(Reader(Frame(trailing)), last=True)

    def _read(self, reader: Reader, last: bool) -> tuple[Step, ...]:
        steps: list[Step] = []
        while not self._next(reader, last, steps):
            pass
        return tuple(steps)

    # Each takes what it knows and says whether the text has been read.

    def _message(self, reader: Reader, last: bool, steps: list[Step]) -> bool:
        """[SP flags] [SP date] SP data, the space before included."""
        steps.append(Begin(*append_options(reader)))
        if reader.peek() < 0:
            self._next = self._behind
            return self._literal('message', last, steps)
        word = reader.option()
        if word == 'CATENATE':
            reader.space()
            reader.expect(b'(')
            self._brackets = True
            self._next = self._piece
            return False
        if word == 'UTF8':
            return self._utf8_literal(reader, last, steps)
        raise Bad('Unknown APPEND option' if word else 'Invalid APPEND option')

    def _piece(self, reader: Reader, last: bool, steps: list[Step]) -> bool:
        """One cat-part (RFC 4469 5)."""
        reader.blanks()
        word = reader.atom()
        if word == 'UTF8':
            return self._utf8_literal(reader, last, steps)
        if word not in ('TEXT', 'URL'):
            raise Bad('Unknown part of CATENATE')
        reader.space()
        self._next = self._behind
        if reader.peek() < 0:
            return self._literal('text' if word == 'TEXT' else 'url', last, steps)
        if word == 'TEXT':
            raise Bad('TEXT needs a literal')
        url = reader.astring()
        if len(url) > MAX_URL:
            raise Bad('URL is too long')
        self._count()
        steps.append(Url(url))
        return False

    def _behind(self, reader: Reader, last: bool, steps: list[Step]) -> bool:
        """What may follow a literal or URL."""
        if self._utf8:
            reader.expect(b')')
            self._utf8 = False
        if self._brackets:
            blanks = reader.blanks()
            if not reader.at(b')'):
                if not blanks:
                    raise Bad('Missing space')
                self._next = self._piece
                return False
            self._brackets = False
        if last and not reader.line[reader.position :].strip(b' '):
            return True
        if self._single or reader.peek() != 0x20:
            raise Bad('Unexpected octets behind the message')
        self._next = self._message
        return False

    def _utf8_literal(self, reader: Reader, last: bool, steps: list[Step]) -> bool:
        """UTF8 (~{n}…) (RFC 6855 4)."""
        reader.space()
        reader.expect(b'(')
        if reader.peek() >= 0:
            raise Bad('UTF8 needs a literal8')
        self._utf8 = True
        self._next = self._behind
        return self._literal('utf8', last, steps)

    def _literal(self, kind: str, last: bool, steps: list[Step]) -> bool:
        if last:
            raise Bad('APPEND needs a message literal')
        self._count()
        steps.append(Octets(kind))
        return True

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Bad('Too many pieces in one command')
