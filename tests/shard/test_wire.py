"""A wire carries a session: parked without a greenlet, corked while it runs."""

from __future__ import annotations

import gc
import socket

import gevent
import greenlet
import pytest

from madmail.shard import wire as wires
from madmail.shard.wire import Gone, Idle, Wire


class Echo:
    """Answers each line; `more N` waits for N octets."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.runs = 0
        self.done = False
        self.seen: list[object] = []

    def run(self) -> None:
        self.runs += 1
        while (end := self.wire.input.find(b'\n')) >= 0:
            line = bytes(self.wire.input[:end])
            del self.wire.input[: end + 1]
            if line == b'close':
                self.wire.close()
                return
            if line == b'crash':
                raise RuntimeError('as asked')
            if line.startswith(b'more '):
                self._more(int(line[5:]))
            elif line.startswith(b'big '):
                self._big(int(line[4:]))
            else:
                self.wire.write(line + b'!\n')

    def _more(self, wanted: int) -> None:
        try:
            while len(self.wire.input) < wanted:
                if not self.wire.wait(0.2):
                    self.seen.append('eof')
                    return
        except Idle:
            self.wire.write(b'idle\n')
            return
        del self.wire.input[:wanted]
        self.wire.write(b'got %d\n' % wanted)

    def _big(self, size: int) -> None:
        try:
            for _ in range(size // 65536):
                self.wire.write(bytes(65536))
                self.wire.drain()
        except Gone:
            self.seen.append('gone')
            raise

    def tick(self, now: float) -> None:
        self.seen.append('tick')

    def retire(self) -> None:
        self.wire.close()

    def ended(self) -> None:
        self.done = True


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(0)
    crashed: list[BaseException] = []
    wire = Wire(ours, crashed.append)
    session = Echo(wire)
    wire.attach(session)
    yield wire, session, theirs, crashed
    theirs.close()
    wire.close()
    gevent.sleep(0.01)


def receive(stream: socket.socket, wanted: int) -> bytes:
    data = b''
    for _ in range(400):
        try:
            data += stream.recv(1 << 20)
        except BlockingIOError:
            gevent.sleep(0.005)
        if len(data) >= wanted:
            break
    return data


def test_a_pipelined_batch_is_answered_by_one_send(pair) -> None:
    _, session, stream, _ = pair
    stream.send(b'a\nb\nc\n')
    gevent.sleep(0.02)
    assert stream.recv(100) == b'a!\nb!\nc!\n'
    assert session.runs == 2  # once at the start, once for the batch


def test_a_parked_session_has_no_greenlet(pair) -> None:
    _, _, stream, _ = pair
    stream.send(b'a\n')
    gevent.sleep(0.02)
    gc.collect()
    alive = [g for g in gc.get_objects() if isinstance(g, greenlet.greenlet) and g.gr_frame]
    assert not any(Wire._run.__code__ in codes(g) for g in alive)


def codes(alive: greenlet.greenlet) -> list[object]:
    frame, found = alive.gr_frame, []
    while frame is not None:
        found.append(frame.f_code)
        frame = frame.f_back
    return found


def test_input_that_comes_in_pieces_is_one_line(pair) -> None:
    _, _, stream, _ = pair
    for octet in b'hello\n':
        stream.send(bytes([octet]))
        gevent.sleep(0.001)
    assert receive(stream, 7) == b'hello!\n'


def test_wait_gives_more_input_or_idle_or_the_end(pair) -> None:
    _, session, stream, _ = pair
    stream.send(b'more 4\nab')
    gevent.sleep(0.02)
    stream.send(b'cdnext\n')
    assert receive(stream, 12) == b'got 4\nnext!\n'
    stream.send(b'more 4\n')
    assert receive(stream, 5) == b'idle\n'
    stream.send(b'more 4\nx')
    stream.shutdown(socket.SHUT_WR)
    gevent.sleep(0.05)
    assert session.seen[-1] == 'eof'
    assert session.done


def test_a_slow_reader_holds_its_own_session_only(pair) -> None:
    wire, _, stream, _ = pair
    stream.send(b'big %d\n' % (8 << 20))
    gevent.sleep(0.05)
    assert wire.unsent <= wires.OUTPUT_LIMIT + wires.CORK_LIMIT + 65536
    assert len(receive(stream, 8 << 20)) == 8 << 20


def test_a_reader_that_never_reads_is_ended(pair, monkeypatch) -> None:
    wire, session, stream, _ = pair
    monkeypatch.setattr(wires, 'STALL', 0.1)
    stream.send(b'big %d\n' % (8 << 20))
    for _ in range(50):
        gevent.sleep(0.02)
        if session.done:
            break
    assert session.seen == ['gone']
    assert session.done
    assert wire.closing


def test_what_was_written_is_sent_before_the_close(pair) -> None:
    _, session, stream, _ = pair
    stream.send(b'a\nclose\nb\n')
    gevent.sleep(0.02)
    assert receive(stream, 3) == b'a!\n'
    assert stream.recv(10) == b''
    assert session.done


def test_a_crash_is_reported_and_ends_the_session_only(pair) -> None:
    _, session, stream, crashed = pair
    stream.send(b'a\ncrash\n')
    gevent.sleep(0.02)
    assert stream.recv(10) == b'a!\n'
    assert [type(error) for error in crashed] == [RuntimeError]
    assert session.done


def test_a_peer_that_vanishes_while_a_run_is_active_ends_after_it(pair) -> None:
    _, session, stream, crashed = pair
    stream.send(b'more 100\n')
    gevent.sleep(0.02)
    stream.close()
    gevent.sleep(0.05)
    assert session.done
    assert crashed == []


def test_input_is_bounded_while_nobody_consumes_it(pair) -> None:
    wire, _, stream, _ = pair
    stream.send(b'more %d\n' % (10 << 20))
    for _ in range(100):
        try:
            stream.send(bytes(65536))
        except BlockingIOError:
            break
        gevent.sleep(0)
    gevent.sleep(0.02)
    assert len(wire.input) <= wires.INPUT_LIMIT + wires.RECEIVE


def test_a_peer_that_vanishes_with_output_pending_is_no_crash(pair, monkeypatch) -> None:
    wire, session, stream, crashed = pair
    failures: list[object] = []
    monkeypatch.setattr(gevent.get_hub(), 'handle_error', lambda *error: failures.append(error[1:]))
    stream.send(b'big %d\n' % (8 << 20))
    for _ in range(400):
        if wire.unsent > wires.OUTPUT_LIMIT:
            break
        gevent.sleep(0.005)
    assert wire.unsent > wires.OUTPUT_LIMIT
    stream.close()
    for _ in range(400):
        if session.done:
            break
        gevent.sleep(0.005)
    assert session.done
    assert wire.unsent == 0
    assert (crashed, failures) == ([], [])
