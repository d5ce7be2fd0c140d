"""A TURN process under the master: settings in, figures out, the loop in its thread."""

from __future__ import annotations

import gc
import hmac
import socket
import sys
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, TypeVar

import gevent
from gevent.event import AsyncResult

from madmail import log
from madmail.account.address import ip_literal
from madmail.account.secret import load as load_secret
from madmail.delivery.dns import Resolver
from madmail.realtime.presence import Prober
from madmail.realtime.turn.addresses import is_own, is_public, routed_address
from madmail.realtime.turn.credentials import Nonces
from madmail.realtime.turn.limits import Limits
from madmail.realtime.turn.loop import Loop
from madmail.realtime.turn.message import IPV4, IPV6
from madmail.realtime.turn.offer import secrets_of
from madmail.realtime.turn.probe import probe
from madmail.realtime.turn.server import Configuration, Server
from madmail.store.control import LiveSettings
from madmail.tls.context import ServerTLS, Unusable

if TYPE_CHECKING:
    from madmail.master.child import ChildContext
    from madmail.settings import Settings

SWITCH_TIME = 0.0005  # seconds one thread of the process may keep the other from its turn
LOOP_TIME = 5.0  # seconds in which a healthy loop does what it is asked
WEIGH_TIME = 30.0  # seconds between two reports of what users carried
ADDRESS_TIME = 300.0  # seconds between two looks at what the domain's name means
CERTIFICATE_TIME = 30.0  # seconds between looks at the certificate's files

NOTHING = {
    'accounts': {},
    'networks': {},
    'ports': {},
    'total': 0,
    'whole': True,
}  # of what is held

Result = TypeVar('Result')
_log = log.get('turn')


