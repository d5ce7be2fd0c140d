"""Delivery reports of this relay (RFC 3461 to 3464): plain text, made only by the queue.

The form is what Delta Chat looks for: From MAILER-DAEMON, `Action: failed` in
the second part, the original Message-ID in the third.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from email.utils import formatdate

from madmail.smtp.reply import Reply

from . import header

_TEXT_LIMIT = 400  # characters of a remote server's words
_ADDRESS_LIMIT = 320  # octets
_ENHANCED = re.compile(r'[245]\.[0-9]{1,3}\.[0-9]{1,3}')


def _printable(text: str) -> str:
    """One line of ASCII, whatever a remote server said."""
    return ''.join([c if ' ' <= c <= '~' else '?' for c in text[:_TEXT_LIMIT]])


def _final(recipient: str) -> str:
    """The address in a field of ASCII (RFC 3464 2.3.2, RFC 6533 3)."""
    if recipient.isascii():
        return f'rfc822; {_printable(recipient)}'
    spelled = ''.join(
        [c if '!' <= c <= '~' and c not in '\\+=' else f'\\x{{{ord(c):X}}}' for c in recipient]
    )
    return f'utf-8; {spelled}'


def _legible(recipient: str) -> str:
    """For people, on one line."""
    text = recipient.encode(errors='replace')[:_ADDRESS_LIMIT].decode(errors='ignore')
    return ''.join([c if c.isprintable() else '?' for c in text])


def _diagnosis(reply: Reply) -> str:
    return _printable(' '.join(filter(None, (str(reply.code), reply.enhanced, reply.text))))


def _status(reply: Reply) -> str:
    return reply.enhanced if _ENHANCED.fullmatch(reply.enhanced) else f'{reply.code // 100}.0.0'


def _original(block: bytes) -> bytes:
    """The fields of the original, as CRLF lines and without what is no field."""
    end = block.find(b'\r\n\r\n')
    if end >= 0:
        block = block[: end + 4]
    fields = header.parse(block)
    if fields is not None:
        return b''.join([field.raw for field in fields])
    kept = []
    for name, _, raw in header.parse_loosely(block):
        raw = b'\r\n'.join(raw.rstrip(b'\r\n').replace(b'\r', b'').split(b'\n')) + b'\r\n'
        if name and header.parse(raw + b'\r\n') is not None:
            kept.append(raw)
    return b''.join(kept)


def bounce(
    domain: str,
    to: str,
    failures: Sequence[tuple[str, Reply]],
    original_headers: bytes,
    now: float,
    arrived: float | None = None,
) -> bytes:
    """A whole message for `to`, with one failed recipient a reply.

    `domain` is the mail domain (IP literals in brackets), `now` Unix seconds, like the time
    at which the message `arrived` here if that was before; `original_headers` is the header
    block of the message that failed.
    """
    boundary = secrets.token_hex(16)
    original = _original(original_headers)
    text = [
        f'This is the mail delivery system at {domain}.',
        '',
        'Undelivered: your message could not be delivered to',
        'the following recipients.',
        '',
    ]
    text += [f'<{_legible(recipient)}>: {_diagnosis(reply)}' for recipient, reply in failures]
    ascii_only = all(line.isascii() for line in text)
    status = [
        f'Reporting-MTA: dns; {domain.strip("[]")}',
        f'Arrival-Date: {formatdate(now if arrived is None else arrived)}',
    ]
    for recipient, reply in failures:
        status += [
            '',
            f'Final-Recipient: {_final(recipient)}',
            'Action: failed',
            f'Status: {_status(reply)}',
            f'Diagnostic-Code: smtp; {_diagnosis(reply)}',
        ]
    lines = [
        f'From: Mail Delivery System <MAILER-DAEMON@{domain}>',
        f'To: <{to}>',
        'Subject: Undelivered Mail Returned to Sender',
        f'Date: {formatdate(now)}',
        f'Message-ID: <{secrets.token_hex(16)}@{domain}>',
        'Auto-Submitted: auto-replied',
        'MIME-Version: 1.0',
        'Content-Type: multipart/report; report-type=delivery-status;',
        f'\tboundary="{boundary}"',
        '',
        f'--{boundary}',
        f'Content-Type: text/plain; charset={"us-ascii" if ascii_only else "utf-8"}',
        *([] if ascii_only else ['Content-Transfer-Encoding: 8bit']),
        '',
        *text,
        '',
        f'--{boundary}',
        'Content-Type: message/delivery-status',
        '',
        *status,
        '',
        f'--{boundary}',
        'Content-Type: text/rfc822-headers',
        *([] if original.isascii() else ['Content-Transfer-Encoding: 8bit']),
        '',
        '',
    ]
    head = '\r\n'.join(lines).encode()
    return head + original + f'\r\n--{boundary}--\r\n'.encode('ascii')
