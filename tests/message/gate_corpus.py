"""Reads the gate corpus and runs one case of it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from madmail.message.inspection import Direction, Inspection, Rules, Verdict

CORPUS = Path(__file__).resolve().parents[1] / 'corpora' / 'gate'


class Case(NamedTuple):
    message: str
    direction: Direction
    kind: str
    code: int
    reverse_path: str
    own: str
    null_sender: bool

    @property
    def octets(self) -> bytes:
        return (CORPUS / self.message).read_bytes()

    def inspection(self, rules: Rules | None = None) -> Inspection:
        return Inspection(
            self.direction,
            rules or Rules(),
            reverse_path=self.reverse_path,
            recipients=1,
            own=self.own,
        )


def cases() -> list[Case]:
    found = tomllib.loads((CORPUS / 'index.toml').read_text('ascii'))['case']
    out = []
    for facts in found:
        direction = Direction(facts['direction'])
        out.append(
            Case(
                facts['message'],
                direction,
                facts.get('kind', ''),
                facts.get('code', 0),
                facts.get('reverse_path', 'alice@example.org'),
                facts.get('own', 'alice@example.org' if direction is Direction.OUT else ''),
                facts.get('null_sender', False),
            )
        )
    return out + captured()


def captured() -> list[Case]:
    """Messages of the real core (valid/core-*.eml): they pass in every direction."""
    out = []
    for path in sorted(CORPUS.glob('valid/core-*.eml')):
        block = path.read_bytes().partition(b'\r\n\r\n')[0].decode('ascii')
        found = re.search(r'^From: <?([^<>\s]+)', block, re.MULTILINE)
        assert found, path.name
        kind = 'securejoin' if '\nSecure-Join: ' in block else 'encrypted'
        for direction in Direction:
            own = found[1] if direction is Direction.OUT else ''
            out.append(Case(f'valid/{path.name}', direction, kind, 0, found[1], own, False))
    return out


def inspect(inspection: Inspection, chunks: Iterable[bytes]) -> tuple[Verdict, bytes]:
    """The verdict and what was kept."""
    kept = [inspection.feed(chunk) for chunk in chunks]
    verdict = inspection.finish()
    return verdict, b''.join(kept) + verdict.rest


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]
