"""Content-Type, Content-Disposition and their like (RFC 2045 5.1, RFC 2183), tolerantly."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_VALUE = 16 * 1024  # octets of one field looked at
MAX_PARAMETERS = 100

_TOKEN = rb'[^\x00-\x20()<>@,;:\\"/\[\]?=\x7f]+'
_TYPE = re.compile(rb'(%s)[ \t]*/[ \t]*(%s)[ \t]*(?=;|\Z|[ \t\r\n])' % (_TOKEN, _TOKEN))
_WORD = re.compile(_TOKEN)
_PARAMETER = re.compile(
    rb';[ \t\r\n]*(%s)[ \t\r\n]*=[ \t\r\n]*'
    rb'(?:"([^"\\]*(?:\\.[^"\\]*)*)(?:"|\\?\Z)|([^;\s"]*))' % _TOKEN,
    re.DOTALL,
)
_ESCAPE = re.compile(rb'\\(.)', re.DOTALL)
_COMMENT_OR_QUOTED = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|\\.|[()]', re.DOTALL)

Parameters = tuple[tuple[bytes, bytes], ...]


class ContentType(NamedTuple):
    """As written, but for `kind`: type/subtype in lower case."""

    kind: bytes
    type: bytes
    subtype: bytes
    parameters: Parameters

    def parameter(self, name: bytes) -> bytes:
        """The value of a parameter (name in lower case), b'' if absent."""
        for key, value in self.parameters:
            if key.lower() == name:
                return value
        return b''


# RFC 2045 5.2, RFC 2046 5.1.5
TEXT_PLAIN = ContentType(b'text/plain', b'text', b'plain', ((b'charset', b'us-ascii'),))
MESSAGE_RFC822 = ContentType(b'message/rfc822', b'message', b'rfc822', ())
OCTET_STREAM = ContentType(b'application/octet-stream', b'application', b'octet-stream', ())


def content_type(value: bytes | None, default: ContentType = TEXT_PLAIN) -> ContentType:
    """The parsed field; `default` if it is absent or no media type at all."""
    if value is None:
        return default
    value = _without_comments(value[:MAX_VALUE])
    found = _TYPE.match(value)
    if found is None:
        return default
    main, sub = found.groups()
    return ContentType((main + b'/' + sub).lower(), main, sub, _parameters(value, found.end()))


def disposition(value: bytes | None) -> tuple[bytes, Parameters] | None:
    """Content-Disposition: (disposition, parameters)."""
    if not value:
        return None
    value = _without_comments(value[:MAX_VALUE])
    found = _WORD.match(value)
    return (found[0], _parameters(value, found.end())) if found else None


def encoding(value: bytes | None) -> bytes:
    """Content-Transfer-Encoding, 7bit if absent or nonsense (RFC 2045 6.1)."""
    found = _WORD.match(_without_comments(value[:MAX_VALUE])) if value else None
    return found[0] if found else b'7bit'


def languages(value: bytes | None) -> tuple[bytes, ...]:
    """Content-Language (RFC 3282)."""
    if not value:
        return ()
    return tuple(_WORD.findall(_without_comments(value[:MAX_VALUE]))[:MAX_PARAMETERS])


def _parameters(value: bytes, position: int) -> Parameters:
    parameters = []
    for found in _PARAMETER.finditer(value, position):
        name, quoted, plain = found.groups()
        if quoted is not None and b'\\' in quoted:
            quoted = _ESCAPE.sub(rb'\1', quoted)
        parameters.append((name, plain if quoted is None else quoted))
        if len(parameters) == MAX_PARAMETERS:
            break
    return tuple(parameters)


def _without_comments(value: bytes) -> bytes:
    value = value.strip(b' \t\r\n')
    if b'(' not in value:
        return value
    kept = []
    depth = start = 0
    for mark in _COMMENT_OR_QUOTED.finditer(value):
        if mark[0] == b'(':
            if depth == 0:
                kept.append(value[start : mark.start()])
            depth += 1
        elif mark[0] == b')' and depth:
            depth -= 1
            if depth == 0:
                start = mark.end()
    if depth == 0:
        kept.append(value[start:])
    return b' '.join(kept).strip(b' \t\r\n')
