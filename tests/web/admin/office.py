"""The operator's side of a running relay."""

from __future__ import annotations

import json
from typing import Any

from tests.web.conftest import WebRelay


class Office:
    def __init__(self, relay: WebRelay) -> None:
        self.relay = relay
        self.path = '/api/admin'
        self.token = (relay.state_dir / 'admin_token').read_text().strip()

    def envelope(
        self,
        method: str,
        resource: str,
        body: Any = None,
        *,
        token: str | None = None,
        scheme: str = 'https',
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        client = self.relay.client(scheme)
        given = {
            'method': method,
            'resource': resource,
            'headers': {'Authorization': f'Bearer {self.token if token is None else token}'},
            'body': {} if body is None else body,
        }
        try:
            client.request('POST', self.path, json.dumps(given), headers or {})
            response = client.getresponse()
            text = response.read()
        finally:
            client.close()
        assert response.status == 200, response.status
        found: dict[str, Any] = json.loads(text)
        return found

    def ask(self, method: str, resource: str, body: Any = None, status: int = 200) -> Any:
        found = self.envelope(method, resource, body)
        assert found['status'] == status, found
        return found.get('body') if found['error'] is None else found['error']
