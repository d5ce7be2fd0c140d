"""The hand-over of a session to the shard that owns the account.

On the shard's Unix socket: one frame `{"kind": "session", …}`, answered by one
octet; `+` or `*` make the connection the session's byte stream.
"""

from __future__ import annotations

import socket
import time
from typing import Any, Protocol

from madmail.bus import frame
from madmail.gate.dialogue import Login, Verdict
from madmail.gate.gate import READ, WRITE, Gate
from madmail.shard import address

REACH_TIME = 5.0  # seconds in which a shard that was restarted should listen again
VERDICT_TIME = 20.0  # seconds in all
RETRY = 0.1  # seconds between attempts to reach a shard
BACKLOG_RETRY = 0.02  # seconds, when it listens but is behind

_VERDICTS = {b'-': Verdict.DENIED, b'!': Verdict.TROUBLE, b'~': Verdict.SESSIONS}


class Owner(Protocol):
    """The connection that waits; exactly one of these is called, once."""

    def accepted(
        self, stream: socket.socket, reader: Any, created: bool, first: memoryview
    ) -> None:
        """`stream` and its stopped read watcher are yours; `first` is gone after the call."""

    def refused(self, verdict: Verdict) -> None: ...


def session_frame(
    login: Login, user: str, *, secure: bool, origin: tuple[int, int], ahead: bytes
) -> bytes:
    """The first frame of a session; `user` is canonical, '' for inbound."""
    return frame.pack(
        {
            'kind': 'session',
            'proto': login.protocol,
            'user': user,
            'password': login.password,
            'tag': login.tag,
            'helo': login.helo,
            'esmtp': login.esmtp,
            'tls': secure,
            'origin': origin,
            'ahead': ahead,
        }
    )


class Handover:
    """One attempt; on the loop, without blocking it."""

    __slots__ = (
        '_began',
        '_data',
        '_gate',
        '_owner',
        '_reader',
        '_shards',
        '_stream',
        '_timer',
        '_writer',
        'deadline',
    )

    def __init__(self, gate: Gate, owner: Owner, shards: list[int], data: bytes) -> None:
        """`shards`: those that may take the session, in the order to be asked."""
        self._gate = gate
        self._owner = owner
        self._shards = shards
        self._data = memoryview(data)
        self._stream: socket.socket | None = None
        self._reader: Any = None
        self._writer: Any = None
        self._timer: Any = None
        self._began = time.monotonic()
        self.deadline = self._began + VERDICT_TIME

    def start(self) -> None:
        self._gate.deadlines.add(self)
        self._connect()

    def expired(self) -> None:
        self._refuse(Verdict.TROUBLE)

    def retire(self) -> None:
        """The process goes; the shard's answer is still waited for."""

    def cancel(self) -> None:
        """The owner is gone."""
        self._gate.deadlines.remove(self)
        self._release()

    # -- inside

    def _connect(self) -> None:
        self._stop_timer()
        wait = RETRY
        for shard in self._shards:
            try:
                stream = address.connect(self._gate.state_dir, address.shard_name(shard))
            except BlockingIOError:
                wait = BACKLOG_RETRY
                continue
            except OSError:
                continue
            self._stream = stream
            self._send()
            return
        left = self._began + (VERDICT_TIME if wait == BACKLOG_RETRY else REACH_TIME)
        if time.monotonic() + wait > left:
            self._refuse(Verdict.TROUBLE)
            return
        self._timer = self._gate.loop.timer(wait)
        self._timer.start(self._guarded, self._connect)

    def _guarded(self, step: Any) -> None:
        try:
            step()
        except Exception as error:
            self._gate.crashed(error)
            self._refuse(Verdict.TROUBLE)

    def _send(self) -> None:
        stream = self._stream
        assert stream is not None
        try:
            sent = stream.send(self._data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._refuse(Verdict.TROUBLE)
            return
        self._data = self._data[sent:]
        if self._data:
            if self._writer is None:
                self._writer = self._gate.loop.io(stream.fileno(), WRITE)
                self._writer.start(self._guarded, self._send)
            return
        self._stop_writer()
        self._reader = self._gate.loop.io(stream.fileno(), READ)
        self._reader.start(self._guarded, self._verdict)

    def _verdict(self) -> None:
        stream, reader, gate = self._stream, self._reader, self._gate
        assert stream is not None
        try:
            size = stream.recv_into(gate.scratch)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        octet = bytes(gate.scratch[: min(size, 1)])
        if octet in (b'+', b'*'):
            gate.deadlines.remove(self)
            reader.stop()
            self._stream = self._reader = None
            self._owner.accepted(stream, reader, octet == b'*', gate.scratch[1:size])
            return
        verdict = _VERDICTS.get(octet, Verdict.TROUBLE)
        if verdict is Verdict.DENIED:
            gate.denial_time += (time.monotonic() - self._began - gate.denial_time) / 8
        self._refuse(verdict)

    def _refuse(self, verdict: Verdict) -> None:
        self._gate.deadlines.remove(self)
        self._release()
        self._owner.refused(verdict)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _stop_writer(self) -> None:
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            self._writer = None

    def _release(self) -> None:
        self._stop_timer()
        self._stop_writer()
        if self._reader is not None:
            self._reader.stop()
            self._reader.close()
            self._reader = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
