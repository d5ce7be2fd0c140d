"""One connection: its socket, what waits to be sent, how long it may be silent.

What it says is the business of its `speech`, first HTTP, then the relay protocol.  Reading
and writing are independent: who does not read loses packets (the newest, for an old one is
half way through somebody's congestion control already), and goes on being heard.
"""

from __future__ import annotations

import random
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

from madmail.realtime.iroh.derp import HEADER, Malformed
from madmail.realtime.iroh.relay import READ, IrohRelay
from madmail.realtime.iroh.waiting import Waiting

if TYPE_CHECKING:
    from madmail.realtime.iroh.switchboard import Switchboard

HELLO_TIME = 10.0  # seconds for a request, and again to say who it is
SILENCE = 15.0  # seconds without a word after which we ask,
JITTER = 5.0  # and up to so many more
PONG_TIME = 5.0  # seconds for the answer
FRAME_TIME = 15.0  # seconds for a frame that has begun
STUCK_TIME = 8.0  # seconds in which nothing could be sent
FAREWELL_TIME = 2.0  # seconds a peer has to close after we did
MUTE_TIME = 30.0  # seconds until one without a place is closed
BURST_TIME = 2  # seconds' worth of `iroh.rate` that may come at once
LOW_WATER = 131072  # octets unsent in the kernel at which it takes no more
HEARERS = 256  # nodes that are told when it goes

TCP_NOTSENT_LOWAT = 25  # tcp(7); not in all versions of Python

# states
HELLO = 'hello'  # HTTP, or who it is
OPEN = 'open'
MUTE = 'mute'  # has no place: heard, not answered
CLOSING = 'closing'  # has got our last words
GONE = 'gone'


class Speech(Protocol):
    """What is spoken on a connection."""

    receive: int  # octets that one callback reads at most

    def received(self, view: memoryview) -> int:
        """Take what is complete, and say how many octets it was.

        May write into `view`.  Raises Malformed.
        """

    def packet(self, kind: int, source: bytes, body: memoryview | bytes) -> bytes: ...

    def ping(self, data: bytes) -> bytes: ...

    def pong(self, data: bytes) -> bytes: ...

    def gone(self, key: bytes) -> bytes: ...

    def replaced(self) -> bytes: ...


