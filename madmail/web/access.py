"""The relay as the operations of an administrator see it from a web worker.

See `madmail.admin.relay.Relay`.  Nothing here holds up the worker's loop: calls
to shards and to the master wait on sockets, which is a greenlet's business
here, and the control database, whose writes wait for the disk, is used by one
native thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from gevent.threadpool import ThreadPool

from madmail.account.address import canonical
from madmail.account.placement import shard_of
from madmail.admin.refused import Refused, by_shard
from madmail.master import control
from madmail.settings import Settings
from madmail.shard.calls import CallRefused, ShardUnavailable
from madmail.store.control import Control
from madmail.web.services import Services

PAGE = 500  # accounts listed by one call


class _OffLoop:
    """The control database, each method run in the one thread of a pool."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._threads = ThreadPool(1)
        self._control: Control | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def off_loop(*arguments: Any, **named: Any) -> Any:
            result, error = self._threads.apply(self._run, (name, arguments, named))
            if error is not None:
                raise error
            return result

        return off_loop

    def _run(
        self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Any, Exception | None]:
        """The result, or the error: the pool would write one that is raised to stderr."""
        try:
            if self._control is None:
                self._control = Control(self._state_dir, any_thread=True)
            return getattr(self._control, name)(*arguments, **named), None
        except Exception as error:
            return None, error


class WebAccess:
    """One a worker; safe for all its greenlets."""

    running = True

    def __init__(self, services: Services) -> None:
        self._services = services
        self.state_dir = services.state_dir
        self.domain = services.domain
        self.shards = services.shards
        self.control = cast(Control, _OffLoop(services.state_dir))

    @property
    def settings(self) -> Settings:
        return self._services.settings

    def call(self, address: str, method: str, **params: Any) -> Any:
        shard = shard_of(address, self.shards)
        return self.call_shard(shard, method, address=address, **params)

    def call_shard(self, shard: int, method: str, **params: Any) -> Any:
        try:
            return self._services.clients.clients[shard].call(method, **params)
        except ShardUnavailable:
            raise Refused('unavailable', f'shard {shard} does not answer') from None
        except CallRefused as refused:
            raise by_shard(refused.word) from None

    def accounts(self) -> Iterator[dict[str, Any]]:
        for shard in range(self.shards):
            after = ''
            while page := self.call_shard(shard, 'account_list', after=after, limit=PAGE):
                yield from page
                after = page[-1]['address']

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        self._services.refresh()
        try:
            self.ask_master({'command': 'publish', 'topic': topic, 'data': data})
        except Refused:
            pass  # who starts now reads what we have written

    def ask_master(self, request: dict[str, Any], *, timeout: float = 30.0) -> dict[str, Any]:
        try:
            return control.ask(self.state_dir, request, timeout=timeout) or {}
        except control.NotRunning as error:
            raise Refused('unavailable', str(error)) from None
        except control.Refused as error:
            raise Refused('busy' if error.busy else 'failed', str(error)) from None
        except OSError:
            raise Refused('unavailable', 'the relay does not answer') from None

    def address(self, text: str) -> str:
        address = canonical(text if '@' in text else f'{text}@{self.domain}', self.domain)
        if address is None:
            raise Refused('invalid', f'this is not an address of this relay (…@{self.domain})')
        return address
