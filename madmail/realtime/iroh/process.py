"""The iroh relay as a child of the master: doors, limits at the door, probes.

run/iroh.sock   connections that our web workers took, see web.iroh; and our own probes
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent import get_hub

from madmail import log
from madmail.account import flood
from madmail.gate.doors import Doors
from madmail.realtime.iroh import probe, request
from madmail.realtime.iroh.connection import Connection, prepare
from madmail.realtime.iroh.relay import IrohRelay
from madmail.realtime.iroh.speech import Forwarded, Opening, Preamble
from madmail.realtime.iroh.url import NAME, SECURE
from madmail.realtime.presence import Prober
from madmail.shard.address import bind
from madmail.store.control import LiveSettings
from madmail.web import peers

if TYPE_CHECKING:
    from madmail.master.child import ChildContext

TRUST_TIME = 60.0  # seconds between two looks at whether clients trust our certificate

_log = log.get('iroh')


class IrohRole:
    """See `madmail.master`'s Role."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._doors: Doors[bool] | None = None  # by whether our own processes connect there
        self._relay: IrohRelay | None = None
        self._live: LiveSettings | None = None
        self._key = flood.hash_key(context.shared) if context.shared else os.urandom(flood.KEY_SIZE)
        self._trusted = False
        self._trust_looked = -TRUST_TIME
        self._probers = [
            Prober(NAME, context.bus, self._answers),
            Prober(SECURE, context.bus, self._is_trusted),
        ]

    @property
    def relay(self) -> IrohRelay:
        """What the connections share; there after `start`."""
        assert self._relay is not None, 'not started'
        return self._relay

    def start(self) -> None:
        """Begin to accept.  Raises OSError."""
        context = self._context
        loop = get_hub().loop
        self._relay = IrohRelay(loop, context.settings)
        live = self._live = LiveSettings(context.state_dir, context.settings)
        context.bus.subscribe('settings', lambda data: live.reload())
        self._doors = Doors(self._admit, crashed=self._relay.crashed, paused=self._relay.paused)
        for listener in context.listeners.get(NAME, []):
            self._doors.add(listener, False)
        self._doors.add(bind(context.state_dir, probe.SOCKET), True)
        self._doors.open()
        for prober in self._probers:
            prober.start()

    def check(self) -> bool:
        """Whether a node is served."""
        assert self._live is not None
        self._live.refresh()
        assert self._doors is not None
        if self._doors.resting or self.relay.full():
            gevent.sleep(0)  # deliberately not
            return True
        try:
            return self._answers()
        except OSError:
            return False

    def retire(self) -> None:
        """Accept no more, and let all go: they come back by themselves."""
        for prober in self._probers:
            prober.stop()
        if self._doors is not None:
            self._doors.close()
        self.relay.close()

    def statistics(self) -> dict[str, Any]:
        """Counts since the process began; `open`, `clients` and `held` are of now.

        `answers` and `trusted` are what the last probes found.
        """
        answers, trusted = (prober.up for prober in self._probers)
        return {**self.relay.statistics(), 'answers': answers, 'trusted': trusted}

    # -- probes

    def _answers(self) -> bool:
        if self.relay.full():
            return True  # who is told of none goes to another operator's until it starts anew
        return probe.answers(self._context.state_dir)

    def _is_trusted(self) -> bool:
        now = time.monotonic()
        if now - self._trust_looked >= TRUST_TIME:
            self._trusted = get_hub().threadpool.apply(probe.trusted, (self._context.settings,))
            # What is not so may be so soon: web workers start when we do.
            self._trust_looked = now if self._trusted else now - TRUST_TIME
        return self._trusted

    # -- accepting

    def _admit(self, inner: bool, stream: socket.socket, address: Any) -> None:
        relay = self.relay
        relay.counts.connections += 1
        if inner:
            if relay.full():
                self._refuse(stream, 503)
                return
            connection = Connection(relay, stream, 0)
            connection.speech = Preamble(connection)
            connection.start()
            return
        host = address[0]
        try:
            prepare(stream)
        except OSError:
            stream.close()  # gone already
            return
        behind = peers.trusted(host, relay.settings)  # then its header says who it is
        peer = 0 if behind else flood.origin(host, self._key)[0]
        if relay.full():
            self._refuse(stream, 503)
        elif not relay.admit(peer):
            self._refuse(stream, 429)
        else:
            connection = Connection(relay, stream, peer)
            connection.speech = Opening(connection, self._forwarded(host) if behind else None)
            connection.start()

    def _forwarded(self, proxy: str) -> Forwarded:
        def number(forwarded_for: str) -> int:
            environ = {'REMOTE_ADDR': proxy, 'HTTP_X_FORWARDED_FOR': forwarded_for}
            host = peers.client(environ, self.relay.settings)
            # A proxy that tells nothing is not one peer.
            if not host or peers.trusted(host, self.relay.settings):
                return 0
            return flood.origin(host, self._key)[0]

        return number

    def _refuse(self, stream: socket.socket, status: int) -> None:
        """Any answer but 101 makes a client wait longer and longer before it comes again."""
        self.relay.counts.refused_connections += 1
        try:
            stream.send(request.page(status, ''))
        except OSError:
            pass
        stream.close()
