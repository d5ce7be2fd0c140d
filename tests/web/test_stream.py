"""Large answers go in pieces, and a slow peer gets all of them."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from madmail.web import stream
from madmail.web.stream import PIECE, cut, in_pieces, send_all, stop_reading


class Clock:
    def __init__(self, pause: float) -> None:
        self.now, self.pause = 0.0, pause

    def __call__(self) -> float:
        self.now += self.pause
        return self.now


def test_nothing_is_lost_at_the_cuts() -> None:
    for size in (0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7):
        data = bytes(range(256)) * (size // 256 + 1)
        pieces = [bytes(piece) for piece in cut(data[:size])]
        assert b''.join(pieces) == data[:size]
        assert all(0 < len(piece) <= PIECE for piece in pieces)


def test_a_slow_peer_gets_all_and_one_that_stands_still_does_not() -> None:
    data = bytes(20 * PIECE)
    slow = PIECE / stream.LOWEST_RATE
    assert len(list(cut(data, Clock(slow)))) == 20
    with pytest.raises(TimeoutError):
        list(cut(data, Clock(slow * 10)))


def test_each_piece_has_the_patience_of_the_socket_for_itself() -> None:
    sent: list[bytes] = []

    class Peer:
        def sendall(self, data: Any) -> None:
            assert len(data) <= PIECE
            sent.append(bytes(data))

    send_all(Peer(), b'x' * (2 * PIECE + 1))
    assert [len(data) for data in sent] == [PIECE, PIECE, 1]


def test_an_application_is_cut_where_it_says_much() -> None:
    def answers(body: Any) -> Any:
        return in_pieces(lambda environ, start_response: body)({}, None)

    little = [b'a', b'b' * PIECE]
    assert answers(little) is little
    much = list(answers([b'a', b'b' * (PIECE + 1)]))
    assert [len(data) for data in much] == [1, PIECE, 1]
    assert all(isinstance(data, bytes) for data in much)
    other = iter([b'x' * 2 * PIECE])
    assert answers(other) is other


def test_the_peer_reads_on_after_we_stopped() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b'before')
        stop_reading(ours)
        assert ours.recv(100) == b'before'
        assert ours.recv(100) == b''
        ours.sendall(b'still')
        assert theirs.recv(100) == b'still'
    stop_reading(ours)  # is closed: nothing happens
