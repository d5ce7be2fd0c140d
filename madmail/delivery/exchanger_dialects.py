"""The two dialects in which mail is fetched from an exchanger, as values; no I/O.

A   `GET {url}/me/full`: a queue for whoever asks, bodies in base64.  It knows no
    acknowledgement: who answers forgets what it has said.
B   `GET {url}/pull?domain=D` and `POST {url}/pull/ack` with the ids that are safe,
    under a bearer token; one recipient an entry, bodies as they are in a JSON
    string, which damages what is not UTF-8.

Between two of our own, more is said, and ignored by those who do not know it:

    wait     asked for: seconds in which an answer may wait for mail; answered: the
             seconds that it could have waited
    ack      in dialect A: the client will acknowledge, by `POST {url}/me/ack` as in
             B; answered when that is expected
    group    in dialect B: `recipients`, all that a message has, beside `mail_to`,
             and `body_b64` in place of `body`

These are parameters in B and fields `X-Exchanger-Wait` and `X-Exchanger-Ack` in A,
whose URL may be a plain file's.
"""

from __future__ import annotations

import binascii
import codecs
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from madmail.store.interface import Body

PAGE = 50  # messages of one answer, as all who speak B expect
MESSAGES_LIMIT = 1000  # of an answer, whatever it says
RECIPIENTS_LIMIT = 10_000  # of a message
SLICE = 48 * 1024  # octets of a body at once; a multiple of 3
WAIT_FIELD, ACK_FIELD = 'X-Exchanger-Wait', 'X-Exchanger-Ack'


class BadAnswer(ValueError):
    """What came is not of the dialect; the text is for the operator."""


class Message(NamedTuple):
    """One message as it is fetched."""

    id: int | str  # for the acknowledgement
    sender: str
    recipients: tuple[str, ...]
    text: str
    base64: bool  # how the octets are in `text`
    sound: bool = True  # whether its form is right; if not it can never be taken

    def pieces(self) -> Iterator[bytes]:
        """The octets.  Raises ValueError where they are not base64."""
        step = SLICE // 3 * 4
        for start in range(0, len(self.text), step):
            part = self.text[start : start + step]
            yield binascii.a2b_base64(part, strict_mode=True) if self.base64 else part.encode()


class Page(NamedTuple):
    """What a fetch has brought."""

    messages: tuple[Message, ...]
    ack: bool  # whether they must be acknowledged
    waited: bool  # whether the answer waits for mail, so that one may ask again at once


def request(protocol: str, path: str, domain: str, wait: int) -> tuple[str, dict[str, str]]:
    """The target and more fields of a fetch below the exchanger's `path`."""
    if protocol == 'a':
        return f'{path}/me/full', {WAIT_FIELD: str(wait), ACK_FIELD: '1'}
    return f'{path}/pull?domain={quote(domain, safe="")}&wait={wait}&group=1', {}


def acknowledgement(protocol: str, path: str, ids: list[int | str]) -> tuple[str, bytes]:
    """The target and body of what says that messages are safe."""
    return f'{path}/{"me" if protocol == "a" else "pull"}/ack', json.dumps({'ids': ids}).encode()


