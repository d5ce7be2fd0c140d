"""Cutting a connection's octets into complete IMAP commands.

A command ends with its line, unless the line ends in a literal marker: then
the announced octets and a further line follow (RFC 3501 4.3, RFC 7888, RFC
3516).  The framer takes whole lines and small literals off the front of the
caller's buffer and keeps them until the command is complete.  The message
literal of APPEND or REPLACE is the exception: it is announced and left to the caller, so
that a large message is never held here.

Bounds: a command's lines and literals together stay within `limit` octets.
What is longer is swallowed where the client sends it unasked (long lines,
non-synchronizing literals) and refused where the client waits for leave.  A
client that announces more than `HOPELESS` octets to be swallowed is given up.

Every octet is looked at once: `_scanned` remembers how far a line end has been
searched for in vain.
"""

from __future__ import annotations

import re

from madmail.imap.syntax import AppendEnd, AppendStart, Continue, Frame, Outcome, TooLong

HOPELESS = 64 * 1024 * 1024  # octets swallowed in one command before giving up
_PIECE_COST = 64  # octets charged for each piece kept, so that empty literals count too

# RFC 7888: {n} waits for a continuation, {n+} does not; RFC 3516: ~{n} is a literal8
_MARKER = re.compile(rb'(~?)\{([0-9]+)(\+?)\}\Z')
_APPEND = re.compile(rb'[^\x00-\x20]+ +(?:APPEND|(?:UID +)?REPLACE +[0-9*]+) +', re.IGNORECASE)
_TAG = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff+]{1,64}(?= |\Z)')


