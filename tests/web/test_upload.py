"""The body of a request: pieces, patience, and what happens to what nobody wants."""

from __future__ import annotations

import io
from typing import Any

import gevent
import pytest

from madmail.web import upload
from madmail.web.upload import Cut, TooSlow, Upload


class Body:
    """A body that comes in `pieces`, each after a pause of simulated seconds."""

    def __init__(self, *pieces: bytes | Exception, pause: float = 0.0) -> None:
        self.pieces = list(pieces)
        self.pause = pause
        self.now = 0.0
        self.closed = False

    def read(self, size: int) -> bytes:
        self.now += self.pause
        piece = self.pieces.pop(0) if self.pieces else b''
        if isinstance(piece, Exception):
            raise piece
        assert len(piece) <= size
        return piece

    def close_connection(self) -> None:
        self.closed = True


def _upload(body: Any, length: int | None = None) -> Upload:
    environ: dict[str, Any] = {'wsgi.input': body}
    if length is None:
        environ['HTTP_TRANSFER_ENCODING'] = 'chunked'
    else:
        environ['CONTENT_LENGTH'] = str(length)
    return Upload(environ, lambda: body.now)


def test_all_of_it_is_read_and_the_connection_stays() -> None:
    for length in (6, None):
        body = Body(b'abc', b'def')
        incoming = _upload(body, length)
        assert b''.join(incoming.pieces()) == b'abcdef'
        assert not incoming.abandon()
        assert not body.closed


def test_a_body_that_is_too_short_is_cut() -> None:
    body = Body(b'abc')
    with pytest.raises(Cut):
        list(_upload(body, 6).pieces())
    assert body.closed


@pytest.mark.parametrize('error', [ConnectionResetError(), upload.ParseException()])
def test_breakage_of_the_connection_is_a_cut(error: Exception) -> None:
    body = Body(b'abc', error)
    with pytest.raises(Cut):
        list(_upload(body).pieces())
    assert body.closed


def test_a_peer_must_keep_up_the_lowest_rate() -> None:
    fast = Body(*[bytes(64 * 1024)] * 100, pause=3.9)
    assert len(b''.join(_upload(fast).pieces())) == 6_553_600
    slow = Body(*[bytes(64 * 1024)] * 100, pause=8.0)
    with pytest.raises(TooSlow):
        list(_upload(slow).pieces())
    assert slow.closed
    assert slow.pieces  # it was not waited for to the end


def test_each_piece_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, 'READ_TIME', 0.05)

    class Silent(Body):
        def read(self, size: int) -> bytes:
            gevent.sleep(10)
            raise AssertionError

    body = Silent()
    with pytest.raises(TooSlow):
        list(_upload(body, 10).pieces())
    assert body.closed


def test_what_is_small_is_read_over_and_what_is_large_ends_the_connection() -> None:
    body = Body()
    assert not _upload(body, upload.SWALLOW).abandon()
    assert not body.closed
    for length in (upload.SWALLOW + 1, None):
        body = Body()
        assert _upload(body, length).abandon()
        assert body.closed


def test_lingering_ends_after_a_time_and_after_a_size() -> None:
    piece = bytes(64 * 1024)
    patient = Body(*[piece] * 5000, pause=1.0)
    assert len(list(_upload(patient).linger())) == int(upload.LINGER_TIME)
    flood = Body(*[piece] * 5000)
    assert len(list(_upload(flood).linger())) * len(piece) == upload.LINGER_SIZE
    assert all(part == b'' for part in _upload(Body(b'x', OSError())).linger())


def test_a_plain_stream_will_do() -> None:
    stream = io.BytesIO(b'abc')
    incoming = Upload({'wsgi.input': stream, 'CONTENT_LENGTH': '3'})
    assert list(incoming.pieces()) == [b'abc']
    incoming.part()
