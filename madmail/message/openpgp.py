"""ASCII armor of an encrypted message, streaming (RFC 9580 6, rules S8 to S10).

Works on whole lines: every octet belongs to a line that is checked before its
data is decoded, and what the lines hold goes on to `packets.Packets`.  Memory
is one line carry and one packet; the verdict does not depend on how the octets
were cut into chunks.
"""

from __future__ import annotations

import binascii
import re
from enum import Enum

from . import crc24
from .header import LINE_LIMIT
from .packets import Packets

BEGIN = b'-----BEGIN PGP MESSAGE-----'
END = b'-----END PGP MESSAGE-----'
HEAD_LIMIT = 512  # octets from the first blank line to the empty line below BEGIN
LEAST = 40  # octets, decoded

_LINE = rb'[A-Za-z0-9+/]{1,76}+\r\n'
_LINES = re.compile(rb'(?:' + _LINE + rb')*+')
_PADDED = re.compile(rb'(?=[A-Za-z0-9+/=]{2,76}$)[A-Za-z0-9+/]++={1,2}')
_CHECKSUM = re.compile(rb'=[A-Za-z0-9+/]{4}')
_HEADER = re.compile(rb'(?:Version|Hash|Charset): [ -~]{0,71}')
_BAD_OCTETS = re.compile(rb'[\r\n\0]')


class Fault(Enum):
    """Why a stream of octets cannot be an encrypted message."""

    OCTETS = 'octets'  # NUL, bare CR or LF, a line above 998 octets
    FORM = 'form'


class _Stage(Enum):
    HEAD = 0  # up to the empty line below BEGIN
    DATA = 1
    PADDED = 2  # behind a data line with padding
    SUMMED = 3  # behind the checksum
    DONE = 4


def fault_of(line: bytes) -> Fault:
    """Why a line (without its CRLF) is refused, by its octets alone."""
    if len(line) > LINE_LIMIT or _BAD_OCTETS.search(line):
        return Fault.OCTETS
    return Fault.FORM


def offender(block: bytes, at: int) -> Fault:
    """The fault of the whole line that starts at `at`."""
    return fault_of(block[at : block.index(b'\r\n', at)])


def joined_lines(block: bytes) -> bytes | None:
    """The base64 characters of whole lines, without their CRLF (S9).

    None when a line is not 1 to 76 octets; characters are only checked on the slow
    way, so the caller must decode strictly.
    """
    # PERF: lines of one width are proved by two strides, 1.0 ns an octet with the
    # join; the regular expression alone costs 3.2 ns.
    size = len(block)
    width = block.find(b'\r') + 2
    if 2 < width <= 78:
        lines, rest = divmod(size, width)
        if rest != 1 and rest != 2 and rest != width - 1:
            joined = block.translate(None, b'\r\n')
            if (
                len(joined) == size - 2 * (lines + (rest > 0))
                and block[width - 2 :: width].count(b'\r') == lines
                and block[width - 1 :: width].count(b'\n') == lines
                and block.endswith(b'\r\n')
            ):
                return joined
    if _LINES.fullmatch(block) is None:
        return None
    return block.translate(None, b'\r\n')


