"""The encryption gate: one judge for every way into a mailbox or a queue.

`Inspection` reads a message as it streams in and says what to keep of it and,
at the end, whether to keep it.  A message passes when its header is in order
and its body is OpenPGP framing of the strict form (`encrypted`), the legacy
Secure-Join request (`securejoin`) or, from elsewhere, a delivery report
(`report`).  The rule numbers G, S, K, J, R in this package are:

G  the message as a whole: octets, size, header block, From
S  the MIME structure of multipart/encrypted and its armor
K  the packets in the armor
J  the Secure-Join request
R  reports

Memory: a header block (64 KiB), then 16 KiB, 128 KiB for a report.  Time is
linear, and the verdict does not depend on the cutting into chunks.

PERF (benchmarks/inspection.py): 3.6 KB in 0.11 to 0.13 ms of CPU, 140 KB in 0.8 to
1.0 ms, 31 MB in 0.17 to 0.22 s; a chunk of 64 KiB holds the loop for 0.5 to 0.7 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from madmail.smtp.reply import Reply

from . import addresses, header, hygiene, mime, refusals, report, securejoin
from .addresses import Mailbox
from .encrypted import EncryptedBody
from .header import Field
from .openpgp import Fault
from .report import ReportBody
from .securejoin import SecurejoinBody

RECEIVED_LIMIT = 25  # more are taken for a loop (RFC 5321 6.3)


class Direction(Enum):
    OUT = 'out'  # from our own accounts: submission, WebSMTP
    IN = 'in'  # from elsewhere: port 25, /mxdeliv
    APPEND = 'append'  # IMAP APPEND; nothing is changed


class Rules(NamedTuple):
    """What the operator chose; see the settings of the same names."""

    require_encryption: bool = True
    max_size: int = 31457280  # octets, 0 = no limit
    securejoin: bool = True
    reports: bool = True


class Verdict(NamedTuple):
    reply: Reply | None  # None = accepted
    kind: str = ''  # 'encrypted', 'securejoin', 'report' or 'plain'
    from_address: str = ''  # of the header, as written
    message_id: str = ''  # with brackets
    null_sender: bool = False  # deliver with null reverse-path: From is not MAIL FROM
    rest: bytes = b''  # octets still to keep; only where encryption is not required


class Inspection:
    """One message on its way in.  Pure; all state is in here."""

    __slots__ = (
        '_body',
        '_buffer',
        '_direction',
        '_from',
        '_kind',
        '_local_delivery',
        '_message_id',
        '_null_sender',
        '_open',
        '_own',
        '_recipients',
        '_reverse_path',
        '_rules',
        '_scan',
        '_size',
        'raw_header',
        'refused',
    )

    def __init__(
        self,
        direction: Direction,
        rules: Rules,
        *,
        reverse_path: str,
        recipients: int,
        own: str = '',
        local_delivery: bool = True,
    ) -> None:
        """`own` is the login; `recipients` counts those other than it.

        `local_delivery` (In) removes the trace fields.
        """
        self.refused: Reply | None = None
        self.raw_header = b''  # the block as it came, for DKIM; b'' until it is whole
        self._direction = direction
        self._rules = rules
        self._reverse_path = reverse_path
        self._recipients = recipients
        self._own = own
        self._local_delivery = local_delivery
        self._size = 0
        self._buffer = bytearray()  # the header block until it is whole
        self._scan = 0
        self._open = True  # the header block is not whole yet
        self._body: EncryptedBody | SecurejoinBody | ReportBody | None = None
        self._kind = ''
        self._from = ''
        self._message_id = ''
        self._null_sender = False

    def feed(self, chunk: bytes | memoryview) -> bytes:
        """The octets to keep; b'' while undecided, and after a refusal."""
        self._size += len(chunk)
        if self._rules.max_size and self._size > self._rules.max_size:
            # Known at the same octet however the data is cut, and stronger than the rest.
            self.refused = refusals.too_big()
            self._release()
        if self.refused is not None:
            return b''
        data = bytes(chunk)
        if self._open:
            if self._rules.require_encryption:
                return self._strict_header(data)
            return self._loose_header(data)
        return self._feed_body(data)

    def finish(self) -> Verdict:
        """The verdict; call once, at the end of data."""
        rest = b''
        if self.refused is None:
            if self._open:
                if self._rules.require_encryption:
                    self.refused = refusals.malformed('header')
                else:
                    self._open = False
                    rest = self._judge_loosely(bytes(self._buffer))
            elif self._body is not None:
                self._body.finish()
                if self._body.fault is not None:
                    self._settle(self._body.fault, self._body.cause)
        self._release()
        if self.refused is not None:
            return Verdict(self.refused, self._kind, self._from, self._message_id)
        return Verdict(None, self._kind, self._from, self._message_id, self._null_sender, rest)

    def _release(self) -> None:
        self._body = None
        self._buffer = bytearray()

    # -- body

    def _feed_body(self, data: bytes) -> bytes:
        body = self._body
        if body is None:
            if b'\0' in data:
                self.refused = refusals.malformed('nul')
                return b''
            return data
        kept = body.feed(data)
        if body.fault is not None:
            self._settle(body.fault, body.cause)
            return b''
        return kept

    def _settle(self, fault: Fault, cause: str) -> None:
        refuse = refusals.malformed if fault is Fault.OCTETS else refusals.unencrypted
        self.refused = refuse(cause)

    # -- header, strictly

    def _strict_header(self, data: bytes) -> bytes:
        """Hold the block until its empty line."""
        buffer = self._buffer
        before = len(buffer)
        buffer += data[: header.BLOCK_LIMIT - before]
        end = buffer.find(b'\r\n\r\n', self._scan) + 4
        if buffer.startswith(b'\r\n') or (end < 4 and len(buffer) == header.BLOCK_LIMIT):
            # The first line must be a field (G4); the block is bounded (G3).
            self.refused = refusals.malformed('header')
            return b''
        if end < 4:
            self._scan = max(0, len(buffer) - 3)
            return b''
        block = bytes(buffer[:end])
        self._buffer = bytearray()
        self._open = False
        kept = self._judge(block)
        if self.refused is not None:
            return b''
        self.raw_header = block
        rest = self._feed_body(data[end - before :])
        return kept + rest if self.refused is None else b''

    def _judge(self, block: bytes) -> bytes:
        """The header block to keep; sets `refused`, or the judge of the body."""
        outgoing = self._direction is Direction.OUT
        fields = header.parse(block, header.LINE_LIMIT if outgoing else header.INCOMING_LINE_LIMIT)
        if fields is None:
            self.refused = refusals.malformed('header')
            return b''
        sender = self._sender(fields)
        if sender is None:
            return b''
        if self._direction is Direction.IN and self._loops(fields):
            self.refused = refusals.loop()
            return b''
        if header.duplicated(fields):
            self.refused = refusals.malformed('duplicate')
            return b''
        values = {name: value for name, value, _ in fields}
        self._message_id = hygiene.message_id(values.get(b'message-id', b''))
        kind = mime.content_type(values.get(b'content-type', b''))
        if kind is None or not mime.usable_boundary(kind.boundary):
            self.refused = refusals.unencrypted('type')
            return b''
        self._choose(fields, values, sender, kind)
        if self.refused is not None:
            return b''
        if not self._complete(values):
            self.refused = refusals.malformed('header')
            return b''
        return self._scrub(block, fields, sender)

    def _sender(self, fields: Sequence[Field]) -> Mailbox | None:
        """The From mailbox (G6), equal to MAIL FROM and login on the way out (G7)."""
        values = [field.value for field in fields if field.name == b'from']
        sender = addresses.sole(values[0]) if len(values) == 1 else None
        if sender is None:
            self.refused = refusals.malformed('from')
            return None
        self._from = sender.address
        if self._direction is Direction.OUT:
            return sender if self._is_own(sender) else None
        if self._direction is Direction.IN:
            self._null_sender = self._is_foreign(sender)
        return sender

    def _is_own(self, sender: Mailbox) -> bool:
        """Whether From is both MAIL FROM and the login; refuses otherwise."""
        own = addresses.comparable(self._own or self._reverse_path)
        if addresses.comparable(sender.address) == own and self._is_reverse_path(sender):
            return True
        self.refused = refusals.invalid_from(sender.address, self._reverse_path)
        return False

    def _is_foreign(self, sender: Mailbox | None) -> bool:
        """Whether a MAIL FROM was given that is not the From address."""
        if not self._reverse_path:
            return False
        return sender is None or not self._is_reverse_path(sender)

    def _is_reverse_path(self, sender: Mailbox) -> bool:
        return addresses.comparable(sender.address) == addresses.comparable(self._reverse_path)

    def _loops(self, fields: Sequence[Field]) -> bool:
        return sum(1 for field in fields if field.name == b'received') > RECEIVED_LIMIT

    def _choose(
        self,
        fields: Sequence[Field],
        values: dict[bytes, bytes],
        sender: Mailbox,
        kind: mime.ContentType,
    ) -> None:
        """Set the judge of the body by the top type."""
        incoming = self._direction is not Direction.OUT
        if kind.kind == b'multipart/encrypted':
            if self._encrypted_header(values, kind, incoming):
                self._kind = 'encrypted'
                repair = self._direction is Direction.IN
                self._body = EncryptedBody(kind.boundary, incoming, repair)
                return
        elif kind.kind == b'multipart/mixed' and self._rules.securejoin:
            request = securejoin.request(fields)
            if (
                request
                and not kind.parameters.keys() - {b'boundary'}
                and self._recipients <= securejoin.RECIPIENT_LIMIT
            ):
                self._kind = 'securejoin'
                self._body = SecurejoinBody(kind.boundary, request)
                return
        elif (
            self._direction is Direction.IN
            and self._rules.reports
            and not self._reverse_path
            and report.plausible(fields, sender, kind)
        ):
            self._kind = 'report'
            self._body = ReportBody(kind.boundary)
            return
        self.refused = refusals.unencrypted('type')

    def _encrypted_header(
        self, values: dict[bytes, bytes], kind: mime.ContentType, incoming: bool
    ) -> bool:
        """S1 and S2."""
        protocol = kind.parameters.get(b'protocol')
        if protocol is None:
            if not incoming:
                return False
        elif protocol.lower() != b'application/pgp-encrypted':
            return False
        if kind.parameters.keys() - {b'protocol', b'boundary'}:
            return False
        encoding = header.unfold(values.get(b'content-transfer-encoding', b'7bit')).lower()
        if encoding not in (b'7bit', b'8bit'):
            return False
        return incoming or not (
            b'content-disposition' in values or b'content-description' in values
        )

    def _complete(self, values: dict[bytes, bytes]) -> bool:
        """What must be there (G5), in the one form that is allowed."""
        incoming = self._direction is not Direction.OUT
        if not mime.version(values.get(b'mime-version', b''), comments=incoming):
            return False
        if incoming:
            return True
        return bool(self._message_id) and hygiene.date(values.get(b'date', b''))

    def _scrub(self, block: bytes, fields: Sequence[Field], sender: Mailbox) -> bytes:
        if self._direction is Direction.APPEND:
            return block
        if self._direction is Direction.OUT:
            return hygiene.reduced(fields, sender)
        if self._kind != 'encrypted':
            return hygiene.reduced(fields, sender, group=True)
        dropped = hygiene.DESCRIBING
        if self._local_delivery:
            dropped = hygiene.INCOMING
        return hygiene.without(fields, dropped) + b'\r\n'

    # -- header, where encryption is not required

    def _loose_header(self, data: bytes) -> bytes:
        """Hold the block until its empty line, LF or CRLF."""
        buffer = self._buffer
        buffer += data
        found = header.end_of_block(buffer, self._scan)
        if not found:
            self._scan = max(0, len(buffer) - 3)
            if len(buffer) <= header.BLOCK_LIMIT:
                return b''
        if found > header.BLOCK_LIMIT or not found:
            if self._direction is Direction.OUT:
                self.refused = refusals.malformed('header')
                return b''
            found = 0
        self._open = False
        self._buffer = bytearray()
        if not found:
            # No header that could be read; from elsewhere it passes as it is.
            self._kind = 'plain'
            return self._feed_body(bytes(buffer))
        kept = self._judge_loosely(bytes(buffer[:found]))
        if self.refused is not None:
            return b''
        rest = self._feed_body(bytes(buffer[found:]))
        return kept + rest if self.refused is None else b''

    def _judge_loosely(self, block: bytes) -> bytes:
        """Octets of the block to keep: identity and hygiene, nothing else."""
        self._kind = 'plain'
        if b'\0' in block:
            self.refused = refusals.malformed('nul')
            return b''
        fields = header.parse_loosely(block)
        self.raw_header = block
        for name, value, _ in fields:
            if name == b'message-id':
                self._message_id = hygiene.message_id(value)
            elif name == b'from' and self._direction is not Direction.APPEND:
                # Every From must be ours: which one counts, each reader decides alone.
                sender = addresses.sole(header.unfold(value))
                self._from = sender.address if sender else ''
                if self._direction is Direction.IN:
                    self._null_sender = self._is_foreign(sender)
                elif sender is None:
                    self.refused = refusals.malformed('from')
                    return b''
                elif not self._is_own(sender):
                    return b''
        if self._direction is Direction.OUT:
            return hygiene.without(fields, hygiene.REVEALING)
        if self._direction is Direction.IN:
            if self._loops(fields):
                self.refused = refusals.loop()
                return b''
            if self._local_delivery:
                return hygiene.without(fields, hygiene.TRACE)
        return block
