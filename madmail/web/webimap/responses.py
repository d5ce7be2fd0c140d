"""What an IMAP server says, parsed: the client's side of RFC 3501, no I/O.

Only for our own shards, so nothing is guessed; still bounded, for messages are
other people's.  An atom is a str, a number an int, a string (quoted or literal)
bytes, NIL None, a list a list.
"""

from __future__ import annotations

import re
from typing import Any

DEPTH = 60  # nested lists
_ATOM = re.compile(rb'[^\s(){"\\\[\]]+(?:\[[^\]]*\](?:<\d+>)?)?|\\[A-Za-z*]+|\]')
_LITERAL = re.compile(rb'\{(\d+)\}$')

Value = Any  # str | int | bytes | None | list[Value]


class Malformed(Exception):
    """Not what an IMAP server says."""


def pending(line: bytes) -> int | None:
    """How many octets of a literal follow this line (without CRLF); None if none do."""
    match = _LITERAL.search(line)
    return int(match[1]) if match else None


def parse(pieces: list[bytes]) -> list[Value]:
    """One response: its line, cut at each literal, with the literals in between."""
    stack: list[list[Value]] = [[]]
    for index, piece in enumerate(pieces):
        if index % 2:
            stack[-1].append(piece)
            continue
        if index < len(pieces) - 1:
            piece = _LITERAL.sub(b'', piece)
        _line(piece, stack)
    if len(stack) != 1:
        raise Malformed
    return stack[0]


def _line(line: bytes, stack: list[list[Value]]) -> None:
    at, end = 0, len(line)
    while at < end:
        octet = line[at]
        if octet == 32:
            at += 1
        elif octet == 40:  # (
            if len(stack) > DEPTH:
                raise Malformed
            stack.append([])
            at += 1
        elif octet == 41:  # )
            if len(stack) < 2:
                raise Malformed
            closed = stack.pop()
            stack[-1].append(closed)
            at += 1
        elif octet == 34:  # "
            text, at = _quoted(line, at + 1)
            stack[-1].append(text)
        else:
            match = _ATOM.match(line, at)
            if match is None:
                raise Malformed
            stack[-1].append(_atom(match[0].decode('utf-8', 'replace')))
            at = match.end()


def _quoted(line: bytes, at: int) -> tuple[bytes, int]:
    text = bytearray()
    while at < len(line):
        octet = line[at]
        if octet == 34:
            return bytes(text), at + 1
        if octet == 92:
            at += 1
            if at == len(line):
                break
            octet = line[at]
        text.append(octet)
        at += 1
    raise Malformed


def _atom(text: str) -> Value:
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    return None if text.upper() == 'NIL' else text
