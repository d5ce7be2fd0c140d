"""A notice of the operator to a user: plain text, made by the relay.

It is built field by field from checked text, so nothing that stands in a subject
or a body becomes a header field; what is not ASCII is encoded (RFC 2047, RFC 2045).
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from email.utils import formatdate

SUBJECT_LIMIT = 500  # characters
BODY_LIMIT = 64 * 1024
_CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029]')
_UNPRINTABLE = re.compile(r'[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]')
_WORD = 45  # octets that make 60 characters of base64 in an encoded word


def subject_trouble(subject: str) -> str:
    """'' if it can stand in a header, else why not."""
    if not subject.strip():
        return 'the subject is empty'
    if len(subject) > SUBJECT_LIMIT:
        return f'the subject has more than {SUBJECT_LIMIT} characters'
    if _CONTROL.search(subject):
        return 'the subject has line breaks or control characters'
    return '' if _encodable(subject) else 'the subject is not Unicode text'


def body_trouble(body: str) -> str:
    """'' if it can be sent, else why not."""
    if not body.strip():
        return 'the text is empty'
    if len(body) > BODY_LIMIT:
        return f'the text has more than {BODY_LIMIT} characters'
    if _UNPRINTABLE.search(body):
        return 'the text has control characters'
    return '' if _encodable(body) else 'the text is not Unicode text'


def notice(domain: str, to: str, subject: str, body: str, now: float) -> bytes:
    """A whole message for `to` from admin@`domain` (an IP literal in brackets).

    Subject and body are ones that have no trouble, see above (ValueError).
    """
    if trouble := subject_trouble(subject) or body_trouble(body):
        raise ValueError(trouble)
    head = [
        f'From: Admin <admin@{domain}>',
        f'To: <{to}>',
        f'Subject: {_words(subject.strip())}',
        f'Date: {formatdate(now)}',
        f'Message-ID: <{secrets.token_hex(16)}@{domain}>',
        'Auto-Submitted: auto-generated',
        'MIME-Version: 1.0',
        'Content-Type: text/plain; charset=utf-8',
    ]
    lines = re.sub(r'\r\n?', '\n', body).rstrip('\n').split('\n')
    text = '\r\n'.join(lines) + '\r\n'
    if text.isascii() and max(map(len, lines)) <= 998:  # RFC 5322 2.1.1
        head.append('Content-Transfer-Encoding: 7bit')
        content = text.encode('ascii')
    else:
        head.append('Content-Transfer-Encoding: base64')
        coded = b64encode(text.encode())
        content = b''.join([coded[i : i + 76] + b'\r\n' for i in range(0, len(coded), 76)])
    return '\r\n'.join(head).encode('ascii') + b'\r\n\r\n' + content


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(text: str) -> str:
    """As it stands if that is plain and short, else as encoded words, folded (RFC 2047 2)."""
    if text.isascii() and len(text) <= 70 and '=?' not in text:
        return text
    pieces: list[bytes] = [b'']
    for character in text:
        octets = character.encode()
        if len(pieces[-1]) + len(octets) > _WORD:  # RFC 2047 5: no character is split
            pieces.append(b'')
        pieces[-1] += octets
    return '\r\n '.join([f'=?utf-8?B?{b64encode(piece).decode()}?=' for piece in pieces])
