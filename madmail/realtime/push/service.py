"""Requests to the notification service: the token, and nothing else.

`POST` to `push.url` with the token as body.  No sender, no account, no count leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gevent.ssl import SSLContext

from madmail.delivery import retry_after
from madmail.delivery.exchanger import BadUrl, Place, place
from madmail.delivery.pull_client import Failed, PullClient
from madmail.delivery.tls_policy import contexts
from madmail.realtime.push.schedule import LONGEST_PAUSE, Answer, Told, meaning
from madmail.settings import Settings

TEXT_LIMIT = 65536  # octets of an answer
FIELDS = {'Content-Type': 'text/plain'}


class Service:
    """As many connections as there are requests at a time; each is kept for the next."""

    def __init__(self, settings: Settings, reach: Callable[[str], Sequence[str]]) -> None:
        """`reach` gives the addresses of a host."""
        self._settings = settings
        self._reach = reach
        self._context: SSLContext | None = None
        self._url = ''
        self._place = Place('http', '', 0, '')
        self._idle: list[PullClient] = []

    @property
    def url(self) -> str:
        url: str = self._settings['push.url']
        return url

    def notify(self, token: str) -> Told:
        """One request.  Blocks the greenlet for `push.timeout` at most; does not raise."""
        try:
            client = self._client()
        except BadUrl:
            return Told(Answer.DOWN)
        where = self._place
        try:
            answer = client.ask(
                'POST',
                where.path or '/',
                FIELDS,
                token.encode('ascii'),
                limit=TEXT_LIMIT,
                timeout=self._settings['push.timeout'],
            )
        except Failed:
            return Told(Answer.DOWN)
        if where is self._place:
            self._idle.append(client)
        else:
            client.close()
        wait = retry_after.seconds(answer.status, answer.fields, time.time(), LONGEST_PAUSE)
        return Told(meaning(answer.status), wait)

    def close(self) -> None:
        """Connections that nobody uses just now."""
        while self._idle:
            self._idle.pop().close()

    def _client(self) -> PullClient:
        if self._url != self.url:
            self.close()
            self._place = place(self.url)
            self._url = self.url
        if self._idle:
            return self._idle.pop()
        if self._context is None:
            self._context, _ = contexts()
        return PullClient(self._place, self._context, self._reach, verify=True)
