"""Which services answer just now.

A service is offered to clients only while it answers its own probe: what does not work is
better not known of, because a client that tries it waits.  Its process probes itself and
tells all others over the bus; who hears nothing for a while takes it for gone.

    topic 'service'    {name, up, by}: the outcome of a probe; where several processes are
                       one service it is there while one of them says so
    topic 'services'   {}: a process that has just begun asks for it
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import gevent
from gevent import Greenlet

from madmail import log
from madmail.bus.embedded import Bus

INTERVAL = 15.0  # seconds between two probes
LASTS = 3 * INTERVAL  # seconds for which an outcome holds
GLANCE = 0.02  # seconds

_log = log.get('service')


class Presence:
    """What a process knows of the services.

    A client that is told of none keeps to that for days (Delta Chat for seven, or until it is
    started anew), so for `patience` seconds after its own start a process does not take what
    it has not heard of yet for gone: see `settle`.
    """

    def __init__(self, bus: Bus, patience: float = 0.0) -> None:
        self._until: dict[str, dict[str, float]] = {}  # by name, by prober
        self._impatient = time.monotonic() + patience
        bus.subscribe('service', self._told)
        bus.publish('services', {})

    def has(self, name: str) -> bool:
        """Whether the service of this name, that of its settings' section, answers."""
        return max(self._until.get(name, {}).values(), default=0.0) > time.monotonic()

    def settle(self, name: str) -> None:
        """Wait until it was heard of, if this process has only begun; blocks the greenlet."""
        while name not in self._until and time.monotonic() < self._impatient:
            gevent.sleep(GLANCE)

    def _told(self, data: dict[str, object]) -> None:
        now = time.monotonic()
        known = self._until.setdefault(str(data['name']), {})
        known[str(data.get('by', ''))] = now + LASTS if data['up'] else 0.0
        for prober in [one for one, until in known.items() if until <= now]:
            del known[prober]


class Prober:
    """A service's side: asks itself again and again, and tells how it was.

    `probe` runs in a greenlet, may block, and says whether a client would have been served;
    that it raises OSError means no.
    """

    def __init__(self, name: str, bus: Bus, probe: Callable[[], bool]) -> None:
        self.up = False
        self._by = os.urandom(8).hex()
        self._probed = False
        self._name = name
        self._bus = bus
        self._probe = probe
        self._greenlet: Greenlet | None = None
        bus.subscribe('services', lambda data: self._tell() if self._probed else None)

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Say that the service goes."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None
        self.up = False
        self._tell()

    def _run(self) -> None:
        while True:
            try:
                up = self._probe()
            except OSError:
                up = False
            except Exception as error:
                _log.exception('probe failed', error, service=self._name)
                up = False
            if up is not self.up:
                (_log.info if up else _log.warning)(
                    'answers' if up else 'does not answer', service=self._name
                )
            self.up = up
            self._probed = True
            self._tell()
            gevent.sleep(INTERVAL)

    def _tell(self) -> None:
        self._bus.publish('service', {'name': self._name, 'up': self.up, 'by': self._by})
