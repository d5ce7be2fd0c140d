"""A client connection before login: TLS handshake, dialogue, STARTTLS, hand-over.

Everything runs in callbacks of the loop.  The peer is hostile here: the input
kept is bounded by INPUT_LIMIT, the output by not reading while the peer does
not, the time by `limits.login_time` from the first moment, whatever it sends.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from typing import Any

from madmail.account.address import canonical
from madmail.account.placement import shard_of
from madmail.gate.dialogue import Dialogue, Farewell, Login, Step, Then, Verdict
from madmail.gate.gate import (
    READ,
    TLS_RECORD_LIMIT,
    WRITE,
    Gate,
    Service,
    receive,
    say_goodbye,
    send,
)
from madmail.gate.handover import Handover, session_frame
from madmail.gate.imap_prelogin import ImapDialogue
from madmail.gate.pipe import Pipe
from madmail.gate.smtp_prelogin import SmtpDialogue

INPUT_LIMIT = 65536  # octets read ahead
# A whole TLS record each time, so that OpenSSL holds back nothing.
RECEIVE = TLS_RECORD_LIMIT
CORK_LIMIT = 16384  # octets of replies gathered before they are sent
FAREWELL_TIME = 2.0  # seconds a client has to close after we did

# states
HANDSHAKE = 'handshake'
DIALOGUE = 'dialogue'
DELAYED = 'delayed'  # an answer is held back
UPGRADING = 'upgrading'  # the answer to STARTTLS is not sent yet
LOGIN = 'login'  # a shard is asked
CLOSING = 'closing'
GONE = 'gone'


def dialogue_of(service: Service, gate: Gate) -> Dialogue:
    """A fresh dialogue of the service's protocol."""
    if service.protocol == 'imap':
        return ImapDialogue(gate.settings)
    return SmtpDialogue(gate.settings, service.protocol == 'inbound')


