"""The admin API of one worker over a relay whose shards and master are in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon.testing

from madmail.account.address import canonical
from madmail.admin import access_token
from madmail.admin.refused import Refused, by_shard
from madmail.settings import Settings, overlay
from madmail.store.control import Control
from madmail.web.application import build
from tests.delivery.double import MemoryStore
from tests.web.double import TestingServices

DOMAIN = 'relay.example'
QUOTA = 1000
FAR = '192.0.2.7'


class DoubleRelay:
    """Fulfils madmail.admin.relay.Relay."""

    running = True
    shards = 1

    def __init__(self, state_dir: Path, settings: Settings) -> None:
        self.state_dir = state_dir
        self.settings = settings
        self.domain = DOMAIN
        self.control = Control(state_dir)
        self.people: dict[str, dict[str, Any]] = {}
        self.waiting: dict[str, int] = {}
        self.told: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, Any] = {}

    def call(self, address: str, method: str, **params: Any) -> Any:
        return self.call_shard(0, method, address=address, **params)

    def call_shard(self, shard: int, method: str, **params: Any) -> Any:
        function = getattr(self, f'_{method}', None)
        if function is None:
            raise by_shard('unknown-method')
        return function(**params)

    def accounts(self) -> Iterator[dict[str, Any]]:
        return iter(self._account_list())

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        self.told.append(topic)
        overlay(self.settings, self.control.settings())  # as a worker does it

    def ask_master(self, request: dict[str, Any], *, timeout: float = 30.0) -> dict[str, Any]:
        self.asked.append(request)
        answer = self.answers.get(request['command'])
        if isinstance(answer, Refused):
            raise answer
        if answer is not None:
            return dict(answer)
        return {
            'boot_time': int(time.time()) - 3 * 3600,
            'imap_connections': 3,
            'imap_unique_ips': 2,
            'registered_users': len(self.people),
            'children': [{'kind': 'shard', 'statistics': {'traffic': {'sent': 5, 'received': 7}}}],
        }

    def address(self, text: str) -> str:
        found = canonical(text if '@' in text else f'{text}@{DOMAIN}', DOMAIN)
        if found is None:
            raise Refused('invalid', 'not an address of this relay')
        return found

    # -- what a shard answers

    def _account(self, address: str) -> dict[str, Any]:
        if address not in self.people:
            raise by_shard('missing')
        return self.people[address]

    def _account_list(self, after: str = '', limit: int = 1000) -> list[dict[str, Any]]:
        return [one for name, one in sorted(self.people.items()) if name > after][:limit]

    def _quota_list(self, after: str = '', limit: int = 1000) -> list[dict[str, Any]]:
        return self._account_list(after, limit)

    def _quota_info(self, address: str) -> dict[str, Any]:
        return self._account(address)

    def _quota_set(self, address: str, quota: int) -> dict[str, Any]:
        account = self._account(address)
        account |= {'quota': QUOTA if quota < 0 else quota, 'own': quota >= 0}
        return account

    def _message_size_set(self, address: str, limit: int) -> dict[str, Any]:
        self._account(address)['message_size'] = limit
        return self._account(address)

    def _account_create(self, address: str, password: bytes) -> dict[str, Any]:
        if address in self.people:
            raise by_shard('exists')
        self.people[address] = {
            'address': address,
            'created': 1_700_000_000,
            'first_login': 0,
            'last_login': 0,
            'used': 0,
            'messages': 0,
            'quota': QUOTA,
            'own': False,
            'message_size': 0,
        }
        return {'address': address}

    def _account_delete(self, address: str) -> dict[str, Any]:
        self._account(address)
        del self.people[address]
        return {'address': address}

    def _account_dismiss(self, address: str) -> dict[str, Any]:
        return {'address': address}

    def _outbox_count(self) -> dict[str, int]:
        return dict(self.waiting)

    def _storage(self, after: int = 0) -> dict[str, Any]:
        return {'bytes': 0, 'messages': 0, 'last': 0, 'accounts': len(self.people)}


class Desk:
    """An operator with the token, and the app."""

    def __init__(self, directory: Path, *, relay: Any = None, **options: Any) -> None:
        """`relay` makes one of the settings, else it is a double."""
        directory.mkdir(parents=True, exist_ok=True)
        self.clock = [1000.0]
        self.settings = Settings.defaults({'domain': DOMAIN, 'state_dir': directory, **options})
        self.token = access_token.load(directory)
        self.services = TestingServices(
            directory, self.settings, MemoryStore(), monotonic=lambda: self.clock[0]
        )
        self.relay = relay(self.settings) if relay else DoubleRelay(directory, self.settings)
        self.client = falcon.testing.TestClient(build(self.services, self.relay))

    def post(
        self,
        body: bytes | str,
        *,
        path: str = '/api/admin',
        address: str = FAR,
        headers: dict[str, str] | None = None,
        protocol: str = 'https',
    ) -> falcon.testing.Result:
        """Anything, as it is."""
        return self.client.simulate_post(
            path, body=body, headers=headers or {}, remote_addr=address, protocol=protocol
        )

    def envelope(
        self,
        method: str,
        resource: str,
        body: Any = None,
        *,
        token: str | None = None,
        **kinds: Any,
    ) -> dict[str, Any]:
        """One call with the right token, unless another is given; the envelope of the answer."""
        given = {
            'method': method,
            'resource': resource,
            'headers': {'Authorization': f'Bearer {self.token if token is None else token}'},
            'body': {} if body is None else body,
        }
        result = self.post(json.dumps(given), **kinds)
        assert result.status_code == 200
        assert result.headers['Content-Type'] == 'application/json'
        answer: dict[str, Any] = result.json
        assert answer.keys() >= {'status', 'error', 'version'}
        return answer

    def ask(self, method: str, resource: str, body: Any = None, status: int = 200) -> Any:
        """The body of an answer of that status."""
        answer = self.envelope(method, resource, body)
        assert answer['status'] == status, answer
        assert answer['resource'] == resource
        return answer.get('body') if answer['error'] is None else answer['error']
