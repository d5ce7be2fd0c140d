"""JSON with whole messages in it, without holding up the loop.

Parsing and writing JSON holds up everybody else in the process, 20 ms a megabyte.  So
of what is large only long strings are allowed; these are cut out, and each is decoded
or encoded in slices, between which others have their turn.  All else together has at
most SKELETON octets.
"""

from __future__ import annotations

import codecs
import json
import re
import secrets
from typing import Any

import gevent

LONG = 64 * 1024  # octets of a string from which it is cut out, and of a slice
SKELETON = 384 * 1024  # octets; a thousand recipients and more

_RUN = re.compile(rb'(?:[^"\\]+|\\[^u]|\\u[0-9A-Fa-f]{4})*+', re.DOTALL)
_SURROGATE = re.compile(rb'\\u[dD][89a-fA-F]')


class Malformed(ValueError):
    """Not JSON, or an object where only text can be long, or half of a character."""


class Excessive(Malformed):
    """Too much of something that is no long string."""


def read(data: bytes | bytearray) -> Any:
    """What a document says.  Raises Malformed."""
    try:
        if len(data) <= LONG:
            return _checked(data)
        skeleton, strings = _apart(data)
        return _whole(_checked(skeleton), strings)
    except Malformed:
        raise
    except (ValueError, RecursionError):
        raise Malformed from None


def write(data: Any) -> bytes:
    """The document; a long `body`, at the top or in `data`, is encoded in slices."""
    inner = data.get('data') if isinstance(data, dict) and 'data' in data else data
    if not isinstance(inner, dict) or len(body := inner.get('body') or '') <= LONG:
        return _dumped(data)
    mark = secrets.token_hex(16)
    marked = {**inner, 'body': mark}
    head, _, tail = _dumped(marked if inner is data else {**data, 'data': marked}).partition(
        mark.encode()
    )
    written = bytearray(head)
    for at in range(0, len(body), LONG):
        written += _dumped(body[at : at + LONG])[1:-1]
        gevent.sleep(0)
    written += tail
    return bytes(written)


def _dumped(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(',', ':')).encode()


def _checked(data: bytes | bytearray) -> Any:
    found = json.loads(data.decode())
    if _SURROGATE.search(data):
        _dumped(found)  # half of a character cannot be encoded: UnicodeEncodeError
    return found


def _apart(data: bytes | bytearray) -> tuple[bytes, dict[str, str]]:
    """The document with a mark for each long string, and the strings by their marks."""
    skeleton = bytearray()
    strings: dict[str, str] = {}
    at = steps = 0
    while True:
        steps += 1
        if not steps % 1000:
            gevent.sleep(0)
        start = data.find(b'"', at, at + SKELETON)
        skeleton += data[at : start if start >= 0 else at + SKELETON]
        if len(skeleton) >= SKELETON:
            raise Excessive
        if start < 0:
            return bytes(skeleton), strings
        run = _RUN.match(data, start + 1, start + 1 + LONG)
        at = run.end() if run else start + 1
        if data[at : at + 1] == b'"' and at - start <= LONG:
            at += 1
            skeleton += data[start:at]
            continue
        mark = secrets.token_hex(16)
        strings[mark], at = _long(data, start + 1)
        skeleton += b'"%s"' % mark.encode()


def _long(data: bytes | bytearray, at: int) -> tuple[str, int]:
    """The string that begins at `at`, behind its quote, and where it is over."""
    decoder = codecs.getincrementaldecoder('utf-8')()
    found: list[str] = []
    half = ''  # of a character beyond the first plane, as JSON escapes them
    while True:
        run = _RUN.match(data, at, at + LONG)
        end = run.end() if run else at
        text = half + json.loads(f'"{decoder.decode(data[at:end])}"')
        if half and '\udc00' <= text[1:2] <= '\udfff':
            text = text[:2].encode('utf-16', 'surrogatepass').decode('utf-16') + text[2:]
        half = text[-1] if '\ud800' <= text[-1:] <= '\udbff' else ''
        found.append(text[:-1] if half else text)
        gevent.sleep(0)
        if data[end : end + 1] == b'"':
            decoder.decode(b'', final=True)
            if half:
                raise Malformed
            return ''.join(found), end + 1
        if end == at:
            raise Malformed  # a wrong escape, or no end
        at = end


def _whole(found: Any, strings: dict[str, str]) -> Any:
    """With the long strings at their places: values of the object, or of its `data`."""
    if not isinstance(found, dict):
        raise Malformed
    for one in (found, found.get('data')):
        if isinstance(one, dict):
            for key, value in one.items():
                if isinstance(value, str) and value in strings:
                    one[key] = strings.pop(value)
    if strings:
        raise Excessive
    return found
