"""GET /metrics, on the listeners of `listen.metrics` and nowhere else."""

from __future__ import annotations

import time
from typing import Any

import falcon
from gevent import get_hub

from madmail.admin import status
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.metrics import exposition
from madmail.tls import acme
from madmail.tls.certificate import life
from madmail.tls.files import DIRECTORY
from madmail.web.services import Services

PATH = '/metrics'
SLOW = 60.0  # seconds for which what takes a look at the disk is remembered


class Metrics:
    """Asks the master, and the databases and the disk now and then."""

    def __init__(self, services: Services, relay: Relay) -> None:
        self._services = services
        self._relay = relay
        self._facts: dict[str, Any] = {}
        self._looked = -SLOW

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        try:
            told = status.processes(self._relay)
            text = exposition.text(told, {**self._slow(), **self._now(told)})
        except Refused as refused:
            raise falcon.HTTPServiceUnavailable(title=refused.text) from None
        response.content_type = exposition.CONTENT_TYPE
        response.text = text

    def _now(self, told: dict[str, Any]) -> dict[str, Any]:
        disk = status.disk(self._relay.state_dir)
        return {
            'traffic': status.traffic(self._relay, told),
            'disk_available_bytes': disk['available_bytes'],
            'disk_size_bytes': disk['total_bytes'],
        }

    def _slow(self) -> dict[str, Any]:
        if time.monotonic() - self._looked > SLOW:
            self._looked = time.monotonic()
            relay = self._relay
            threads = get_hub().threadpool
            self._facts = {
                'peers': status.peers(relay),
                'database_bytes': threads.apply(status.databases, (relay.state_dir,)),
                'certificate': threads.apply(_certificate, (relay,)),
            }
        return self._facts


def _certificate(relay: Relay) -> dict[str, int]:
    """When it begins and ends, Unix time, and failed orders in a row."""
    start, end = life(relay.settings, relay.state_dir)
    failures = 0
    if relay.settings['tls.mode'] == 'acme':
        failures = acme.load(relay.state_dir / DIRECTORY).failures
    return {'start': start, 'expiry': end, 'failures': failures}