class Framer:
    """The state between two reads of one connection."""

    __slots__ = (
        '_append',
        '_discarded',
        '_held',
        '_limit',
        '_literals',
        '_need',
        '_pieces',
        '_scanned',
        '_skip',
        '_tag',
    )

    def __init__(self, limit: int = 65536) -> None:
        self._limit = limit
        self._scanned = 0  # buffer[:_scanned] holds no line end
        self._forget()

    def _forget(self) -> None:
        self._pieces: list[bytes] | None = None  # line pieces before a literal
        self._literals: list[bytes] = []
        self._held = 0  # octets kept in pieces and literals, with their cost
        self._need = -1  # octets of the literal that comes next; -1: a line comes next
        self._append = False  # behind a message literal of APPEND
        self._discarded = -1  # octets swallowed of a command that was too long; -1: it is not
        self._skip = 0  # octets to swallow before the next line
        self._tag = b'*'

    def abandon(self) -> None:
        """Forget the command begun: a synchronizing literal was refused (RFC 3501 4.3)."""
        self._forget()

    @property
    def idle(self) -> bool:
        """At a command boundary: nothing of a command has been consumed."""
        return self._pieces is None and self._need < 0 and self._discarded < 0 and not self._append

    def next(self, buffer: bytearray) -> Outcome:
        """The next outcome; None when `buffer` does not hold enough.

        Consumed octets are deleted from the front of `buffer`.
        """
        while True:
            if self._need >= 0:
                if len(buffer) < self._need:
                    return None
                self._literals.append(bytes(buffer[: self._need]))
                del buffer[: self._need]
                self._need = -1
            if self._discarded >= 0:
                return self._discard(buffer)
            line = self._line(buffer)
            if line is None:
                if len(buffer) + self._held > self._limit:
                    self._lose(buffer)
                    continue
                return None
            if self._held + len(line) > self._limit:
                self._lose(line)
                marker = _MARKER.search(line) if line.endswith(b'}') else None
                lost = self._swallowed(marker)
                if lost is not None:
                    return lost
                continue
            # PERF: most lines leave here, about 1 µs from the call.
            if not line.endswith(b'}'):
                return self._complete(line)
            outcome = self._marked(line)
            if outcome is not None:
                return outcome

    def line(self, buffer: bytearray) -> bytes | TooLong | None:
        """One bare line (DONE, a SASL answer), without literals."""
        while True:
            if self._discarded >= 0:
                return self._discard(buffer)
            line = self._line(buffer)
            if line is None:
                if len(buffer) > self._limit:
                    self._lose(buffer)
                    continue
                return None
            if len(line) > self._limit:
                return TooLong(b'*', hopeless=False)
            return line

    def _line(self, buffer: bytearray) -> bytes | None:
        end = buffer.find(b'\n', self._scanned)
        if end < 0:
            self._scanned = len(buffer)
            return None
        self._scanned = 0
        # A bare LF ends a line as well; see the fact that online tests send it.
        line = bytes(buffer[: end - 1 if end and buffer[end - 1] == 13 else end])
        del buffer[: end + 1]
        return line

    def _complete(self, line: bytes) -> Frame | AppendEnd:
        """The command's last line."""
        if self._append:
            self._forget()
            return AppendEnd(line)
        if self._pieces is None:
            return Frame(line)
        self._pieces.append(line)
        frame = Frame(b'\0'.join(self._pieces), tuple(self._literals))
        self._forget()
        return frame

    def _marked(self, line: bytes) -> Outcome:
        """A line that may end in a literal marker."""
        marker = _MARKER.search(line)
        if marker is None:
            return self._complete(line)
        # More digits than any size has: the number is not worth knowing.
        size = int(marker[2]) if len(marker[2]) <= 12 else HOPELESS + 1
        synchronizing = not marker[3]
        text = line[: marker.start()]
        if self._append:
            return AppendStart(Frame(text), size, synchronizing, bool(marker[1]), first=False)
        first = self._pieces[0] if self._pieces else text
        head = _APPEND.match(first)
        if head is not None and (self._pieces or head.end() < len(text)):
            # RFC 3501 6.3.11: the first literal may be the mailbox name, the next is the message
            frame = Frame(b'\0'.join([*(self._pieces or ()), text]), tuple(self._literals))
            tag = _TAG.match(first)
            self._forget()
            self._append = True
            self._tag = tag[0] if tag else b'*'
            return AppendStart(frame, size, synchronizing, bool(marker[1]), first=True)
        if self._held + len(text) + size + _PIECE_COST > self._limit:
            self._lose(text)
            return self._swallowed(marker)
        if self._pieces is None:
            self._pieces = []
        self._pieces.append(text + marker[1])
        self._held += len(text) + size + _PIECE_COST
        self._need = size
        return Continue() if synchronizing else None

    # -- commands that are too long

    def _lose(self, text: bytes | bytearray) -> None:
        """Begin to swallow the command that `text` begins or goes on."""
        tag = self._tag
        if not self._append:
            found = _TAG.match(self._pieces[0] if self._pieces else text)
            tag = bytes(found[0]) if found else b'*'
        self._forget()
        self._tag = tag
        self._discarded = 0

    def _swallowed(self, marker: re.Match[bytes] | None) -> TooLong | None:
        """A line of a lost command has gone; with None more of the command follows."""
        if marker is None or not marker[3]:
            # The line ends the command, or the client waits and takes our BAD as the refusal.
            lost = TooLong(self._tag, hopeless=False)
            self._forget()
            return lost
        size = int(marker[2]) if len(marker[2]) <= 12 else HOPELESS + 1
        self._discarded += size
        if self._discarded > HOPELESS:
            lost = TooLong(self._tag, hopeless=True)
            self._forget()
            return lost
        self._skip = size
        return None

    def _discard(self, buffer: bytearray) -> TooLong | None:
        while True:
            if self._skip:
                gone = min(self._skip, len(buffer))
                del buffer[:gone]
                self._skip -= gone
                if self._skip:
                    return None
            end = buffer.find(b'\n', self._scanned)
            if end < 0:
                # Keep what could be the beginning of a literal marker.
                gone = max(0, len(buffer) - 64)
                del buffer[:gone]
                self._scanned = len(buffer)
                self._discarded += gone
                if self._discarded > HOPELESS:
                    lost = TooLong(self._tag, hopeless=True)
                    self._forget()
                    return lost
                return None
            line = self._line(buffer)
            assert line is not None
            end_of_command = self._swallowed(_MARKER.search(line[-64:]))
            if end_of_command is not None:
                return end_of_command
