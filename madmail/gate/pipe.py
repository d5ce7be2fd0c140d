"""An established session: octets between the client and its shard, nothing else.

Each direction reads at most SCRATCH octets a callback into the gate's one
buffer and sends them at once.  What the other side does not take is kept, and
reading stops until it is gone, so a pipe holds at most SCRATCH octets each way
and an idle one none.  The end of the client's input is passed on and the shard
may still answer; the end of the shard's ends the client.

There is no hidden TLS input: OpenSSL reads ahead no further than the record it
decrypts, and a record fits in the buffer, so what is unread is in the kernel
and wakes the loop.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any, Protocol

from madmail.gate.deadlines import Deadlines
from madmail.gate.gate import WRITE, Octets, receive, say_goodbye, send

LINGER = 30.0  # seconds a client has to read the rest when its shard is done
FAREWELL_TIME = 2.0  # seconds a client has to close after we did

CLIENT_ENDED = 1  # has said everything, or the shard hears no more
SHARD_ENDED = 2
ENDED = 4  # closed


class Counts(Protocol):
    pipes: int  # open now


class Peers(Protocol):
    @property
    def closed(self) -> Any:
        """Called with the peer of a pipe that has ended."""


class Surroundings(Protocol):
    """What pipes share; a gate, for example."""

    @property
    def loop(self) -> Any: ...

    @property
    def scratch(self) -> memoryview: ...

    @property
    def counts(self) -> Counts: ...

    @property
    def deadlines(self) -> Deadlines: ...

    @property
    def peers(self) -> Peers: ...

    @property
    def imap(self) -> dict[Any, int]: ...

    @property
    def imap_octets(self) -> Octets: ...

    @property
    def smtp_octets(self) -> Octets: ...

    def crashed(self, error: BaseException) -> None: ...


class Pipe:
    """PERF: an idle TLS pipe takes 17 KB in all, 13 KB of it OpenSSL's (see benchmarks/pipe.py).

    A socket with a memory BIO in place of an SSLSocket took 2 KB more for each
    connection, because the BIOs keep the largest size they had, and saved 2 µs
    a line; memory is what idle phones cost.
    """

    __slots__ = (
        '_client',
        '_client_reader',
        '_client_writer',
        '_ending',
        '_gate',
        '_imap',
        '_peer',
        '_secure',
        '_shard',
        '_shard_reader',
        '_shard_writer',
        '_to_client',
        '_to_shard',
        'deadline',
    )

    def __init__(
        self,
        gate: Surroundings,
        peer: Any,
        imap: bool,
        client: socket.socket,
        client_reader: Any,
        secure: bool,
        shard: socket.socket,
        shard_reader: Any,
    ) -> None:
        """Takes over both sockets and their stopped read watchers."""
        self._gate = gate
        self._peer = peer
        self._imap = imap
        self._client = client
        self._client_reader = client_reader
        self._client_writer: Any = None
        self._secure = secure
        self._shard = shard
        self._shard_reader = shard_reader
        self._shard_writer: Any = None
        self._to_client: bytearray | None = None  # read from the shard, not taken by the client
        self._to_shard: bytearray | None = None
        self._ending = 0  # sides that have ended: CLIENT_ENDED | SHARD_ENDED | ENDED
        self.deadline = 0.0

    def start(self, unsent: bytes | bytearray, first: memoryview) -> None:
        """Begin; `unsent` and then `first` go to the client before anything else."""
        gate = self._gate
        gate.counts.pipes += 1
        if self._imap:
            gate.imap[self._peer] = gate.imap.get(self._peer, 0) + 1
        self._client_reader.start(self._client_readable)
        self._shard_reader.start(self._shard_readable)
        try:
            if unsent:
                self._to_client = bytearray(unsent) + first
                self._hold_shard()
            elif first:
                self._pass_to_client(first)
        except Exception as error:
            self._crash(error)

    def expired(self) -> None:
        """A client that does not read its last words, or does not close."""
        self._end()

    def retire(self) -> None:
        """The process goes; established sessions end by themselves."""

    # -- from the client

    def _client_readable(self) -> None:
        gate = self._gate
        try:
            size = receive(self._client, self._secure, gate.scratch)
        except ssl.SSLWantWriteError:
            # A key update has to be answered first (RFC 8446 4.6.3).
            self._watch_client_writable()
            return
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            self._end()
            return
        except Exception as error:
            self._crash(error)
            return
        if self._ending & SHARD_ENDED:
            if not size:
                self._end()
            return  # nobody is there to hear it
        if not size:
            self._client_reader.stop()
            self._ending |= CLIENT_ENDED
            if self._to_shard is None:
                self._finish_shard()
            return
        (gate.imap_octets if self._imap else gate.smtp_octets).received += size
        data = gate.scratch[:size]
        try:
            sent = self._shard.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose_shard_input()
            return
        if sent < size:
            self._to_shard = bytearray(data[sent:])
            self._client_reader.stop()
            self._shard_writer = gate.loop.io(self._shard.fileno(), WRITE)
            self._shard_writer.start(self._shard_writable)

    def _shard_writable(self) -> None:
        kept = self._to_shard
        assert kept is not None
        try:
            sent = self._shard.send(kept)
        except BlockingIOError:
            return
        except OSError:
            self._lose_shard_input()
            return
        del kept[:sent]
        if kept:
            return
        self._to_shard = None
        self._drop_shard_writer()
        if self._ending & CLIENT_ENDED:
            self._finish_shard()
        elif not self._ending:
            self._client_reader.start(self._client_readable)

    def _finish_shard(self) -> None:
        """The client has said everything and the shard has got it."""
        try:
            self._shard.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # its end arrives by the reader

    def _lose_shard_input(self) -> None:
        """The shard reads no more; what it wrote before may still be on its way."""
        self._to_shard = None
        self._drop_shard_writer()
        self._client_reader.stop()
        self._ending |= CLIENT_ENDED

    # -- from the shard

    def _shard_readable(self) -> None:
        gate = self._gate
        try:
            size = self._shard.recv_into(gate.scratch)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        try:
            if size:
                self._pass_to_client(gate.scratch[:size])
            else:
                self._shard_ended()
        except Exception as error:
            self._crash(error)

    def _pass_to_client(self, data: memoryview) -> None:
        gate = self._gate
        size = len(data)
        (gate.imap_octets if self._imap else gate.smtp_octets).sent += size
        try:
            sent = send(self._client, self._secure, data)
        except OSError:
            self._end()
            return
        if sent < size:
            self._to_client = bytearray(data[sent:])
            self._hold_shard()

    def _hold_shard(self) -> None:
        self._shard_reader.stop()
        self._watch_client_writable()

    def _watch_client_writable(self) -> None:
        if self._client_writer is None:
            self._client_writer = self._gate.loop.io(self._client.fileno(), WRITE)
            self._client_writer.start(self._client_writable)

    def _client_writable(self) -> None:
        kept = self._to_client
        if kept is None:
            self._drop_client_writer()
            self._client_readable()
            return
        try:
            sent = send(self._client, self._secure, kept)
        except OSError:
            self._end()
            return
        except Exception as error:
            self._crash(error)
            return
        del kept[:sent]
        if kept:
            return
        self._to_client = None
        self._drop_client_writer()
        if self._ending & SHARD_ENDED:
            self._goodbye()
        else:
            self._shard_reader.start(self._shard_readable)

    def _shard_ended(self) -> None:
        self._shard_reader.stop()
        self._drop_shard_writer()
        self._to_shard = None
        already = self._ending & CLIENT_ENDED
        self._ending |= SHARD_ENDED
        if self._to_client is not None:
            self._set_deadline(LINGER)
        elif already:
            self._close_politely()
        else:
            self._goodbye()

    def _goodbye(self) -> None:
        """Close our half and let the client close its own.

        Closing both with input unread would be a reset, and a reset can undo
        the last words.
        """
        if self._ending & CLIENT_ENDED:
            self._close_politely()
            return
        try:
            say_goodbye(self._client, self._secure)
        except OSError:
            self._end()
            return
        self._secure = False  # what comes now is thrown away undeciphered
        self._set_deadline(FAREWELL_TIME)
        if not self._client_reader.active:
            self._client_reader.start(self._client_readable)

    def _close_politely(self) -> None:
        try:
            say_goodbye(self._client, self._secure)
        except OSError:
            pass
        self._end()

    # -- both

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self._gate.deadlines.add(self)

    def _drop_client_writer(self) -> None:
        if self._client_writer is not None:
            self._client_writer.stop()
            self._client_writer.close()
            self._client_writer = None

    def _drop_shard_writer(self) -> None:
        if self._shard_writer is not None:
            self._shard_writer.stop()
            self._shard_writer.close()
            self._shard_writer = None

    def _crash(self, error: BaseException) -> None:
        self._gate.crashed(error)
        self._end()

    def _end(self) -> None:
        if self._ending & ENDED:
            return
        self._ending |= ENDED
        gate = self._gate
        self._drop_client_writer()
        self._drop_shard_writer()
        for reader in (self._client_reader, self._shard_reader):
            reader.stop()
            reader.close()
        self._client.close()
        self._shard.close()
        self._to_client = self._to_shard = None
        gate.deadlines.remove(self)
        gate.peers.closed(self._peer)
        gate.counts.pipes -= 1
        if self._imap:
            left = gate.imap.get(self._peer, 0) - 1
            if left > 0:
                gate.imap[self._peer] = left
            else:
                gate.imap.pop(self._peer, None)