def acknowledged(data: bytes) -> bool:
    """Whether the answer to an acknowledgement says that something is gone.

    Who acknowledges in vain gets the same again, and must not hurry.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return False
    count = answer.get('acked') if isinstance(answer, dict) else None
    return isinstance(count, int) and count > 0


def page(protocol: str, data: bytes) -> Page:
    """An answer, understood.  Raises BadAnswer.

    PERF: the parser holds the loop, 0.6 ms a megabyte.
    """
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise BadAnswer('the answer is not JSON') from None
    messages = answer.get('messages') if isinstance(answer, dict) else None
    if messages is None and isinstance(answer, dict) and answer.get('count') == 0:
        messages = []
    if not isinstance(messages, list) or len(messages) > MESSAGES_LIMIT:
        raise BadAnswer('the answer has no list of messages')
    read = _message_a if protocol == 'a' else _message_b
    found = tuple(read(one) for one in messages if isinstance(one, dict))
    waited = isinstance(answer.get('wait'), int) and answer['wait'] > 0
    return Page(found, protocol == 'b' or answer.get('ack') is True, waited)


def _message_a(one: dict[str, Any]) -> Message:
    number, names, body = one.get('id'), one.get('to'), one.get('body')
    return _message(number, one.get('from'), names, body, True)


def _message_b(one: dict[str, Any]) -> Message:
    names = one.get('recipients')
    if not isinstance(names, list):
        names = [one.get('mail_to')]
    encoded = one.get('body_b64')
    if isinstance(encoded, str):
        return _message(one.get('id'), one.get('mail_from'), names, encoded, True)
    return _message(one.get('id'), one.get('mail_from'), names, one.get('body'), False)


def _message(number: Any, sender: Any, names: Any, body: Any, base64: bool) -> Message:
    known = number if isinstance(number, int | str) else ''
    if (
        not isinstance(sender, str | None)
        or not isinstance(names, list)
        or not 0 < len(names) <= RECIPIENTS_LIMIT
        or not all(isinstance(name, str) and _is_text(name) for name in (sender or '', *names))
        or not isinstance(body, str)
    ):
        return Message(known, '', (), '', base64, False)
    return Message(known, sender or '', tuple(names), body, base64)


def _is_text(text: str) -> bool:
    """Without the halves of characters that JSON can name."""
    return not any('\ud800' <= character <= '\udfff' for character in text)


# -- the other end


class Given(NamedTuple):
    """One message as it is given out."""

    id: int
    domain: str
    sender: str
    recipients: tuple[str, ...]
    created: int  # Unix time
    prefix: bytes  # the signature
    body: Body

    @property
    def size(self) -> int:
        return len(self.prefix) + self.body.size


def answer_a(messages: list[Given], wait: int, ack: bool) -> Iterator[bytes]:
    """An answer in dialect A, in pieces."""
    digest = f'{binascii.crc32(b" ".join(b"%d" % one.id for one in messages)):08x}'
    head = {'hash': digest, 'count': len(messages), 'wait': wait, 'ack': ack}
    yield json.dumps(head)[:-1].encode() + b', "messages": ['
    for number, one in enumerate(messages):
        yield _opened(
            number,
            {
                'id': str(one.id),
                'from': one.sender,
                'to': one.recipients,
                'size': one.size,
                'date': _time(one.created),
            },
        )
        yield from _base64('body', one)
        yield b'}'
    yield b']}'


def answer_b(domain: str, messages: list[Given], wait: int, group: bool) -> Iterator[bytes]:
    """An answer in dialect B, in pieces; without `group` for clients of others."""
    head = {'domain': domain, 'count': len(messages), 'wait': wait}
    yield json.dumps(head)[:-1].encode() + b', "messages": ['
    for number, one in enumerate(messages):
        fields: dict[str, Any] = {
            'id': one.id,
            'domain': one.domain,
            'mail_from': one.sender,
            'mail_to': one.recipients[0],
            'created_at': _time(one.created),
        }
        if group:
            fields['recipients'] = one.recipients
        yield _opened(number, fields)
        if not group:
            yield from _text('body', one)
        yield from _base64('body_b64', one)
        yield b'}'
    yield b']}'


def _opened(number: int, fields: dict[str, Any]) -> bytes:
    return (b', ' if number else b'') + json.dumps(fields)[:-1].encode()


def _octets(one: Given) -> Iterator[bytes]:
    """In slices of SLICE but for the last."""
    held = one.prefix
    offset = 0
    while offset < one.body.size:
        piece = one.body.read(offset, SLICE)
        if not piece:
            raise OSError('a message is shorter than it was')
        offset += len(piece)
        held += piece
        while len(held) >= SLICE:
            yield held[:SLICE]
            held = held[SLICE:]
    if held:
        yield held


def _base64(name: str, one: Given) -> Iterator[bytes]:
    yield f', "{name}": "'.encode()
    for piece in _octets(one):
        yield binascii.b2a_base64(piece, newline=False)
    yield b'"'


def _text(name: str, one: Given) -> Iterator[bytes]:
    """What is not UTF-8 becomes U+FFFD; nothing else can be said in a JSON string."""
    decoder = codecs.getincrementaldecoder('utf-8')('replace')
    yield f', "{name}": "'.encode()
    for piece in _octets(one):
        yield json.dumps(decoder.decode(piece))[1:-1].encode()
    yield json.dumps(decoder.decode(b'', final=True))[1:-1].encode() + b'"'


def _time(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
