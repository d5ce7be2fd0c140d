"""The body of a multipart/encrypted message, streaming (RFC 3156 4, rules S3 to S8).

Three stretches: a *head* (preamble, part 1, header of part 2) that is held
until it is whole, the *armor*, which streams, and a *tail* (line ends, close
delimiter, epilogue) that is short by rule.
"""

from __future__ import annotations

import re
from typing import Protocol

from . import header, mime
from .openpgp import Armor, Fault, fault_of
from .transfer import Base64, QuotedPrintable

HEAD_LIMIT = 16 * 1024  # octets
TAIL_LIMIT = 4 * 1024  # octets behind the END line
_HEAD, _PLAIN, _ENCODED, _TAIL = range(4)  # the stretches; encoded is armor in disguise
# What Thunderbird and its relatives write for readers without OpenPGP.
_PREAMBLE = re.compile(
    rb'This is an OpenPGP/MIME encrypted message \(RFC (?:2440|4880|9580) and 3156\)'
)
_PART_1 = b'application/pgp-encrypted'
_PART_2 = b'application/octet-stream'


class _Decoder(Protocol):
    def feed(self, block: bytes) -> bytes | None: ...
    def finish(self) -> bool: ...


class EncryptedBody:
    """Judge of one body; memory is bounded by the two limits and a line carry.

    `incoming`: forms of other mail programs pass.  `repair`: what is only harmless
    by being left out is left out of what `feed` returns; otherwise it is refused.
    """

    __slots__ = (
        '_armor',
        '_at',
        '_buffer',
        '_decoder',
        '_delimiter',
        '_incoming',
        '_kept',
        '_repair',
        '_scan',
        '_stage',
        '_step',
        'cause',
        'fault',
    )

    def __init__(self, boundary: bytes, incoming: bool, repair: bool) -> None:
        self.fault: Fault | None = None
        self.cause = ''
        self._delimiter = b'--' + boundary
        self._incoming = incoming
        self._repair = repair
        self._buffer = b''  # of the stretch at hand
        self._at = 0  # parsed so far
        self._scan = 0  # searched so far
        self._step = 0
        self._kept: list[bytes] = []
        self._armor = Armor(incoming, repair)
        self._decoder: _Decoder | None = None
        self._stage = _HEAD

    def feed(self, data: bytes) -> bytes:
        """Octets to keep; b'' while the head is open or after a fault."""
        if self.fault is not None:
            return b''
        # Numbers, not bound methods: those would tie the object into a reference cycle.
        if self._stage == _PLAIN:
            return self._plain(data)
        if self._stage == _HEAD:
            return self._head(data)
        return self._tail(data) if self._stage == _TAIL else self._encoded(data)

    def finish(self) -> None:
        """End of the body: set a fault unless it is complete."""
        if self.fault is not None:
            return
        if self._stage == _HEAD:
            self._fail_rest(self._buffer, 'truncated')
        elif self._stage == _TAIL:
            self._close_tail()
        elif self._stage == _PLAIN:
            self._armor.close()
            self._fail_armor()
        else:
            self._fail('truncated')

    def _fail(self, cause: str, fault: Fault = Fault.FORM) -> bytes:
        self.fault = fault
        self.cause = cause
        return b''

    def _fail_rest(self, data: bytes, cause: str) -> bytes:
        """Fail on a stretch that is cut short or too long, its octets first."""
        return self._fail(cause, Fault.FORM if header.clean(data) else Fault.OCTETS)

    def _fail_armor(self) -> bytes:
        return self._fail('armor', self._armor.fault or Fault.FORM)

    # -- head

    def _head(self, data: bytes) -> bytes:
        room = HEAD_LIMIT - len(self._buffer)
        self._buffer += data[:room]
        while self._step < 3:
            step = (self._preamble, self._part_1, self._part_2)[self._step]
            if not step():
                if self.fault is None and len(self._buffer) == HEAD_LIMIT:
                    # A CR whose LF is cut off by the limit is no fault.
                    self._fail_rest(self._buffer.removesuffix(b'\r'), 'head')
                return b''
            self._step += 1
            self._scan = self._at
        rest = self._buffer[self._at :] + data[room:]
        kept = b''.join(self._kept)
        self._buffer = b''
        self._kept.clear()
        self._stage = _PLAIN if self._decoder is None else _ENCODED
        return kept + self.feed(rest)

    def _find(self, needle: bytes) -> int:
        """Position of `needle` in the head from where the last search ended; -1 = wait."""
        found = self._buffer.find(needle, self._scan)
        if found < 0:
            self._scan = max(self._scan, len(self._buffer) - len(needle) + 1)
        else:
            self._scan = found
        return found

    def _line_end(self, at: int) -> int:
        """End of a delimiter line whose text starts at `at`; -1 = wait or refused."""
        end = self._buffer.find(b'\r\n', at)
        if end >= 0 and self._buffer[at:end].strip(b' \t'):
            line = self._buffer[at:end]
            self._fail('delimiter', fault_of(line))
            return -1
        return end

    def _preamble(self) -> bool:
        found = self._find(self._delimiter)
        if found < 0:
            return False
        end = self._line_end(found + len(self._delimiter))
        if end < 0:
            return False
        preamble = self._buffer[:found]
        if preamble:
            if not header.clean(preamble):
                self._fail('preamble', Fault.OCTETS)
                return False
            text = preamble.strip(mime.BLANKS)
            known = self._incoming and _PREAMBLE.fullmatch(text) is not None
            if (text and not known) or not preamble.endswith(b'\r\n'):
                self._fail('preamble')
                return False
            if known and self._repair:
                preamble = b''
        self._kept += (preamble, self._buffer[found : end + 2])
        self._at = end + 2
        return True

    def _part_1(self) -> bool:
        found = self._find(b'\r\n' + self._delimiter)
        if found < 0:
            return False
        end = self._line_end(found + 2 + len(self._delimiter))
        if end < 0:
            return False
        part = self._buffer[self._at : found + 2]
        if not header.clean(part):
            self._fail('part 1', Fault.OCTETS)
            return False
        split = part.find(b'\r\n\r\n') + 4
        judged = None
        if split > 3 and part[split:].strip(mime.BLANKS) == b'Version: 1':
            judged = mime.encrypted_part(part[:split], _PART_1, self._incoming, self._repair)
        if judged is None:
            self._fail('part 1')
            return False
        self._kept += (judged.block, part[split:], self._buffer[found + 2 : end + 2])
        self._at = end + 2
        return True

    def _part_2(self) -> bool:
        found = self._find(b'\r\n\r\n')
        if found < 0:
            return False
        block = self._buffer[self._at : found + 4]
        if not header.clean(block):
            self._fail('part 2', Fault.OCTETS)
            return False
        judged = mime.encrypted_part(block, _PART_2, self._incoming, self._repair)
        if judged is None:
            self._fail('part 2')
            return False
        if judged.encoding in (b'base64', b'quoted-printable'):
            self._decoder = Base64() if judged.encoding == b'base64' else QuotedPrintable()
            # What is encoded cannot be repaired.
            self._armor = Armor(self._incoming, False)
        self._kept.append(judged.block)
        self._at = found + 4
        return True

    # -- armor

    def _plain(self, data: bytes) -> bytes:
        armor = self._armor
        kept = armor.feed(data)
        if armor.fault is not None:
            return self._fail_armor()
        if armor.done:
            self._stage = _TAIL
            return kept + self._tail(armor.rest)
        return kept

    def _encoded(self, data: bytes) -> bytes:
        """Whole lines to the decoder, up to the close delimiter."""
        block = self._buffer + data if self._buffer else data
        if block.startswith(self._delimiter):
            found = 0
        else:
            found = block.find(b'\r\n' + self._delimiter) + 2
        ended = found != 1
        cut = found if ended else block.rfind(b'\r\n') + 2
        if cut > 1 and not self._decode(block[:cut]):
            return b''
        if ended:
            if not self._decoded_whole():
                return self._fail('armor')
            self._buffer = b''
            self._stage = _TAIL
            self._tail(block[cut:])
            return data if self.fault is None else b''
        self._buffer = block[cut:] if cut > 1 else block
        if len(self._buffer) > header.LINE_LIMIT + 1:
            return self._fail('transfer encoding')
        return data

    def _decode(self, block: bytes) -> bool:
        assert self._decoder is not None
        armor = self._armor
        text = self._decoder.feed(block)
        if text is None:
            self._fail('transfer encoding')
        elif armor.done:
            if text.strip(b'\r\n'):
                self._fail('armor')
        else:
            armor.feed(text)
            if armor.fault is not None or armor.rest.strip(b'\r\n'):
                self._fail('armor')
        return self.fault is None

    def _decoded_whole(self) -> bool:
        assert self._decoder is not None
        armor = self._armor
        if not self._decoder.finish():
            return False
        if not armor.done:
            # The last line of the decoded text may lack its end.
            armor.feed(b'\r\n')
        return armor.done and armor.fault is None

    # -- tail

    def _tail(self, data: bytes) -> bytes:
        self._buffer += data
        if len(self._buffer) > TAIL_LIMIT:
            return self._fail_rest(self._buffer[:TAIL_LIMIT].removesuffix(b'\r'), 'tail')
        return data

    def _close_tail(self) -> None:
        tail = self._buffer
        if not header.clean(tail):
            self._fail('tail', Fault.OCTETS)
            return
        end = tail.lstrip(b'\r\n')
        close = self._delimiter + b'--'
        if not end.startswith(close) or end[len(close) :].strip(mime.BLANKS):
            self._fail('tail')
