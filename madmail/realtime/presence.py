"""Which services answer just now.

A service is offered to clients only while it answers its own probe: what does not work is
better not known of, because a client that tries it waits.  Its process probes itself and
tells all others over the bus; who hears nothing for a while takes it for gone.

    topic 'service'    {name, up}: the outcome of a probe
    topic 'services'   {}: a process that has just begun asks for it
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent
from gevent import Greenlet

from madmail import log
from madmail.bus.embedded import Bus

INTERVAL = 15.0  # seconds between two probes
LASTS = 3 * INTERVAL  # seconds for which an outcome holds

_log = log.get('service')


class Presence:
    """What a process knows of the services."""

    def __init__(self, bus: Bus) -> None:
        self._until: dict[str, float] = {}
        bus.subscribe('service', self._told)
        bus.publish('services', {})

    def has(self, name: str) -> bool:
        """Whether the service of this name, that of its settings' section, answers."""
        return self._until.get(name, 0.0) > time.monotonic()

    def _told(self, data: dict[str, object]) -> None:
        self._until[str(data['name'])] = time.monotonic() + LASTS if data['up'] else 0.0


class Prober:
    """A service's side: asks itself again and again, and tells how it was.

    `probe` runs in a greenlet, may block, and says whether a client would have been served;
    that it raises OSError means no.
    """

    def __init__(self, name: str, bus: Bus, probe: Callable[[], bool]) -> None:
        self.up = False
        self._name = name
        self._bus = bus
        self._probe = probe
        self._greenlet: Greenlet | None = None
        bus.subscribe('services', lambda data: self._tell())

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
            self._tell()
            gevent.sleep(INTERVAL)

    def _tell(self) -> None:
        self._bus.publish('service', {'name': self._name, 'up': self.up})