class TurnRole:
    """See `madmail.master.child.Role`."""

    def __init__(self, context: ChildContext) -> None:
        self._context = context
        self._settings = context.settings
        self._relay_secret = load_secret(context.state_dir)
        self._live = LiveSettings(context.state_dir, context.settings)
        self._resolver = Resolver.configured(context.settings)
        self._tls: ServerTLS | None = None
        self._named: dict[int, str] = {}  # addresses of the domain, by family
        self._secrets: tuple[bytes, ...] = ()
        self._greenlets: list[gevent.Greenlet] = []
        self._prober: Prober | None = None
        self._last: dict[str, Any] | None = None  # what was counted, once all has ended

    def start(self) -> None:
        context = self._context
        self._loop = Loop()
        self._secrets = secrets_of(self._settings, self._relay_secret)
        nonces = Nonces(hmac.digest(self._relay_secret, b'turn nonces', 'sha256'))
        self.server = Server(self._loop, self._configuration(), nonces)
        if context.listeners.get('turns'):
            self._tls = context.shared_tls or ServerTLS(self._settings, context.state_dir)
            if self._tls.changed():  # since the master made it
                _reload(self._tls)
        for name, listeners in context.listeners.items():
            tls = self._tls.context('stun.turn') if self._tls and name == 'turns' else None
            for listener in listeners:
                self.server.listen(listener, tls)
        context.bus.subscribe('turn.ended', self._end)
        context.bus.subscribe('turn.held', self._learn)
        hub = gevent.get_hub().loop
        self.server.tell = lambda held: hub.run_callback_threadsafe(self._tell_held, held)
        context.bus.publish('turn.begun', {})
        self._tell_held(NOTHING, asks=True)
        # A look through everything for garbage, or the other thread's turn, are felt in a call.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_TIME)
        self._thread = threading.Thread(target=self._loop.run, name='turn', daemon=True)
        self._thread.start()
        context.bus.subscribe('settings', lambda data: self._refresh())
        self._greenlets = [
            gevent.spawn(self._readdress),
            gevent.spawn(self._every, WEIGH_TIME, self._weigh),
            gevent.spawn(self._every, ADDRESS_TIME, self._readdress),
            gevent.spawn(self._every, CERTIFICATE_TIME, self._look_at_certificate),
        ]
        at = self._probed()
        if at is not None:
            self._prober = Prober('turn', context.bus, lambda: probe(at, self._credentials()))
            self._prober.start()

    def check(self) -> bool:
        """Whether the loop in the thread comes round."""
        if self._live.refresh():
            self._refresh()
        return self._ask(lambda: True) is True

    def retire(self) -> None:
        if self._prober is not None:
            self._prober.stop()
        gevent.killall(self._greenlets)
        self._weigh()
        self._ask(self.server.close)
        self._tell_held(NOTHING)
        self._last = self.statistics()
        self._loop.stop()
        self._thread.join(LOOP_TIME)

    def statistics(self) -> dict[str, Any]:
        if self._last is not None:
            return self._last
        figures = self._ask(self.server.statistics) or {}
        figures['answers'] = bool(self._prober and self._prober.up)
        return figures

    # -- inside

    def _ask(self, function: Callable[[], Result]) -> Result | None:
        """What `function` returns in the thread of the loop; None if that is stuck."""
        answer: AsyncResult = AsyncResult()
        hub = gevent.get_hub().loop

        def call() -> None:
            result = function()
            hub.run_callback_threadsafe(answer.set, result)

        self._loop.call(call)
        try:
            found: Result = answer.get(timeout=LOOP_TIME)
        except gevent.Timeout:
            return None
        return found

    def _refresh(self) -> None:
        """Settings may have changed."""
        self._live.reload()
        self._secrets = secrets_of(self._settings, self._relay_secret)
        self._apply()

    def _apply(self) -> None:
        configuration = self._configuration()
        self._loop.call(lambda: self.server.configure(configuration))

    def _configuration(self) -> Configuration:
        settings = self._settings
        public = relayed_addresses(settings, self._named)
        processes, shared = settings['turn.processes'], settings['turn.share_ports']
        first, last = settings['turn.relay_port_min'], settings['turn.relay_port_max']
        return Configuration(
            realm=settings['turn.realm'] or str(settings['domain']),
            secrets=self._secrets,
            life=settings['turn.ttl'],
            public=public,
            bound={
                family: host if is_own(host) else ('::' if family == IPV6 else '0.0.0.0')
                for family, host in public.items()
            },
            ports=range(first, last + 1),
            own_ports=range(first + self._context.index, last + 1, processes)
            if shared and processes > 1
            else None,
            shared=shared,
            limits=Limits(
                per_account=settings['turn.relays_per_account'],
                per_address=settings['turn.relays_per_ip'],
                per_minute=settings['turn.relays_per_minute_per_ip'],
                total=settings['turn.relays'],
                rate=settings['turn.rate_per_relay'],
                account_rate=settings['turn.rate_per_account'],
                total_rate=settings['turn.rate'] // processes,
            ),
            allowed=settings['turn.allowed_peers'],
            alone=processes == 1,
        )

    def _end(self, data: dict[str, Any]) -> None:
        """Accounts were deleted or blocked; these were their user names."""
        names: list[str] = data['names']
        self._loop.call(lambda: self.server.end(names))

    def _learn(self, data: dict[str, Any]) -> None:
        """What another process holds."""
        if data['by'] == self._context.index:
            return
        self._loop.call(lambda: self.server.learn(data))
        if data['asks']:
            self._loop.call(lambda: self.server.tell(self.server.held()))

    def _tell_held(self, held: dict[str, Any], *, asks: bool = False) -> None:
        self._context.bus.publish('turn.held', {'by': self._context.index, 'asks': asks, **held})

    def _look_up(self) -> None:
        """What the domain's name means, where the relayed address is not given."""
        domain = str(self._settings['domain'])
        routed = routed_address(socket.AF_INET)
        if (
            self._settings['turn.relay_ip']
            or ip_literal(domain)
            or domain == 'localhost'
            or (routed and is_public(routed))
        ):
            return
        answer = self._resolver.addresses(domain)
        named: dict[int, str] = {}
        for host in answer.values:
            named.setdefault(IPV6 if ':' in host else IPV4, host)
        if named:
            self._named = named

    def _readdress(self) -> None:
        self._look_up()
        self._apply()

    def _weigh(self) -> None:
        """Tell the shards what their users carried; the names mean nothing to others."""
        if not self.server.configuration.alone:
            self._loop.call(lambda: self.server.tell(self.server.held()))  # if something was lost
        carried = self._ask(self.server.weigh)
        if carried and self._settings['accounts.bandwidth']:
            sums: dict[str, list[int]] = {}
            for (name, down), octets in carried.items():
                sums.setdefault(name, [0, 0])[down] += octets
            self._context.bus.publish('turn', {'octets': sums})

    def _every(self, period: float, function: Callable[[], None]) -> None:
        while True:
            gevent.sleep(period)
            try:
                function()
            except Exception as error:
                _log.exception('upkeep failed', error)

    def _look_at_certificate(self) -> None:
        tls = self._tls
        if tls is not None and tls.changed():
            self._ask(lambda: _reload(tls))

    def _probed(self) -> tuple[socket.AddressFamily, tuple[Any, ...]] | None:
        """Where the probe goes: our own door for datagrams."""
        for name, listeners in self._context.listeners.items():
            if '/udp' in name and listeners:
                family = listeners[0].family
                at = listeners[0].getsockname()
                host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(at[0], at[0])
                return family, (host, *at[1:])
        return None

    def _credentials(self) -> tuple[str, bytes]:
        return self._settings['turn.realm'] or str(self._settings['domain']), self._secrets[0]


def _reload(tls: ServerTLS) -> None:
    """In the loop's thread, where no handshake begins meanwhile."""
    try:
        tls.reload()
    except Unusable:
        _log.warning('certificate not loaded')


def relayed_addresses(settings: Settings, named: dict[int, str]) -> dict[int, str]:
    """The relayed address by family: the one given, that of the domain, or that of the host.

    A host whose own addresses are private is reached by the addresses of its name.
    """
    found: dict[int, str] = {}
    for host in settings['turn.relay_ip'] or ():
        found.setdefault(_family(host), str(host))
    if found:
        return found
    domain = str(settings['domain'])
    literal = ip_literal(domain)
    if literal is not None:
        return {_family(literal): str(literal)}
    if domain == 'localhost':
        return {IPV4: '127.0.0.1', **({IPV6: '::1'} if is_own('::1') else {})}
    for family, kind in ((IPV4, socket.AF_INET), (IPV6, socket.AF_INET6)):
        routed = routed_address(kind)
        if family in named and (not routed or not is_public(routed)):
            found[family] = named[family]
        elif routed and (family == IPV4 or is_public(routed)):
            found[family] = routed
    return found or {IPV4: '127.0.0.1'}


def _family(host: IPv4Address | IPv6Address) -> int:
    return IPV6 if host.version == 6 else IPV4
