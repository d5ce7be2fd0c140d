"""Every corpus file gives the same outcomes, whole and one octet at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from madmail.imap import grammar
from madmail.imap.framing import Framer
from madmail.imap.syntax import AppendEnd, AppendStart, Bad, Continue, Frame, TooLong

CORPUS = Path(__file__).parent.parent / 'corpora' / 'imap'
VALID = sorted(CORPUS.glob('valid/*.imap'))
INVALID = sorted(CORPUS.glob('invalid/*.imap'))


_SET = re.compile(r'frozenset\(\{([^}]*)\}\)')


def _sorted(match: re.Match[str]) -> str:
    return f'{{{", ".join(sorted(match[1].split(", ")))}}}'


def outcomes(pieces: Iterator[bytes]) -> list[str]:
    """What a session would see, a line each; plays the client for literals of APPEND."""
    framer = Framer()
    buffer = bytearray()
    lines: list[str] = []
    message = -1
    messages: Any = None
    for piece in pieces:
        buffer += piece
        while True:
            if message >= 0:
                if len(buffer) < message:
                    break
                lines.append(f'message {bytes(buffer[:message])!r}')
                del buffer[:message]
                message = -1
            outcome = framer.next(buffer)
            if outcome is None:
                break
            try:
                if isinstance(outcome, Frame):
                    lines.append(repr(grammar.parse(outcome)))
                elif isinstance(outcome, Continue):
                    lines.append('+')
                elif isinstance(outcome, AppendStart):
                    message = outcome.size
                    kind = ('+' if outcome.synchronizing else '') + '~' * outcome.binary
                    parsed: Any = 'refused before'
                    if outcome.first:
                        messages = None
                        parsed, messages = grammar.parse_append(outcome.frame)
                    elif messages is not None:
                        parsed = messages.more(outcome.frame)
                    lines.append(f'append {kind} {parsed!r}')
                elif isinstance(outcome, AppendEnd):
                    ended = messages.end(outcome.trailing) if messages else outcome.trailing
                    lines.append(f'append end {ended!r}')
                elif isinstance(outcome, TooLong):
                    lines.append(f'too long {outcome.tag!r}{" hopeless" * outcome.hopeless}')
                # Sets have no order of their own.
                lines[-1:] = [_SET.sub(_sorted, line) for line in lines[-1:]]
            except Bad as bad:
                lines.append(bad.line().decode().rstrip('\r\n'))
    assert framer.idle
    assert not buffer
    return lines


each_file = pytest.mark.parametrize(
    'path', VALID + INVALID, ids=lambda path: f'{path.parent.name}-{path.stem}'
)


def expected(path: Path) -> list[str]:
    return path.with_suffix('.expected').read_text().splitlines()


@pytest.mark.parametrize(
    'path', VALID + INVALID, ids=lambda path: f'{path.parent.name}-{path.stem}'
)
def test_corpus_file_gives_its_outcomes(path: Path) -> None:
    octets = path.read_bytes()
    assert outcomes(iter([octets])) == expected(path)


@pytest.mark.parametrize(
    'path', VALID + INVALID, ids=lambda path: f'{path.parent.name}-{path.stem}'
)
def test_one_octet_at_a_time_gives_the_same(path: Path) -> None:
    octets = path.read_bytes()
    singly = (octets[i : i + 1] for i in range(len(octets)))
    assert outcomes(singly) == expected(path)


def test_valid_files_hold_no_refusal_and_invalid_ones_nothing_else() -> None:
    for path in VALID:
        assert not [line for line in expected(path) if ' BAD ' in line or ' NO ' in line]
    for path in INVALID:
        lines = [line for line in expected(path) if not line.startswith(('+', 'message', 'append'))]
        assert lines
        assert all(' BAD ' in line or ' NO ' in line or line.startswith('too') for line in lines)
