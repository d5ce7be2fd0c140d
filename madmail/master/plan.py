"""Which children a relay has, and what each of them is given."""

from __future__ import annotations

import importlib
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from gevent._hub_local import get_hub_if_exists

from madmail.master.child import ChildContext, Role
from madmail.master.exits import BOOT, CONFIGURATION, STATE, Stop
from madmail.master.listeners import share
from madmail.settings import Settings
from madmail.tls.context import ServerTLS, Unusable

AUTO_LIMIT = 8  # processes of a kind that `auto` makes at most


class Renewal(Enum):
    """How a reload replaces the children of a kind."""

    OVERLAP = 'new ones first, the old ones linger until their connections end'
    TAKEOVER = 'the successor waits for the sessions of the old one'
    AFTER = 'the old one ends before the new one begins'
    STAY = 'it goes on, and takes live settings over'


@dataclass(frozen=True)
class Kind:
    """One kind of child."""

    name: str
    role: str  # 'package.module:Class'
    renewal: Renewal
    listeners: tuple[str, ...] = ()  # names of listen.* it accepts on; NAME/udp for datagrams
    own_listener: bool = False  # a Unix socket run/NAME-N.sock of its own, as 'NAME'
    # Live settings decide how many run.  Such a service is named as the section of its
    # settings, and the relay does without it where it cannot run.
    switched: bool = False
    # More names of listen.* whose addresses it has to know.
    aware_of: tuple[str, ...] = ()

    def load(self) -> Callable[[ChildContext], Role]:
        """Import the role's class.  Raises Stop when the installation is broken."""
        module, _, name = self.role.partition(':')
        try:
            role: Callable[[ChildContext], Role] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise Stop(BOOT, f'{self.name}: cannot load {self.role}: {error}') from None
        return role


@dataclass
class Plan:
    """The kinds of children, in the order in which they start; stopping is the other way round.

    `count` tells how many of a kind run; of a `switched` kind it is asked whenever a live
    setting has changed. `shared` is memory for the OVERLAP
    kind, which has `slots` places; `forget(shared, slot)` cleans up behind a
    child of it that died.  `tls` makes what all of its children of one
    generation share: the certificate, read while we may, and the ticket keys.
    """

    kinds: tuple[Kind, ...]
    count: Callable[[Kind, Settings, int], int]  # kind, settings, shards
    slots: int = 32
    shared: mmap.mmap | None = None
    forget: Callable[[mmap.mmap, int], None] | None = None
    tls: Callable[[Settings, Path], object] | None = None

    def listening(self, settings: Settings, *, switched: bool = True) -> list[str]:
        """Names of the listeners of all kinds that run, or of those that always do."""
        kinds = [kind for kind in self.kinds if switched or not kind.switched]
        return [name for kind in kinds for name in self.names(kind, settings)]

    def names(self, kind: Kind, settings: Settings) -> list[str]:
        """Names of the listeners of a kind, with those of each process where it has its own."""
        if not kind.switched:
            return list(kind.listeners)
        count = self.count(kind, settings, 1)
        return list(
            dict.fromkeys(share(name, index) for index in range(count) for name in kind.listeners)
        )


# What gevent would import when its loop begins: once here instead of in every
# child, and before the children give up the right to read it.
LOOP_MODULES = (
    'encodings.idna',
    'gevent.libev.corecext',
    'gevent.pool',
    'gevent.resolver.thread',
    'gevent.signal',
    'gevent.threadpool',
    'gevent.util',
)


def load_loop_modules() -> None:
    """Import what a loop needs, without making one."""
    for module in LOOP_MODULES:
        importlib.import_module(module)


def preload(plan: Plan) -> dict[str, Callable[[ChildContext], Role]]:
    """Import all that the children run, without making a loop; the roles by kind.

    Raises Stop when the installation is broken.
    """
    roles = {kind.name: kind.load() for kind in plan.kinds}
    load_loop_modules()
    if get_hub_if_exists() is not None:
        raise Stop(BOOT, 'a loop was made before the fork')
    return roles