class Armor:
    """One armored message; feed it until `done` or `fault`.

    `incoming` admits what other mail programs write.  With `repair` armor headers
    and blank lines above BEGIN are left out of what `feed` returns, without it they
    are refused.
    """

    __slots__ = (
        '_carry',
        '_checksum',
        '_crc',
        '_decoded',
        '_incoming',
        '_packets',
        '_quad',
        '_repair',
        '_stage',
        'fault',
        'rest',
    )

    def __init__(self, incoming: bool, repair: bool) -> None:
        self.fault: Fault | None = None
        self.rest = b''  # what was fed behind the END line
        self._incoming = incoming
        self._repair = repair
        self._packets = Packets(incoming)
        self._stage = _Stage.HEAD
        self._carry = b''  # an unfinished line; in the head all of it
        self._quad = b''  # up to three base64 characters that wait for the fourth
        self._decoded = 0
        self._crc = crc24.INITIAL
        self._checksum: int | None = None

    @property
    def done(self) -> bool:
        """The END line has come and everything before it is in order."""
        return self._stage is _Stage.DONE

    def feed(self, data: bytes) -> bytes:
        """Octets of the armor to keep; b'' while the head is open or after a fault."""
        kept = b''
        if self._stage is _Stage.HEAD:
            kept, data = self._head(data)
            if self._stage is _Stage.HEAD:
                return b''
        block = self._carry + data if self._carry else data
        held = len(block) - len(data)
        cut = block.rfind(b'\r\n') + 2
        if cut > 1:
            used = self._lines(block, cut)
        else:
            used = cut = 0
        if self.fault is not None:
            return b''
        if self._stage is _Stage.DONE:
            self.rest = block[used:]
            self._carry = b''
            return kept + block[held:used]
        self._carry = block[cut:]
        if len(self._carry) > LINE_LIMIT + 1:
            self.fault = Fault.OCTETS
            return b''
        return kept + data if kept else data

    def close(self) -> None:
        """End of input: set a fault unless the armor is complete."""
        if self._stage is not _Stage.DONE and self.fault is None:
            self.fault = Fault.FORM
            if _BAD_OCTETS.search(self._carry.replace(b'\r\n', b'')):
                self.fault = Fault.OCTETS

    def _head(self, data: bytes) -> tuple[bytes, bytes]:
        """Take the head; returns it as kept, and the data behind it."""
        room = HEAD_LIMIT - len(self._carry)
        block = self._carry + data[:room]
        at = 0
        begun = False
        extra = False
        headers = 0
        while (end := block.find(b'\r\n', at)) >= 0:
            line = block[at:end]
            blank = not line.strip(b' \t')
            if not begun:
                if line == BEGIN or (self._incoming and line.rstrip(b' \t') == BEGIN):
                    begun = True
                elif not (blank and self._incoming):
                    break
                else:
                    extra = True
            elif blank:
                if extra and not self._repair:
                    self.fault = Fault.FORM
                self._stage = _Stage.DATA
                self._carry = b''
                kept = BEGIN + b'\r\n\r\n' if extra else block[: end + 2]
                return kept, block[end + 2 :] + data[room:]
            else:
                headers += 1
                extra = True
                if not self._incoming or headers > 3 or not _HEADER.fullmatch(line):
                    break
            at = end + 2
        if end >= 0:
            self.fault = fault_of(block[at:end])
        elif len(block) == HEAD_LIMIT:
            # Judge what fits, but not a CR whose LF is cut off.
            self.fault = Fault.FORM
            if _BAD_OCTETS.search(block[at:-1]):
                self.fault = Fault.OCTETS
        self._carry = block
        return b'', b''

    def _lines(self, block: bytes, cut: int) -> int:
        """Take the whole lines before `cut`; how far it got."""
        at = 0
        if self._stage is _Stage.DATA:
            at = cut
            for mark in (b'=', b'-'):
                found = block.find(mark, 0, at)
                if found >= 0:
                    at = block.rfind(b'\r\n', 0, found) + 2
                    at = at if at > 1 else 0
            if at and not self._data(block[:at]):
                return 0
        while at < cut and self.fault is None and self._stage is not _Stage.DONE:
            end = block.find(b'\r\n', at)
            if not self._last_line(block[at:end]):
                self.fault = self.fault or offender(block, at)
            at = end + 2
        return at

    def _data(self, block: bytes) -> bool:
        """Decode whole lines of data."""
        joined = joined_lines(block)
        decoded = None
        if joined is not None:
            joined = self._quad + joined
            whole = len(joined) & -4
            try:
                decoded = binascii.a2b_base64(joined[:whole], strict_mode=True)
            except binascii.Error:
                pass
        if joined is None or decoded is None:
            # Take the good lines first, so that the first fault counts however the data was cut.
            found = _LINES.match(block)
            good = found.end() if found else 0
            if not good or self._data(block[:good]):
                self.fault = offender(block, good)
            return False
        self._quad = joined[whole:]
        return self._take(decoded)

    def _take(self, decoded: bytes) -> bool:
        self._decoded += len(decoded)
        self._crc = crc24.update(self._crc, decoded)
        self._packets.feed(decoded)
        if self._packets.faulty:
            self.fault = Fault.FORM
            return False
        return True

    def _last_line(self, line: bytes) -> bool:
        """A line with `=` or `-`, or any line behind one."""
        if self._stage is _Stage.DATA and _PADDED.fullmatch(line):
            joined = self._quad + line
            try:
                decoded = binascii.a2b_base64(joined, strict_mode=True)
            except binascii.Error:
                return False
            # Unused bits of the last character must be zero: no second spelling of the same octets.
            if binascii.b2a_base64(decoded, newline=False) != joined:
                return False
            self._quad = b''
            self._stage = _Stage.PADDED
            return self._take(decoded)
        if self._stage is not _Stage.SUMMED and _CHECKSUM.fullmatch(line):
            self._checksum = int.from_bytes(binascii.a2b_base64(line[1:]), 'big')
            self._stage = _Stage.SUMMED
            return True
        if line != END and not (self._incoming and line.rstrip(b' \t') == END):
            return False
        self._stage = _Stage.DONE
        if (
            self._quad
            or self._decoded < LEAST
            or (self._checksum is not None and self._checksum != self._crc)
            or not self._packets.finish()
        ):
            self.fault = Fault.FORM
        return True
