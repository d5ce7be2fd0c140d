"""Undoing Content-Transfer-Encoding (RFC 2045 6), tolerantly, whole or in slices.

What is not well encoded is passed over.  However the octets are cut, the result
is the same.
"""

from __future__ import annotations

from binascii import a2b_base64, a2b_qp
from typing import Protocol

LINE_LIMIT = 65536  # octets of a quoted-printable line that are held until it ends

_ALPHABET = b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
_JUNK = bytes(octet for octet in range(256) if octet not in _ALPHABET)
_IDENTITY = frozenset((b'7bit', b'8bit', b'binary'))
_BLANK_ENDS = (b' \r\n', b'\t\r\n', b' \n', b'\t\n')


class Unknown(Exception):
    """The encoding is none of RFC 2045."""


class Decoder(Protocol):
    def feed(self, octets: bytes) -> bytes:
        """What these octets, behind those before, stand for as far as that is clear."""

    def finish(self) -> bytes:
        """The rest."""


def decoder(encoding: bytes) -> Decoder | None:
    """For one part's content; None where it stands as it is.  Raises Unknown."""
    name = encoding.lower()
    if name in _IDENTITY:
        return None
    if name == b'base64':
        return Base64()
    if name == b'quoted-printable':
        return QuotedPrintable()
    raise Unknown


def decode(octets: bytes, encoding: bytes) -> bytes:
    """The content; raises Unknown."""
    found = decoder(encoding)
    return octets if found is None else found.feed(octets) + found.finish()


def base64(octets: bytes) -> bytes:
    """Up to the first padding; other octets are skipped (RFC 2045 6.8)."""
    found = Base64()
    return found.feed(octets) + found.finish()


class Base64:
    """RFC 2045 6.8; ends at the first padding."""

    __slots__ = ('_ended', '_left')

    def __init__(self) -> None:
        self._ended = False
        self._left = b''  # less than four characters

    def feed(self, octets: bytes) -> bytes:
        if self._ended:
            return b''
        text, padding, _ = octets.partition(b'=')
        self._ended = bool(padding)
        text = self._left + text.translate(None, _JUNK)
        whole = len(text) & -4
        self._left = text[whole:]
        return a2b_base64(text[:whole])

    def finish(self) -> bytes:
        left, self._left = self._left, b''
        if len(left) < 2:
            return b''  # six bits are no octet
        return a2b_base64(left + b'=' * (4 - len(left)))


class QuotedPrintable:
    """RFC 2045 6.7; blanks before a line end are no content."""

    __slots__ = ('_held',)

    def __init__(self) -> None:
        self._held = b''  # a line that has not ended

    def feed(self, octets: bytes) -> bytes:
        cut = octets.rfind(b'\n') + 1
        if cut:
            text = self._held + octets[:cut]
            self._held = octets[cut:]
            return _unquoted(text)
        self._held += octets
        if len(self._held) <= LINE_LIMIT:
            return b''
        # No line of mail: cut where no escape and no blanks are torn apart.
        cut = len(self._held.rstrip(b' \t')) or len(self._held)
        escape = self._held.rfind(b'=', max(0, cut - 2), cut)
        if escape > 0:
            cut = escape
        text, self._held = self._held[:cut], self._held[cut:]
        return a2b_qp(text)

    def finish(self) -> bytes:
        text, self._held = self._held, b''
        return a2b_qp(text.rstrip(b' \t'))


def _unquoted(text: bytes) -> bytes:
    """Whole lines."""
    # PERF: nearly no text has blanks at line ends, and looking takes a tenth of stripping.
    if any(end in text for end in _BLANK_ENDS):
        lines = text.split(b'\n')
        text = b'\n'.join(
            [
                line[:-1].rstrip(b' \t') + b'\r' if line.endswith(b'\r') else line.rstrip(b' \t')
                for line in lines
            ]
        )
    return a2b_qp(text)
