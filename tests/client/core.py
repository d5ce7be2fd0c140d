"""Real Delta Chat cores on a relay: accounts by `dclogin:`, and waiting with an end."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.relay import Relay

PATIENCE = 40.0  # seconds for any one event


def server() -> str | None:
    """The core's executable: beside this Python, or on the path."""
    beside = Path(sys.executable).parent / 'deltachat-rpc-server'
    return str(beside) if beside.exists() else shutil.which('deltachat-rpc-server')


def require_core() -> str:
    """Skip the test without the core; on CI, where it must be, fail."""
    path = server()
    try:
        import deltachat_rpc_client  # noqa: F401
    except ImportError:
        path = None
    if path is None:
        reason = 'deltachat-rpc-client and deltachat-rpc-server are not installed'
        if os.environ.get('CI') == 'true':
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def wait_event(
    account: Any, kind: str, accept: Callable[[Any], bool] = lambda _: True, wait: float = PATIENCE
) -> Any:
    """The next event of this kind that `accept` takes; earlier ones are dropped."""
    events: queue.Queue[dict[str, Any]] = account._rpc.get_queue(account.id)
    end = time.monotonic() + wait
    recent = []
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            event = events.get(timeout=left)
            recent.append(str(event)[:200])
            if event['kind'] == kind and accept(event):
                return event
    raise AssertionError(f'no {kind} within {wait} s; last events:\n' + '\n'.join(recent[-20:]))


def incoming(account: Any, text: str | None = None) -> Any:
    """The next incoming message (with this text)."""
    while True:
        event = wait_event(account, 'IncomingMsg')
        message = account.get_message_by_id(event['msgId'])
        if text is None or message.get_snapshot().text == text:
            return message


def eventually(condition: Callable[[], Any], what: str, wait: float = PATIENCE) -> Any:
    end = time.monotonic() + wait
    while True:
        if found := condition():
            return found
        if time.monotonic() > end:
            raise AssertionError(f'{what}: not within {wait} s')
        time.sleep(0.1)


class Cores:
    """Makes accounts of one core process on one relay."""

    def __init__(self, relay: Relay, delta: Any) -> None:
        self.relay = relay
        self.delta = delta
        self.credentials: dict[int, tuple[str, str]] = {}

    def configured(self, name: str, address: str | None = None) -> Any:
        fresh, password = self.relay.credentials(name)
        person = (address or fresh, password)
        account = self.delta.add_account()
        account.set_config('displayname', name.capitalize())
        account.add_transport_from_qr(self.relay.dclogin(*person))
        assert account.is_configured()
        self.credentials[account.id] = person
        return account

    def online(self, *names: str) -> list[Any]:
        accounts = [self.configured(name) for name in names]
        for account in accounts:
            account.bring_online()
        return accounts

    def address(self, account: Any) -> str:
        return self.credentials[account.id][0]


@contextlib.contextmanager
def cores_on(relay: Relay, directory: Path, program: str = '') -> Iterator[Cores]:
    """A core process; `program` runs it where it is not run as it is."""
    path = program or require_core()
    from deltachat_rpc_client import DeltaChat, Rpc

    with Rpc(accounts_dir=str(directory / 'accounts'), rpc_server_path=path) as rpc:
        yield Cores(relay, DeltaChat(rpc))
