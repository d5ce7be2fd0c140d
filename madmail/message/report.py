"""Delivery reports from elsewhere (RFC 3464, rules R2 and R3).

A bounce is plaintext, so it is taken apart and built anew from what a client
needs to mark a message as failed: known fields of the delivery status and four
fields of the original.  Free text of the remote server does not pass, except
for its diagnostic lines, and those neither long nor often: who made a report
cannot always be proved, so it must not be a way to write letters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import addresses, header, hygiene, mime
from .addresses import Mailbox
from .header import Field
from .openpgp import Fault

LIMIT = 128 * 1024  # octets of the whole body, all of it held
RECIPIENT_LIMIT = 1000  # per-recipient groups of a delivery status
DETAILED = 10  # groups that keep more than the three fields a client needs
FIELD_LIMIT = 320  # octets of a field that is kept, with its folding
DIAGNOSTIC_LIMIT = 1000  # octets of Diagnostic-Code, likewise
SENDERS = frozenset(('mailer-daemon', 'postmaster'))

TEXT = b'Undelivered mail: your message could not be delivered.\r\n'
_ORIGINALS = frozenset((b'message/rfc822', b'text/rfc822-headers', b'message/global-headers'))
_ACTIONS = frozenset((b'failed', b'delayed', b'delivered', b'relayed', b'expanded'))
_STATUS = re.compile(rb'[245]\.[0-9]{1,3}\.[0-9]{1,3}(?:[ \t].*)?', re.DOTALL)
_ADDRESS = re.compile(rb'<?(?:"[^"\r\n]*"|[^"\s<>]+)@[^@\s<>]+>?')
_MESSAGE_FIELDS = frozenset(
    (
        b'reporting-mta',
        b'arrival-date',
        b'original-envelope-id',
        b'received-from-mta',
        b'dsn-gateway',
    )
)
_RECIPIENT_FIELDS = frozenset(
    (
        b'action',
        b'diagnostic-code',
        b'final-recipient',
        b'last-attempt-date',
        b'original-recipient',
        b'remote-mta',
        b'status',
        b'will-retry-until',
    )
)
_NEEDED = frozenset((b'action', b'final-recipient', b'status'))
_ENCODINGS = frozenset((b'', b'7bit', b'8bit'))


def plausible(fields: Sequence[Field], sender: Mailbox, kind: mime.ContentType) -> bool:
    """Whether the header block is that of a bounce (R2); the reverse-path is the caller's."""
    if kind.kind != b'multipart/report' or kind.parameters.keys() - {
        b'report-type',
        b'boundary',
        b'charset',
    }:
        return False
    if kind.parameters.get(b'report-type', b'').lower() != b'delivery-status':
        return False
    if sender.address.partition('@')[0].lower() not in SENDERS:
        return False
    for name, value, _ in fields:
        if name == b'auto-submitted':
            return header.unfold(value).lower() not in (b'', b'no')
    return False


class ReportBody:
    """Holds a report until its close delimiter, then gives out the reduced form."""

    __slots__ = ('_body', '_boundary', '_closed', '_scan', 'cause', 'fault')

    def __init__(self, boundary: bytes) -> None:
        self.fault: Fault | None = None
        self.cause = 'report'
        self._boundary = boundary
        self._body = bytearray()
        self._scan = 0
        self._closed = 0  # where the epilogue begins; 0 = not yet closed

    def feed(self, data: bytes) -> bytes:
        if self.fault is not None:
            return b''
        room = LIMIT - len(self._body)
        self._body += data[:room]
        kept = b'' if self._closed else self._reduce()
        if self.fault is None and len(data) > room:
            self.fault = Fault.FORM
        return kept if self.fault is None else b''

    def _reduce(self) -> bytes:
        close = b'\r\n--' + self._boundary + b'--'
        found = self._body.find(close, self._scan)
        if found < 0:
            self._scan = max(0, len(self._body) - len(close) + 1)
            return b''
        self._scan = found
        end = self._body.find(b'\r\n', found + len(close))
        if end < 0:
            return b''
        self._closed = end + 2
        body = bytes(self._body[: self._closed])
        if not header.clean(body):
            self.fault = Fault.OCTETS
            return b''
        kept = reduced(body, self._boundary)
        if kept is None:
            self.fault = Fault.FORM
            return b''
        return kept

    def finish(self) -> None:
        if self.fault is not None:
            return
        if not header.clean(bytes(self._body[self._closed :])):
            self.fault = Fault.OCTETS
        elif not self._closed:
            self.fault = Fault.FORM


