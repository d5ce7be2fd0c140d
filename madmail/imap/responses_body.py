"""ENVELOPE, BODY and BODYSTRUCTURE as octets (RFC 3501 7.4.2)."""

from __future__ import annotations

from collections.abc import Iterable

from madmail.imap.responses import nstring, string
from madmail.message.envelope import Address, Envelope
from madmail.message.mime_fields import Parameters
from madmail.message.parts import Part

# The grammar wants at least one part in a multipart, also where none was found.
_NO_PART = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0)'
_NO_PART_EXTENDED = _NO_PART[:-1] + b' NIL NIL NIL NIL)'


def envelope(value: Envelope) -> bytes:
    """The parenthesized list of ENVELOPE."""
    return b'(%s)' % b' '.join(
        (
            nstring(value.date),
            nstring(value.subject),
            _addresses(value.from_),
            _addresses(value.sender),
            _addresses(value.reply_to),
            _addresses(value.to),
            _addresses(value.cc),
            _addresses(value.bcc),
            nstring(value.in_reply_to),
            nstring(value.message_id),
        )
    )


def _addresses(addresses: Iterable[Address]) -> bytes:
    listed = b''.join(
        b'(%s %s %s %s)'
        % (nstring(each.name), nstring(each.route), nstring(each.mailbox), nstring(each.host))
        for each in addresses
    )
    return b'(%s)' % listed if listed else b'NIL'


def body(part: Part) -> bytes:
    """BODY: the structure without extension data."""
    return _body(part, extended=False)


def body_structure(part: Part) -> bytes:
    """BODYSTRUCTURE"""
    return _body(part, extended=True)


def _body(part: Part, extended: bool) -> bytes:
    kind = part.content_type
    if part.multipart:
        parts = b''.join(_body(child, extended) for child in part.children)
        words = [
            parts or (_NO_PART_EXTENDED if extended else _NO_PART),
            string(kind.subtype),
        ]
        if extended:
            words.append(_parameters(kind.parameters))
    else:
        parameters = kind.parameters
        text = kind.kind.startswith(b'text/')
        if text and not kind.parameter(b'charset'):
            parameters = (*parameters, (b'charset', b'us-ascii'))  # RFC 2045 5.2
        words = [
            string(kind.type),
            string(kind.subtype),
            _parameters(parameters),
            nstring(part.id),
            nstring(part.description),
            string(part.encoding),
            b'%d' % part.size,
        ]
        if part.message is not None and part.envelope is not None:
            words.append(envelope(part.envelope))
            words.append(_body(part.message, extended))
            words.append(b'%d' % part.lines)
        elif text:
            words.append(b'%d' % part.lines)
        if extended:
            words.append(b'NIL')  # body-fld-md5
    if extended:
        words.append(_disposition(part.disposition))
        words.append(_languages(part.languages))
        words.append(nstring(part.location))
    return b'(%s)' % b' '.join(words)


def _parameters(parameters: Parameters) -> bytes:
    if not parameters:
        return b'NIL'
    return b'(%s)' % b' '.join(
        b'%s %s' % (string(name), string(value)) for name, value in parameters
    )


def _disposition(value: tuple[bytes, Parameters] | None) -> bytes:
    return b'NIL' if value is None else b'(%s %s)' % (string(value[0]), _parameters(value[1]))


def _languages(tags: tuple[bytes, ...]) -> bytes:
    if not tags:
        return b'NIL'
    return string(tags[0]) if len(tags) == 1 else b'(%s)' % b' '.join(map(string, tags))
