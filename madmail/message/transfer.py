"""Content transfer encodings of the encrypted part, streaming and strict (RFC 2045 6.7, 6.8).

Only mail from elsewhere uses them; what comes out is armor text again and goes
through the same checks.  A decoder is fed whole lines, CRLF included.
"""

from __future__ import annotations

import binascii
import re

_LINES = re.compile(rb'(?:[A-Za-z0-9+/]{1,76}+\r\n)*+')
_END = re.compile(rb'([A-Za-z0-9+/]{0,74}+={1,2}\r\n)?(?:\r\n)*+')
_QUOTED = re.compile(rb'(?:(?=[^\r\n]{0,76}\r\n)(?:[!-<>-~]|=[0-9A-F]{2}|[ \t](?!\r))*+=?\r\n)*+')


class Base64:
    """RFC 2045 6.8; blank lines only behind the data.  LF alone becomes CRLF in the result."""

    __slots__ = ('_ended', '_quad', '_return')

    def __init__(self) -> None:
        self._quad = b''
        self._ended = False
        self._return = b''  # a CR that may be half of a CRLF

    def feed(self, block: bytes) -> bytes | None:
        """The octets these lines stand for; None when they are not base64."""
        found = _LINES.match(block)
        data = found.end() if found else 0
        end = _END.fullmatch(block, data)
        if end is None or (self._ended and (data or end[1])):
            return None
        joined = self._quad + block[:data].translate(None, b'\r\n')
        if end[1]:
            joined += end[1][:-2]
        self._ended = self._ended or data < len(block)
        whole = len(joined) if self._ended else len(joined) & -4
        try:
            decoded = binascii.a2b_base64(joined[:whole], strict_mode=True)
        except binascii.Error:
            return None
        self._quad = joined[whole:]
        decoded = self._return + decoded
        self._return = b'\r' if decoded.endswith(b'\r') else b''
        if self._return:
            decoded = decoded[:-1]
        return decoded.replace(b'\r\n', b'\n').replace(b'\n', b'\r\n')

    def finish(self) -> bool:
        return not self._quad


class QuotedPrintable:
    """RFC 2045 6.7: lines of 76, upper-case digits, no blank before a line end."""

    __slots__ = ('_soft',)

    def __init__(self) -> None:
        self._soft = False

    def feed(self, block: bytes) -> bytes | None:
        if _QUOTED.fullmatch(block) is None:
            return None
        if block:
            self._soft = block.endswith(b'=\r\n')
        return binascii.a2b_qp(block)

    def finish(self) -> bool:
        return not self._soft
