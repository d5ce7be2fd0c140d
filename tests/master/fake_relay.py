"""A relay of tiny roles under the real arbiter, run as a process by the tests.

Usage: fake_relay.py STATE_DIR CONFIG.  It prints `ready PID PORT…`.  A file
`break-KIND` in the state directory keeps children of that kind from starting,
`stuck-KIND` makes their check hang.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any

import gevent

from madmail import log
from madmail.master.arbiter import Arbiter
from madmail.master.child import ChildContext
from madmail.master.exits import Stop
from madmail.master.plan import Kind, Plan, Renewal
from madmail.settings import Settings, load
from madmail.shard.handoff import Bequest, Inheritance
from madmail.store.control import LiveSettings


class Fake:
    def __init__(self, context: ChildContext) -> None:
        self.context = context
        self.events: list[Any] = []
        self.connections: list[Any] = []

    def flag(self, name: str) -> bool:
        return (self.context.state_dir / f'{name}-{self.context.kind}').exists()

    def start(self) -> None:
        if self.flag('break'):
            raise ValueError('the fake is broken')
        self.context.bus.subscribe('news', self.events.append)

    def check(self) -> bool:
        while self.flag('stuck'):
            gevent.sleep(0.05)
        if self.flag('frozen'):
            time.sleep(1000)
        return True

    def retire(self) -> None:
        if self.flag('slow'):
            gevent.sleep(1000)

    def statistics(self) -> dict[str, Any]:
        context = self.context
        return {
            'events': len(self.events),
            'burst': context.settings['limits.send_burst'],
            'listeners': sorted(context.listeners),
            'descriptors': len(os.listdir('/proc/self/fd')),
            'uid': os.getuid(),
        }


class Gate(Fake):
    """Says its generation to who connects, and lingers while connections last."""

    def start(self) -> None:
        super().start()
        if self.context.shared is not None:
            self.context.shared[self.context.index] = 1
        self.watchers = []
        for listener in self.context.listeners['imap']:
            watcher = gevent.get_hub().loop.io(listener.fileno(), 1)
            watcher.start(self.accept, listener)
            self.watchers.append(watcher)

    def accept(self, listener: Any) -> None:
        try:
            stream, _ = listener.accept()
        except BlockingIOError:
            return
        stream.setblocking(True)
        stream.sendall(b'generation %d\n' % self.context.generation)
        self.connections.append(stream)
        gevent.spawn(self.hold, stream)

    def hold(self, stream: Any) -> None:
        wait = gevent.get_hub().loop.io(stream.fileno(), 1)
        while True:
            gevent.get_hub().wait(wait)
            data = stream.recv(100)
            if not data:
                break
            if data == b'publish\n':
                self.context.bus.publish('news', {'n': 1})
            stream.sendall(data)
        self.connections.remove(stream)
        stream.close()

    def retire(self) -> None:
        for watcher in self.watchers:
            watcher.stop()
        for listener in self.context.listeners['imap']:
            listener.close()
        while self.connections and not self.context.stopping:
            gevent.sleep(0.02)
        super().retire()


class Shard(Fake):
    def start(self) -> None:
        super().start()
        if self.context.takeover:
            inheritance = Inheritance(self.context.state_dir, self.context.index)
            self.context.awaiting()
            for state, stream in inheritance.receive():
                (self.context.state_dir / 'inherited').write_text(json.dumps(state))
                stream.close()

    def retire(self) -> None:
        if self.context.succeeded:
            bequest = Bequest(self.context.state_dir, self.context.index)
            left, right = __import__('socket').socketpair()
            bequest.send({'from': os.getpid()}, left)
            right.close()
            bequest.close()
        super().retire()


class Service(Fake):
    """Answers on TCP and UDP with its index; limits.max_recipients processes, at most three."""

    def start(self) -> None:
        super().start()
        self.context.bus.subscribe('settings', lambda data: self.live.reload())
        self.live = LiveSettings(self.context.state_dir, self.context.settings)
        self.watchers = []
        for name, answer in (('metrics', self.accept), ('metrics/udp', self.echo)):
            for listener in self.context.listeners[name]:
                watcher = gevent.get_hub().loop.io(listener.fileno(), 1)
                watcher.start(answer, listener)
                self.watchers.append(watcher)

    def accept(self, listener: Any) -> None:
        try:
            listener.accept()[0].sendall(b'%d' % self.context.index)
        except BlockingIOError:
            pass

    def echo(self, listener: Any) -> None:
        try:
            _, address = listener.recvfrom(100)
        except BlockingIOError:
            return
        listener.sendto(b'%d' % self.context.index, address)


KINDS = (
    Kind('shard', f'{__name__}:Shard', Renewal.TAKEOVER, own_listener=True),
    Kind('gate', f'{__name__}:Gate', Renewal.OVERLAP, ('imap', 'smtp')),
    Kind('courier', f'{__name__}:Fake', Renewal.AFTER),
    Kind(
        'service',
        f'{__name__}:Service',
        Renewal.STAY,
        ('metrics', 'metrics/udp'),
        switched=True,
    ),
)


def count(kind: Kind, settings: Settings, shards: int) -> int:
    if kind.name == 'shard':
        return shards
    if kind.name == 'service':
        return min(int(settings['limits.max_recipients']), 3) if settings['listen.metrics'] else 0
    return settings['processes.gates'] or 2 if kind.name == 'gate' else 1


def ready(arbiter: Arbiter) -> None:
    ports = ' '.join(str(address.port) for _, address in arbiter.listeners.addresses())
    print(f'ready {os.getpid()} {ports}', flush=True)


def main() -> int:
    config = Path(sys.argv[1])
    shared = mmap.mmap(-1, 64)
    forget = lambda memory, slot: memory.__setitem__(slot, 0)  # noqa: E731
    plan = Plan(KINDS, count, slots=int(os.environ.get('SLOTS', '8')), shared=shared, forget=forget)
    try:
        return Arbiter(load(config), plan, lambda: load(config), ready).run()
    except Stop as stop:
        print(f'Error: {stop}', file=sys.stderr)
        return stop.code
    finally:
        log.configure('off')


if __name__ == '__main__':
    sys.exit(main())
