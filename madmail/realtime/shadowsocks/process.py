"""The process of the proxy: accepting, live settings, the probe."""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent import get_hub
from gevent import socket as green
from gevent.event import Event

from madmail import log
from madmail.gate.gate import READ
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

ACCEPT_BATCH = 16  # connections a callback
ACCEPT_PAUSE = 0.2  # seconds, when out of descriptors or room
LOOP_TIME = 5.0  # seconds in which a healthy loop comes round
PROBE_TIME = 10.0  # seconds for an answer through the proxy

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NAME = 'shadowsocks'
_SECRET = 'shadowsocks.password'

_log = log.get(_NAME)


class ProxyRole:
    """See `madmail.master`'s Role."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._listeners = context.listeners.get(_NAME, [])
        self._watchers: list[Any] = []
        self._pause: Any = None
        self._retiring = False
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
        for listener in self._listeners:
            listener.setblocking(False)
            watcher = get_hub().loop.io(listener.fileno(), READ)
            watcher.start(self._accept, listener)
            self._watchers.append(watcher)
        self._prober.start()

    def check(self) -> bool:
        """Whether the loop turns and connections are accepted, or deliberately not."""
        assert self._live is not None
        if self._live.refresh():
            self._follow()
        turned = Event()
        timer = get_hub().loop.timer(0.0)
        timer.start(turned.set)
        try:
            if not turned.wait(LOOP_TIME):
                return False
        finally:
            timer.stop()
            timer.close()
        if self._retiring or self._pause is not None:
            return True
        return all(watcher.active for watcher in self._watchers)

    def retire(self) -> None:
        """End all connections: their clients come back where the proxy listens then."""
        self._retiring = True
        self._prober.stop()
        if self._pause is not None:
            self._stop_pause()
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()
        for listener in self._listeners:
            listener.close()
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

    def _accept(self, listener: socket.socket) -> None:
        proxy = self.proxy
        for _ in range(ACCEPT_BATCH):
            if proxy.full and not proxy.silent:
                self._pause_accepting()
                return
            try:
                stream, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause_accepting()
                    return
                continue  # that one is gone: ECONNABORTED and its kin
            try:
                self._admit(stream, address[0])
            except Exception as error:
                stream.close()
                proxy.crashed(error)

    def _admit(self, stream: socket.socket, host: str) -> None:
        proxy = self.proxy
        stream.setblocking(False)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            stream.close()  # gone already
            return
        number = proxy.number(host)
        proxy.make_room(number)
        Tunnel(proxy, stream, host, number).start(proxy.crowded(number))

    def _pause_accepting(self) -> None:
        """The backlog waits; a listener left active would wake the loop without end."""
        if self._pause is not None:
            return
        self.proxy.counts.accept_pauses += 1
        for watcher in self._watchers:
            watcher.stop()
        self._pause = get_hub().loop.timer(ACCEPT_PAUSE)
        self._pause.start(self._resume_accepting)

    def _resume_accepting(self) -> None:
        self._stop_pause()
        for watcher, listener in zip(self._watchers, self._listeners, strict=True):
            watcher.start(self._accept, listener)

    def _stop_pause(self) -> None:
        self._pause.stop()
        self._pause.close()
        self._pause = None

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
