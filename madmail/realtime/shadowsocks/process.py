"""The process of the proxy: accepting, live settings, the probe."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent import get_hub
from gevent import socket as green

from madmail import log
from madmail.gate.doors import Doors
from madmail.realtime.presence import Prober
from madmail.realtime.shadowsocks.destination import Destination
from madmail.realtime.shadowsocks.handshake import Call
from madmail.realtime.shadowsocks.methods import METHODS
from madmail.realtime.shadowsocks.proxy import Proxy
from madmail.realtime.shadowsocks.salts import Salts
from madmail.realtime.shadowsocks.stream import Broken
from madmail.realtime.shadowsocks.tunnel import Tunnel
from madmail.store.control import Control, LiveSettings

if TYPE_CHECKING:
    from madmail.master.child import ChildContext

PROBE_TIME = 10.0  # seconds for an answer through the proxy

_NAME = 'shadowsocks'
_SECRET = 'shadowsocks.password'

_log = log.get(_NAME)


class ProxyRole:
    """See `madmail.master`'s Role."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._listeners = context.listeners.get(_NAME, [])
        self._doors: Doors[None] | None = None
        self._proxy: Proxy | None = None
        self._live: LiveSettings | None = None
        self._prober = Prober(_NAME, context.bus, self._probe)

    @property
    def proxy(self) -> Proxy:
        """What the tunnels share; there after `start`."""
        assert self._proxy is not None, 'not started'
        return self._proxy

    def start(self) -> None:
        """Begin to accept; returns at once.  Raises OSError, ValueError."""
        context = self._context
        live = self._live = LiveSettings(context.state_dir, context.settings)
        self._proxy = Proxy(
            get_hub().loop, context.settings, Salts(context.state_dir / 'shadowsocks')
        )
        self._make_password()
        self._proxy.configure()

        def changed(data: dict[str, Any]) -> None:
            live.reload()
            self._follow()

        context.bus.subscribe('settings', changed)
        proxy = self._proxy
        self._doors = Doors(
            self._admit,
            crashed=proxy.crashed,
            paused=proxy.paused,
            room=lambda: not proxy.full or bool(proxy.silent),
        )
        for listener in self._listeners:
            self._doors.add(listener, None)
        self._doors.open()
        self._prober.start()

    def check(self) -> bool:
        """Whether the loop turns and connections are accepted, or deliberately not."""
        assert self._live is not None
        if self._live.refresh():
            self._follow()
        assert self._doors is not None
        return self._doors.check()

    def retire(self) -> None:
        """End all connections: their clients come back where the proxy listens then."""
        self._prober.stop()
        if self._doors is not None:
            self._doors.close()
        self.proxy.close()
        self.proxy.salts.close()
        gevent.sleep(0)

    def statistics(self) -> dict[str, Any]:
        """Counts since the process began; `connections`, `unique_ips` and `silent` are of now."""
        proxy = self.proxy
        return {
            **proxy.counts.as_dict(),
            'octets': {_NAME: {'received': proxy.received, 'sent': proxy.sent}},
            'connections': len(proxy.opened),
            'unique_ips': sum(1 for peer in proxy.peers.values() if peer.opened),
            'silent': len(proxy.silent),
            'answers': int(self._prober.up),
        }

    # -- settings

    def _follow(self) -> None:
        """A live setting has changed."""
        try:
            self._make_password()
            self.proxy.configure()
        except (OSError, ValueError) as error:
            _log.error('settings not usable, the old ones stay', cause=type(error).__name__)

    def _make_password(self) -> None:
        """Where nobody has given one, as a setting that all see."""
        settings = self._context.settings
        if settings[_SECRET]:
            return
        password = METHODS[str(settings['shadowsocks.cipher'])].fresh_password()
        control = Control(self._context.state_dir)
        try:
            control.set_setting(_SECRET, password)
        finally:
            control.close()
        settings.store(_SECRET, password)
        self._context.bus.publish('settings', {})
        _log.info('password made')

    # -- accepting

    def _admit(self, kind: None, stream: socket.socket, address: Any) -> None:
        proxy = self.proxy
        host: str = address[0]
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            stream.close()  # gone already
            return
        number = proxy.number(host)
        proxy.make_room(number)
        Tunnel(proxy, stream, host, number).start(proxy.crowded(number))

    # -- the probe

    def _probe(self) -> bool:
        """Whether a service of ours speaks through the proxy."""
        settings, proxy = self._context.settings, self.proxy
        port = proxy.services.first
        if port is None or not self._listeners:
            return False
        host, at = self._listeners[0].getsockname()[:2]
        host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(host, host)
        call = Call(proxy.method, str(settings[_SECRET]))
        request = call.request(Destination('localhost', port), b'\r\n', time.time())
        with green.create_connection((host, at), PROBE_TIME) as stream:
            stream.sendall(request)
            heard = b''
            while not heard:
                data = stream.recv(65536)
                if not data:
                    return False
                try:
                    heard = call.feed(data, time.time())
                except Broken:
                    return False
        return True