MAIL_LISTENERS = ('smtp', 'submission', 'submissions', 'imap', 'imaps')
WEB_LISTENERS = ('http', 'https', 'metrics')

SHARD = Kind('shard', 'madmail.shard.process:Shard', Renewal.TAKEOVER, own_listener=True)
GATE = Kind('gate', 'madmail.gate.process:GateRole', Renewal.OVERLAP, MAIL_LISTENERS)
WEB = Kind('web', 'madmail.web.process:WebRole', Renewal.OVERLAP, WEB_LISTENERS)
COURIER = Kind('courier', 'madmail.delivery.process:CourierRole', Renewal.AFTER)

SHADOWSOCKS = Kind(
    'shadowsocks',
    'madmail.realtime.shadowsocks.process:ProxyRole',
    Renewal.STAY,
    ('shadowsocks',),
    switched=True,
    aware_of=('imap', 'imaps', 'submission', 'submissions', 'http', 'https'),
)

# Connections also come by way of the web workers; it looks whether their certificate is trusted.
IROH = Kind(
    'iroh',
    'madmail.realtime.iroh.process:IrohRole',
    Renewal.STAY,
    ('iroh',),
    switched=True,
    aware_of=('https',),
)

TURN = Kind(
    'turn',
    'madmail.realtime.turn.process:TurnRole',
    Renewal.STAY,
    ('turn', 'turn/udp', 'turns'),
    switched=True,
)


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0))


def auto_gates() -> int:
    """What `auto` means for gates.

    One a core: they meet strangers and do TLS, so there are two where possible, and a
    crash of one leaves half the clients connected.
    """
    return max(1, min(cores(), AUTO_LIMIT))


def auto_shards() -> int:
    """What `auto` means for the shards of a new state directory.

    PERF: a message costs a shard 0.46 ms and its gates 0.08; if it goes to another shard,
    0.35 more in both.  So two cores do best with one shard (0.55 ms a message against
    0.80 to 0.90 with two, and no fewer messages a second), and more cores leave one to
    the gates.  See docs/performance.md.
    """
    return max(1, min(cores() - 1, AUTO_LIMIT))


ALPN = ('smtp', 'imap', 'stun.turn')  # of the listeners of children that share the contexts


def server_tls(settings: Settings, state_dir: Path) -> object:
    """The relay's certificate.  Raises Stop when it cannot be used."""
    try:
        tls = ServerTLS(settings, state_dir)
        for protocol in ALPN:
            tls.context(protocol)  # a context made after the fork has ticket keys of its own
        return tls
    except Unusable as error:
        raise Stop(CONFIGURATION, str(error)) from None
    except OSError as error:
        where = f' {error.filename}:' if error.filename else ''
        raise Stop(STATE, f'certificate:{where} {error.strerror}') from None


def relay() -> Plan:
    """The plan of a madmail relay."""
    from madmail.gate import peers  # only a relay that runs needs the gate

    def count(kind: Kind, settings: Settings, shards: int) -> int:
        if kind is SHARD:
            return shards
        if kind is GATE:
            return settings['processes.gates'] or auto_gates()
        if kind is WEB:
            return int(any(settings[f'listen.{name}'] for name in WEB_LISTENERS))
        if kind is SHADOWSOCKS:
            return int(settings['shadowsocks.enabled'] and bool(settings['listen.shadowsocks']))
        if kind is TURN:
            ways = any(settings[f'listen.{name}'] for name in ('turn', 'turns'))
            return settings['turn.processes'] if settings['turn.enabled'] and ways else 0
        if kind is IROH:
            ways = any(settings[f'listen.{name}'] for name in ('iroh', 'https', 'http'))
            return int(settings['iroh.enabled'] and ways)
        return 1

    shared = mmap.mmap(-1, peers.SIZE)
    peers.prepare(shared)
    return Plan(
        (SHARD, GATE, WEB, COURIER, TURN, IROH, SHADOWSOCKS),
        count,
        slots=peers.SLOTS,
        shared=shared,
        forget=peers.forget,
        tls=server_tls,
    )
