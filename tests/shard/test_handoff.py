"""Sessions move to a shard's next process with their socket, and nothing is lost on the way."""

import socket
import threading
from pathlib import Path

import pytest

from madmail.shard import handoff
from madmail.shard.address import bind, connect
from madmail.shard.handoff import Bequest, Inheritance


def test_sessions_arrive_with_their_state_and_a_working_socket(tmp_path: Path) -> None:
    heir = Inheritance(tmp_path, 3)
    clients = []

    def old_process() -> None:
        bequest = Bequest(tmp_path, 3)
        for number in range(20):
            ours, theirs = socket.socketpair()
            clients.append(theirs)
            bequest.send({'number': number, 'known': bytes(number * 1000)}, ours)
        bequest.close()

    thread = threading.Thread(target=old_process)
    thread.start()
    received = list(heir.receive())
    thread.join()
    assert [state['number'] for state, _ in received] == list(range(20))
    for state, stream in received:
        assert len(state['known']) == state['number'] * 1000
        stream.send(b'still here')
        assert clients[state['number']].recv(20) == b'still here'
        stream.close()
        clients[state['number']].close()


def test_an_old_process_that_died_leaves_an_empty_inheritance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handoff, 'TIME', 0.1)
    assert list(Inheritance(tmp_path, 0).receive()) == []


def test_an_old_process_that_dies_halfway_leaves_what_was_whole(tmp_path: Path) -> None:
    heir = Inheritance(tmp_path, 0)

    def old_process() -> None:
        bequest = Bequest(tmp_path, 0)
        ours, theirs = socket.socketpair()
        bequest.send({'number': 1}, ours)
        theirs.close()
        half, other = socket.socketpair()
        socket.send_fds(bequest._connection, [b'\0\0\1\0'], [half.fileno()])
        bequest._connection.sendall(b'half')
        bequest.close()
        half.close()
        other.close()

    thread = threading.Thread(target=old_process)
    thread.start()
    received = list(heir.receive())
    thread.join()
    assert [state for state, _ in received] == [{'number': 1}]
    for _, stream in received:
        stream.close()


def test_a_socket_works_under_a_path_too_long_for_it(tmp_path: Path) -> None:
    deep = tmp_path / ('d' * 100) / ('e' * 100)
    deep.mkdir(parents=True)
    listener = bind(deep, 'shard-0.sock')
    client = connect(deep, 'shard-0.sock')
    server, _ = listener.accept()
    client.send(b'x')
    assert server.recv(1) == b'x'
    again = bind(deep, 'shard-0.sock')  # a stale one is replaced
    for stream in (listener, client, server, again):
        stream.close()
    with pytest.raises(OSError, match='refused'):
        connect(deep, 'shard-0.sock')
