"""Services whose shards are a store in memory, and the requests to try them with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import falcon.testing

from madmail.delivery.router import Router
from madmail.shard.calls import ShardUnavailable
from madmail.smtp.reply import Reply
from madmail.store.control import Control
from madmail.store.interface import Body
from madmail.web.application import build
from madmail.web.services import Services
from tests.delivery.double import MemoryStore

OWN = 'relay.example'
BOB, EVE = f'bob@{OWN}', f'eve@{OWN}'
FAY = 'fay@[192.0.2.9]'


class TestingServices(Services):
    """Everything real but the way to the shards."""

    __test__ = False

    def __init__(self, directory: Path, settings: Any, store: MemoryStore, **more: Any) -> None:
        super().__init__(settings, directory, shards=1, **more)
        self.store = store
        self.away = False
        self.received: list[tuple[list[str], bytes]] = []
        self.router = Router(
            store,  # type: ignore[arg-type]
            lambda *_: [],
            own_shard=0,
            shard_of=lambda address: 0,
            settings=settings,
            domain=OWN,
        )

    def receive(
        self, body: Body, recipients: list[str], message_id: bytes, origin: str = ''
    ) -> Reply:
        if self.away:
            raise ShardUnavailable('away')
        self.received.append((recipients, message_id))
        return self.router.receive(recipients, body, message_id, origin)


class Room:
    """The app of one worker with its store."""

    def __init__(self, directory: Path, settings: Any, **more: Any) -> None:
        self.store = MemoryStore(BOB, EVE)
        self.services = TestingServices(directory, settings, self.store, **more)
        self.control = Control(directory)
        self.client = falcon.testing.TestClient(build(self.services))
        self.spools = directory / 'web'

    def post(
        self,
        body: bytes,
        *recipients: str,
        sender: str | None = FAY,
        path: str = '/mxdeliv',
        headers: dict[str, str] | None = None,
        address: str = '192.0.2.9',
    ) -> tuple[int, str]:
        """Status and text of the answer."""
        fields = dict(headers or {})
        if sender is not None:
            fields['X-Mail-From'] = sender
        if recipients:
            fields['X-Mail-To'] = ','.join(recipients)  # as WSGI joins lines
        result = self.client.simulate_post(path, body=body, headers=fields, remote_addr=address)
        return result.status_code, result.text

    def inbox(self, address: str = BOB) -> list[bytes]:
        return self.store.boxes[address]

    def counted(self) -> dict[str, int]:
        return {name: n for name, n in self.services.counters.totals().items() if n}