class Connection:
    """On the loop; nothing here blocks.

    PERF: an idle client costs 1 KB in all (see benchmarks/iroh.py).
    """

    __slots__ = (
        '_asked',
        '_credit',
        '_credited',
        '_deadline',
        '_hearers',
        '_kept',
        '_last_hearer',
        '_patience',
        '_peer',
        '_pinged',
        '_place',
        '_reader',
        '_rest',
        '_rest_since',
        '_stream',
        '_turn',
        '_waiting',
        'board',
        'heard',
        'key',
        'relay',
        'speech',
        'state',
    )

    def __init__(self, relay: IrohRelay, stream: socket.socket, peer: int) -> None:
        """`stream` is non-blocking; `peer` has been admitted."""
        now = time.monotonic()
        self.relay = relay
        self.state = HELLO
        self.speech: Any = None  # a Speech; set before `start`
        self.key = b''
        self.board: Switchboard | None = None
        self.heard = now
        self._stream = stream
        self._peer = peer
        self._deadline = now + HELLO_TIME
        self._asked = 0.0  # when we pinged
        self._patience = SILENCE + random.uniform(1.0, JITTER)
        self._rest = b''  # the beginning of what has not arrived as a whole
        self._rest_since = 0.0
        self._kept = 0  # octets that its speech keeps
        self._turn = False  # it is its turn to prove who it is
        self._pinged = b''  # by it, and not answered yet
        self._hearers: set[bytes] | None = None
        self._last_hearer: bytes = b''
        self._waiting: Waiting | None = None
        self._credit = 0.0
        self._credited = 0.0
        self._reader = relay.loop.io(stream.fileno(), READ)
        self._place = relay.opened(self)

    def start(self) -> None:
        self._reader.start(self._readable)

    def guard(self, step: Any, *arguments: Any) -> None:
        """Whatever goes wrong costs this connection only."""
        if not self.relay.guarded(step, *arguments):
            self.close()

    def admit(self, peer: int) -> bool:
        """The peer turned out to be this one; False if it is one too many."""
        if not self.relay.admit(peer):
            return False
        self._peer = peer
        return True

    # -- input

    def _readable(self) -> None:
        self.guard(self._take)

    def _take(self) -> None:
        relay = self.relay
        scratch, rest = relay.scratch, self._rest
        begun = len(rest)
        if begun:
            scratch[:begun] = rest
        try:
            size = self._stream.recv_into(scratch[begun : begun + self.speech.receive])
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self.close()
            return
        if self.state is CLOSING:
            return
        self._hear(begun, size)

    def _hear(self, begun: int, size: int) -> None:
        """Take what lies in the scratch buffer: so much from before, so much that came now."""
        relay = self.relay
        scratch = relay.scratch
        now = self.heard = time.monotonic()
        end = begun + size
        at = 0
        try:
            while at < end and self.talking():
                speech = self.speech
                used = speech.received(scratch[at:end])
                at += used
                if not used and self.speech is speech:
                    break
        except Malformed:
            relay.counts.malformed += 1
            self.close()
            return
        if self._pinged:
            self._answer()
        if self.state is GONE or self.state is CLOSING:
            return
        if self.state is not HELLO:
            relay.received += size
            self._spend(size, now)
        if at < end or begun:
            self._keep(scratch[at:end], now, at > 0)

    def may_verify(self) -> bool:
        """Whether a signature may be verified now; else what is there is looked at in turn.

        In a storm all want to at once, and others shall be served in between.
        """
        if self._turn or self.relay.turns.take(False):
            self._turn = False
            return True
        self._reader.stop()
        self.relay.turns.wait(self._turned, False)
        return False

    def _turned(self) -> None:
        if self.talking():
            self._turn = True
            self.resume()
            rest = self._rest
            self.relay.scratch[: len(rest)] = rest
            self.guard(self._hear, len(rest), 0)

    def _keep(self, rest: memoryview, now: float, fresh: bool) -> None:
        """Keep the beginning of a frame; `fresh` if it is not the same as before."""
        relay = self.relay
        growth = len(rest) - len(self._rest)
        if growth > 0 and not relay.room(growth):
            relay.counts.dropped += 1
            self.close()
            return
        relay.held += growth
        if fresh or not self._rest:
            self._rest_since = now
        self._rest = bytes(rest)

    def hold(self, octets: int) -> None:
        """What its speech keeps has grown by so much.  Raises Malformed where there is no room."""
        if octets > 0 and not self.relay.room(octets):
            raise Malformed
        self._kept += octets
        self.relay.held += octets

    def _spend(self, size: int, now: float) -> None:
        """Hear no more for a while from who sends too much; nothing is lost."""
        rate = self.relay.rate()
        if not rate:
            return
        burst = rate * BURST_TIME
        credit = min(burst, self._credit + (now - self._credited) * rate) - size
        self._credit, self._credited = credit, now
        if credit < 0:
            self.heard = now - credit / rate  # it is our wish that it is silent
            self._reader.stop()
            self.relay.throttle(self)

    def may_send(self, now: float) -> bool:
        rate = self.relay.rate()
        return not rate or self._credit + (now - self._credited) * rate >= 0

    def resume(self) -> None:
        if self.state is not GONE and not self._reader.active:
            self._reader.start(self._readable)

    def talking(self) -> bool:
        """Whether it is still heard."""
        return self.state is not GONE and self.state is not CLOSING

    # -- as a node

    def enter(self, key: bytes, board: Switchboard) -> None:
        """It has proved to be the node `key`."""
        self.key = key
        now = time.monotonic()
        if board.enter(self, now):
            self.board = board
            self.state = OPEN
            self._credit, self._credited = self.relay.rate() * BURST_TIME, now
        else:
            # Closed at once it would be back at once.
            self.relay.counts.muted += 1
            self.state = MUTE
            self._deadline = now + MUTE_TIME

    def reached(self, destination: bytes) -> None:
        """Remember a node that has got something from here."""
        if destination != self._last_hearer:
            self._last_hearer = destination
            if self._hearers is None:
                self._hearers = set()
            if len(self._hearers) < HEARERS:
                self._hearers.add(destination)

    def replaced(self) -> None:
        """Another connection of the node has taken over."""
        self.relay.counts.evicted += 1
        self.board = None
        if self._waiting is not None:
            self._waiting.forget()
        self.farewell(self.speech.replaced())

    # -- output

    def deliver(self, frames: memoryview | bytes, count: int = 1) -> None:
        """Send whole frames, or keep them until they can be; `count` packets."""
        relay = self.relay
        if self.state is not OPEN:
            relay.counts.unreachable += count
            return
        waiting = self._waiting
        if waiting is None:
            try:
                sent = self._stream.send(frames)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close()
                relay.counts.unreachable += count
                return
            relay.sent += sent
            if sent == len(frames):
                relay.counts.forwarded += count
                return
            waiting = self._wait()
            if sent:
                # What has begun must end, so it is kept in any case.
                end, begun = _end_of_frame(frames, sent, count)
                waiting.begin(bytes(frames[sent:end]))
                relay.counts.forwarded += begun
                count -= begun
                if not count:
                    return
                frames = frames[end:]
        if waiting.fits(len(frames)):
            waiting.append(bytes(frames))
            relay.counts.forwarded += count
        else:
            relay.counts.dropped += count

    def pong(self, data: bytes) -> None:
        """Answer a ping once all that came with it has been looked at.

        PERF: of many that came at once the newest is enough, and one call instead of 10,000.
        """
        self._pinged = data

    def _answer(self) -> None:
        """Before anything else that waits."""
        data, self._pinged = self._pinged, b''
        if self.state is OPEN:
            if self._waiting is None:
                self._send(self.speech.pong(data))
            else:
                self._waiting.pong(self.speech.pong(data))

    def say(self, data: bytes) -> None:
        """Send something of our own, small, that must not be lost."""
        if self._waiting is None:
            self._send(data)
        else:
            self._waiting.append(data)

    def farewell(self, data: bytes) -> None:
        """Say the last words, and let the peer close."""
        if self.state is GONE:
            return
        if data:
            self.say(data)
        self._leave()
        self._drop_rest()
        if self.state is GONE:
            return
        self.state = CLOSING
        self._deadline = time.monotonic() + FAREWELL_TIME
        if self._waiting is None:
            self._shut()
        self.resume()

    def _wait(self) -> Waiting:
        self._waiting = Waiting(self.relay, self._stream, self._writable)
        return self._waiting

    def _writable(self) -> None:
        self.guard(self._flush)

    def _flush(self) -> None:
        """Send what can be sent of what waits."""
        waiting = self._waiting
        while waiting is not None:
            data = waiting.take()
            if not data:
                waiting.close()
                self._waiting = None
                if self.state is CLOSING:
                    self._shut()
                return
            if not self._send(data):
                return

    def _send(self, data: bytes) -> bool:
        """Send now; what does not go is kept before everything else, and False."""
        try:
            sent = self._stream.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return False
        if self.state is OPEN:
            self.relay.sent += sent
        if sent == len(data):
            if self._waiting is not None:
                self._waiting.since = time.monotonic()
            return True
        waiting = self._waiting or self._wait()
        waiting.begin(data[sent:] if sent else data)
        if sent:
            waiting.since = time.monotonic()
        return False

    # -- time

    def look(self, now: float) -> None:
        """Called every ROUND seconds."""
        state = self.state
        if state is OPEN:
            stuck = self._waiting is not None and now - self._waiting.since > STUCK_TIME
            half = self._rest and now - self._rest_since > FRAME_TIME
            if stuck or half:
                self._silent()
            elif self._asked:
                if self.heard > self._asked:
                    self._asked = 0.0
                elif now - self._asked >= PONG_TIME:
                    self._silent()
            elif now - self.heard >= self._patience:
                self._asked = now
                # Its content is ours to forget: any word is an answer.
                self.say(self.speech.ping(random.randbytes(8)))
        elif now >= self._deadline:
            if state is HELLO:
                self._silent()
            else:
                self.close()

    def _silent(self) -> None:
        self.relay.counts.silent += 1
        self.close()

    def extend(self) -> None:
        """It has got further, and has time again for the next step."""
        self._deadline = time.monotonic() + HELLO_TIME

    # -- the end

    def close(self) -> None:
        """End it now."""
        if self.state is GONE:
            return
        self._leave()
        self.state = GONE
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None
        self._drop_rest()
        self._reader.stop()
        self._reader.close()
        self._stream.close()
        self.relay.release(self._peer)
        self.relay.closed(self, self._place)

    def _leave(self) -> None:
        """Give up the place, and tell those who would answer."""
        board, self.board = self.board, None
        if board is None or not board.leave(self):
            return
        hearers, self._hearers = self._hearers, None
        for key in hearers or ():
            hearer: Any = board.nodes.get(key)
            if hearer is not None:
                hearer.told_gone(self.key)

    def told_gone(self, key: bytes) -> None:
        frame = self.speech.gone(key)
        if self._waiting is None or self._waiting.fits(len(frame)):
            self.say(frame)

    def _shut(self) -> None:
        """Everything is said."""
        try:
            self._stream.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    def _drop_rest(self) -> None:
        self.relay.held -= len(self._rest) + self._kept
        self._rest = b''
        self._kept = 0


def _end_of_frame(frames: memoryview | bytes, sent: int, count: int) -> tuple[int, int]:
    """Where the frame ends of which the last octet sent is, and how many frames that are."""
    if count == 1:
        return len(frames), 1
    at = begun = 0  # several are sent at once to native clients only
    while at < sent:
        at += HEADER.size + HEADER.unpack_from(frames, at)[1]
        begun += 1
    return at, begun


def prepare(stream: socket.socket) -> None:
    """Options of a TCP connection.  Raises OSError."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        # So that what waits does so here, where a pong can overtake it and all is counted.
        stream.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, LOW_WATER)
    except OSError:
        pass  # not every kernel has it