class Connection:
    """Owns the socket until a pipe takes it over."""

    __slots__ = (
        '_dialogue',
        '_eof',
        '_gate',
        '_handover',
        '_held',
        '_input',
        '_origin',
        '_output',
        '_peer',
        '_reader',
        '_secure',
        '_service',
        '_shaking',
        '_state',
        '_stream',
        '_timer',
        '_writer',
        'deadline',
    )

    def __init__(
        self, gate: Gate, service: Service, stream: socket.socket, origin: tuple[int, int]
    ) -> None:
        """`stream` is non-blocking; `peer` has been counted as opened."""
        self._gate = gate
        self._service = service
        self._stream = stream
        self._origin = origin
        self._peer = origin[0]
        self._secure = False
        self._shaking = False  # the TLS handshake has begun
        self._state = DIALOGUE
        self._dialogue = dialogue_of(service, gate)
        self._input = bytearray()
        self._output = bytearray()
        self._eof = False
        self._held: Step | None = None
        self._handover: Handover | None = None
        self._timer: Any = None
        self._reader = gate.loop.io(stream.fileno(), READ)
        self._writer: Any = None
        seconds = gate.limit('limits.login_time')
        self.deadline = time.monotonic() + seconds if seconds else math.inf

    def start(self) -> None:
        self._gate.deadlines.add(self)
        self._guard(self._begin)

    def expired(self) -> None:
        """The time is up."""
        if self._state != CLOSING:
            self._gate.counts.timeouts += 1
        self._dismiss(Farewell.TIMEOUT)  # in CLOSING that ends it at once

    def retire(self) -> None:
        """The process goes away."""
        if self._state != CLOSING:
            self._dismiss(Farewell.SHUTDOWN)

    # -- for the hand-over

    def accepted(
        self, stream: socket.socket, reader: Any, created: bool, first: memoryview
    ) -> None:
        gate = self._gate
        self._state = GONE
        gate.deadlines.remove(self)
        if self._service.protocol != 'inbound':
            gate.counts.logins += 1
        if created:
            gate.counts.registrations += 1
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            self._writer = None
        imap = self._service.protocol == 'imap'
        pipe = Pipe(
            gate, self._peer, imap, self._stream, self._reader, self._secure, stream, reader
        )
        pipe.start(self._output, first)

    def refused(self, verdict: Verdict) -> None:
        self._handover = None
        if self._state == LOGIN:
            self._gate.deadlines.add(self)
            self._guard(self._go_on, verdict)

    # -- inside: TLS

    def _begin(self) -> None:
        if self._service.implicit_tls:
            self._upgrade()
        else:
            self._greet()

    def _upgrade(self) -> None:
        """Begin the handshake; the client speaks first."""
        self._input.clear()
        try:
            self._stream = self._service.tls.wrap_socket(
                self._stream, server_side=True, do_handshake_on_connect=False
            )
        except (OSError, ValueError):  # gone already
            self._gate.counts.handshake_failures += 1
            self._end()
            return
        self._secure = True
        self._state = HANDSHAKE
        self._read()

    def _handshake(self) -> None:
        if self._state != HANDSHAKE:
            return  # it ended while it waited for its turn
        stream = self._stream
        assert isinstance(stream, ssl.SSLSocket)
        try:
            stream.do_handshake()
        except ssl.SSLWantReadError:
            self._shaking = True
            self._read()
            return
        except ssl.SSLWantWriteError:
            self._shaking = True
            self._watch_writable()
            return
        except (OSError, ValueError):
            # What was wrong OpenSSL has told the client in an alert.
            self._gate.counts.handshake_failures += 1
            self._end()
            return
        self._gate.counts.handshakes += 1
        if self._service.implicit_tls:
            self._greet()
        else:
            self._dialogue.secured()
            self._state = DIALOGUE
            self._read()

    def _greet(self) -> None:
        self._state = DIALOGUE
        self._output += self._dialogue.greeting(self._secure)
        self._converse()

    # -- inside: input

    def _readable(self) -> None:
        self._guard(self._take)

    def _take(self) -> None:
        state = self._state
        if state == HANDSHAKE:
            if self._gate.turns.take(self._shaking):
                self._handshake()
            else:
                self._reader.stop()
                self._gate.turns.wait(self._turn, self._shaking)
            return
        scratch = self._gate.scratch[:RECEIVE]
        try:
            size = receive(self._stream, self._secure, scratch)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self._end()
            return
        if state == CLOSING:
            if not size:
                self._end()
            return
        if size:
            self._input += scratch[:size]
        else:
            self._eof = True
            self._reader.stop()
        self._converse()

    def _turn(self) -> None:
        self._guard(self._handshake)

    def _converse(self) -> None:
        """Answer all complete commands."""
        dialogue, buffer = self._dialogue, self._input
        while self._state == DIALOGUE:
            if len(self._output) > CORK_LIMIT and not self._flush():
                break
            step = dialogue.step(buffer, self._secure)
            if step is None:
                break
            self._perform(step)
        if self._state != DIALOGUE:
            return
        if not self._flush():
            # It does not read what we say, so we do not hear what it says.
            self._reader.stop()
        elif self._eof:
            self._close()
        elif len(buffer) > INPUT_LIMIT - RECEIVE:
            self._reader.stop()  # no dialogue leaves so much; be sure
        else:
            self._read()

    def _perform(self, step: Step) -> None:
        if step.delay:
            self._hold(step)
            return
        self._output += step.say
        if step.then is Then.LOGIN:
            assert step.login is not None
            self._login(step.login)
        elif step.then is Then.START_TLS:
            # RFC 3501 6.2.1, RFC 3207 4.2: nothing said in clear counts any more
            self._reader.stop()
            self._input.clear()
            self._state = UPGRADING
            if self._flush() and self._state == UPGRADING:
                self._upgrade()
        elif step.then is Then.CLOSE:
            self._close()

    def _hold(self, step: Step) -> None:
        """Perform the step later; until then nothing is read."""
        self._state = DELAYED
        self._reader.stop()
        self._held = step
        self._timer = self._gate.loop.timer(step.delay)
        self._timer.start(self._guard, self._release_held)
        self._flush()

    def _release_held(self) -> None:
        self._stop_timer()
        step, self._held = self._held, None
        if self._state == DELAYED and step is not None:
            self._state = DIALOGUE
            self._perform(step._replace(delay=0.0))
            self._converse()

    # -- inside: login

    def _login(self, login: Login) -> None:
        gate, peers = self._gate, self._gate.peers
        if login.protocol == 'inbound':
            user, shards = '', gate.any_shard()
        else:
            limit = gate.limit('limits.logins_per_minute_per_ip')
            if limit and peers.logins(self._peer) >= limit:
                self._refuse(Verdict.LOGINS)
                return
            peers.count_login(self._peer)
            address = canonical(login.user, gate.domain)
            if address is None:
                # No shard is asked; the answer is the same and comes as late.
                self._refuse(Verdict.DENIED, gate.denial_time)
                return
            user, shards = address, [shard_of(address, gate.shards)]
        self._state = LOGIN
        # What the client sends meanwhile stays in the kernel.
        self._reader.stop()
        gate.deadlines.remove(self)
        ahead = login.ahead + self._input
        frame = session_frame(login, user, secure=self._secure, origin=self._origin, ahead=ahead)
        if self._flush() or self._state == LOGIN:
            self._handover = Handover(gate, self, shards, frame)
            self._handover.start()

    def _go_on(self, verdict: Verdict) -> None:
        self._state = DIALOGUE
        self._refuse(verdict)
        self._converse()

    def _refuse(self, verdict: Verdict, delay: float = 0.0) -> None:
        counts = self._gate.counts
        if verdict is Verdict.DENIED:
            counts.logins_denied += 1
        elif verdict is Verdict.TROUBLE:
            counts.logins_troubled += 1
        else:
            counts.logins_limited += 1
        step = self._dialogue.refused(verdict)
        self._perform(step._replace(delay=step.delay + delay))

    # -- inside: output

    def _flush(self) -> bool:
        """Send what can be sent; False when some is left or the client is gone."""
        output = self._output
        if output:
            try:
                sent = send(self._stream, self._secure, output)
            except OSError:
                self._end()
                return False
            if sent == len(output):
                self._output = bytearray()  # gives its memory back
            else:
                del output[:sent]
                self._watch_writable()
                return False
        return True

    def _watch_writable(self) -> None:
        if self._writer is None:
            self._writer = self._gate.loop.io(self._stream.fileno(), WRITE)
            self._writer.start(self._guard, self._writable)

    def _writable(self) -> None:
        if self._state == HANDSHAKE:
            self._drop_writer()
            self._handshake()
        elif self._flush():
            self._drop_writer()
            if self._state == DIALOGUE:
                self._converse()
            elif self._state == UPGRADING:
                self._upgrade()
            elif self._state == CLOSING:
                self._finish()

    # -- inside: the end

    def _dismiss(self, reason: Farewell) -> None:
        """End it for our own reasons."""
        if self._state in (DIALOGUE, DELAYED):
            self._output += self._dialogue.farewell(reason)
            self._guard(self._close)
        else:
            self._end()

    def _close(self) -> None:
        """Send the rest, close our half, let the client close its own."""
        self._stop_timer()
        self._state = CLOSING
        self._input.clear()
        self.deadline = min(self.deadline, time.monotonic()) + FAREWELL_TIME
        self._gate.deadlines.add(self)
        if self._flush():
            self._finish()

    def _finish(self) -> None:
        try:
            say_goodbye(self._stream, self._secure)
        except OSError:
            self._end()
            return
        self._secure = False  # what comes now is thrown away undeciphered
        if self._eof:
            self._end()
        else:
            self._read()

    def _end(self) -> None:
        if self._state == GONE:
            return
        self._state = GONE
        gate = self._gate
        gate.deadlines.remove(self)
        if self._handover is not None:
            self._handover.cancel()
            self._handover = None
        self._stop_timer()
        self._drop_writer()
        self._reader.stop()
        self._reader.close()
        self._stream.close()
        gate.peers.closed(self._peer)

    def _read(self) -> None:
        if not self._reader.active:
            self._reader.start(self._readable)

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            self._writer = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _guard(self, step: Any, *arguments: Any) -> None:
        """Whatever goes wrong costs this connection only."""
        try:
            step(*arguments)
        except Exception as error:
            self._gate.crashed(error)
            self._end()
