"""ENVELOPE, BODY and BODYSTRUCTURE of the messages in tests/corpora/structure."""

from __future__ import annotations

from pathlib import Path

import pytest

from madmail.imap import responses_body
from madmail.message.structure import Structure

CORPUS = Path(__file__).parent.parent / 'corpora' / 'structure'


class SlowBody:
    """A body that is read in pieces, as from a file."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.size = len(octets)

    def read(self, offset: int = 0, length: int = -1) -> bytes:
        return self.octets[offset:] if length < 0 else self.octets[offset : offset + length]


def seen(structure: Structure) -> bytes:
    return b'ENVELOPE %s\r\nBODY %s\r\nBODYSTRUCTURE %s\r\n' % (
        responses_body.envelope(structure.envelope()),
        responses_body.body(structure.root),
        responses_body.body_structure(structure.root),
    )


@pytest.mark.parametrize('path', sorted(CORPUS.glob('*.eml')), ids=lambda path: path.stem)
def test_message_is_seen_as_expected(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    octets = path.read_bytes()
    expected = path.with_suffix('.imap').read_bytes()
    assert seen(Structure(octets)) == expected
    # Windows of every small size cut the message at every place.
    for window in (48, 49, 50, 64, 101):
        monkeypatch.setattr('madmail.message.octets.WINDOW', window)
        monkeypatch.setattr('madmail.message.octets._FIRST', 7)
        assert seen(Structure(SlowBody(octets))) == expected
