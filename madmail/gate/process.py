"""The gate process: listeners, accepting, limits, TLS reload, drain.

All gates accept on the same inherited sockets.  One callback accepts a batch,
so a storm of connections shares the loop with the pipes.
"""

from __future__ import annotations

import socket
import time
from array import array
from mmap import mmap
from typing import TYPE_CHECKING, Any

import gevent
from gevent import get_hub

from madmail import log
from madmail.gate.connection import Connection, dialogue_of
from madmail.gate.dialogue import Farewell
from madmail.gate.doors import Doors
from madmail.gate.gate import Gate, Service
from madmail.gate.peers import SIZE, Peers
from madmail.store.control import LiveSettings
from madmail.tls.context import ServerTLS, Unusable

if TYPE_CHECKING:
    from madmail.master.child import ChildContext

CERTIFICATE_CHECK = 30.0  # seconds between looks at the certificate's files
RENEWAL_CHECK = 6 * 3600.0  # seconds between looks at the self-signed one's end
GRACE = 5.0  # seconds for logins under way when the process retires

# listen.* → protocol, implicit TLS, ALPN name
SERVICES = {
    'smtp': ('inbound', False, 'smtp'),
    'submission': ('submission', False, 'smtp'),
    'submissions': ('submission', True, 'smtp'),
    'imap': ('imap', False, 'imap'),
    'imaps': ('imap', True, 'imap'),
}

_log = log.get('gate')


class GateRole:
    """See `madmail.master`'s Role."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._watch: Any = None
        self._renewal_check = 0.0
        self._doors: Doors[Service] | None = None
        self._gate: Gate | None = None
        self._tls: ServerTLS | None = None
        self._live: LiveSettings | None = None

    @property
    def gate(self) -> Gate:
        """What the connections share; there after `start`."""
        assert self._gate is not None, 'not started'
        return self._gate

    def start(self) -> None:
        """Begin to accept; returns at once.

        Raises madmail.tls.context.Unusable, ValueError, OSError.
        """
        context = self._context
        loop = get_hub().loop
        # Made by the master before the fork, so that all gates share ticket keys.
        self._tls = getattr(context, 'shared_tls', None) or ServerTLS(
            context.settings, context.state_dir
        )
        if self._tls.changed():  # since the master made it
            self.reload()
        self._gate = Gate(
            loop,
            context.settings,
            context.state_dir,
            context.shards,
            Peers(context.shared or mmap(-1, SIZE), context.index),
            first_shard=context.index,
        )
        self._doors = Doors(self._admit, crashed=self._gate.crashed, paused=self._gate.paused)
        for name, (protocol, implicit, alpn) in SERVICES.items():
            for listener in context.listeners.get(name, ()):
                self._doors.add(
                    listener, Service(name, protocol, implicit, self._tls.context(alpn))
                )
        live = self._live = LiveSettings(context.state_dir, context.settings)
        context.bus.subscribe('settings', lambda data: live.reload())
        context.bus.subscribe('certificate', lambda data: self._look_at_certificate())
        self._doors.open()
        self._renewal_check = time.monotonic()
        self._watch = loop.timer(CERTIFICATE_CHECK, CERTIFICATE_CHECK)
        self._watch.start(self._look_at_certificate)

    def check(self) -> bool:
        """Whether the loop turns and connections are accepted, or deliberately not."""
        assert self._live is not None
        assert self._doors is not None
        self._live.refresh()
        return self._doors.check()

    def retire(self) -> None:
        """Accept no more; return when the last session has ended by itself."""
        if self._doors is not None:
            self._doors.close()
        if self._watch is not None:
            self._watch.stop()
        gate = self.gate
        # When the whole relay stops, a login under way has nowhere to go.
        limit = time.monotonic() + (0.0 if self._context.stopping else GRACE)
        while len(gate.deadlines) and time.monotonic() < limit:
            gevent.sleep(0.05)
        while gate.counts.pipes or len(gate.deadlines):
            for item in list(gate.deadlines):
                item.retire()
            gevent.sleep(0.1)

    def statistics(self) -> dict[str, Any]:
        """Counts since the process began; `pipes`, `imap` and `before_login` are what is open now.

        `peers` are the numbers of those on IMAP, keyed hashes that mean nothing when
        the relay has stopped; the master keeps of them how many there are.
        """
        gate = self.gate
        return {
            **gate.counts.as_dict(),
            'octets': {'imap': gate.imap_octets.as_dict(), 'smtp': gate.smtp_octets.as_dict()},
            'before_login': len(gate.deadlines),
            'imap': sum(gate.imap.values()),
            'peers': array('Q', [peer & 2**64 - 1 for peer in gate.imap]).tobytes(),
        }

    def reload(self) -> None:
        """Load the certificate anew, if it can be used; connections are not touched."""
        assert self._tls is not None
        try:
            self._tls.reload()
        except (Unusable, OSError) as error:
            _log.error('certificate not usable, the old one stays', cause=type(error).__name__)
        else:
            _log.info('certificate loaded')

    # -- accepting

    def _admit(self, service: Service, stream: socket.socket, address: Any) -> None:
        gate = self.gate
        host: str = address[0]
        try:
            # Before TLS: the session ticket and the greeting leave in two
            # segments, and Nagle would hold the second for the peer's delayed
            # acknowledgement, 40 ms.
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            stream.close()  # gone already
            return
        peers = gate.peers
        origin = peers.origin(host)
        peer = origin[0]
        total, each = gate.limit('limits.connections'), gate.limit('limits.connections_per_ip')
        if (total and peers.total() >= total) or (each and peers.connections(peer) >= each):
            gate.counts.refused_connections += 1
            if not service.implicit_tls:
                farewell = dialogue_of(service, gate).farewell(Farewell.CONNECTIONS)
                try:
                    stream.send(farewell)
                except OSError:
                    pass
            stream.close()
            return
        gate.counts.connections += 1
        peers.opened(peer)
        Connection(gate, service, stream, origin).start()

    # -- the certificate

    def _look_at_certificate(self) -> None:
        assert self._tls is not None
        if time.monotonic() - self._renewal_check > RENEWAL_CHECK:
            self._renewal_check = time.monotonic()
            if self._tls.due():
                gevent.spawn(self._renew)
                return
        if self._tls.changed():
            self.reload()

    def _renew(self) -> None:
        assert self._tls is not None
        try:
            # It syncs to disk, so not on the loop.
            get_hub().threadpool.apply(self._tls.renew)
        except (Unusable, OSError) as error:
            _log.error('certificate not renewed', cause=type(error).__name__)
        if self._tls.changed():
            self.reload()