def reduced(body: bytes, boundary: bytes) -> bytes | None:
    """The report built anew; None when it is not well formed."""
    pieces = mime.split(body, boundary)
    if pieces is None or not 4 <= len(pieces) <= 5:
        return None
    parts = [_part(piece) for piece in pieces[1:-1]]
    kinds = [part[0] if part else b'' for part in parts]
    if kinds[0] != b'text/plain' or kinds[1] != b'message/delivery-status':
        return None
    status = parts[1] and parts[1][1] in _ENCODINGS and _status(parts[1][2])
    if not status:
        return None
    built = [
        (b'text/plain; charset=us-ascii', TEXT),
        (b'message/delivery-status', status),
    ]
    if len(parts) == 3:
        if kinds[2] not in _ORIGINALS or parts[2] is None:
            return None
        built.append((b'text/rfc822-headers', _original(parts[2][2])))
    lines = [
        b'--%b\r\nContent-Type: %b\r\n\r\n%b\r\n' % (boundary, kind, text) for kind, text in built
    ]
    return b''.join(lines) + b'--' + boundary + b'--\r\n'


def _part(piece: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Type, transfer encoding and body of one part."""
    end = piece.find(b'\r\n\r\n')
    if end < 0:
        return None
    fields = header.parse(piece[: end + 4])
    if fields is None or header.duplicated(fields):
        return None
    kind = encoding = b''
    for name, value, _ in fields:
        if name == b'content-type':
            found = mime.content_type(value)
            kind = found.kind if found else b''
        elif name == b'content-transfer-encoding':
            encoding = header.unfold(value).lower()
    return kind, encoding, piece[end + 4 :]


def _status(text: bytes) -> bytes:
    """The known fields of a delivery status (RFC 3464 2.1); b'' when it is not well formed."""
    groups = re.split(rb'(?:\r\n){2,}', text.strip(b'\r\n'))
    if not 2 <= len(groups) <= RECIPIENT_LIMIT + 1:
        return b''
    kept = []
    for number, group in enumerate(groups):
        fields = header.parse(group + b'\r\n\r\n')
        if fields is None:
            return b''
        values = {name: header.unfold(value) for name, value, _ in fields}
        if len(values) != len(fields):
            return b''
        if number == 0:
            # RFC 3464 2.2
            if b'reporting-mta' not in values:
                return b''
        elif (
            # RFC 3464 2.3
            not _typed(values.get(b'final-recipient', b''))
            or values.get(b'action', b'').lower() not in _ACTIONS
            or not _STATUS.fullmatch(values.get(b'status', b''))
        ):
            return b''
        known = _MESSAGE_FIELDS
        if number:
            if any(len(raw) > FIELD_LIMIT for name, _, raw in fields if name in _NEEDED):
                return b''
            known = _RECIPIENT_FIELDS if number <= DETAILED else _NEEDED
        kept.append(
            b''.join([raw for name, _, raw in fields if name in known and _short(name, raw)])
        )
    return b'\r\n'.join(kept)


def _short(name: bytes, raw: bytes) -> bool:
    return len(raw) <= (DIAGNOSTIC_LIMIT if name == b'diagnostic-code' else FIELD_LIMIT)


def _typed(value: bytes) -> bool:
    """`rfc822; address` (RFC 3464 2.3.2)."""
    kind, _, address = value.partition(b';')
    return (
        kind.strip().lower() in (b'rfc822', b'utf-8')
        and _ADDRESS.fullmatch(address.strip(b' \t')) is not None
    )


def _original(text: bytes) -> bytes:
    """Four fields of the original message, if they can be read."""
    end = text.find(b'\r\n\r\n')
    fields = header.parse(text[: end + 4] if end >= 0 else text.rstrip(b'\r\n') + b'\r\n\r\n')
    if fields is None or header.duplicated(fields):
        return b''
    kept = []
    for name, value, raw in fields:
        if name == b'to':
            raw = b'To:' + hygiene.recipients(value) + b'\r\n'
        elif name == b'from' and (found := addresses.sole(value)):
            raw = b'From: <%b>\r\n' % found.address.encode()
        elif not (name == b'date' and hygiene.date(value)) and not (
            name == b'message-id' and hygiene.message_id(value)
        ):
            continue
        kept.append(raw)
    return b''.join(kept)
