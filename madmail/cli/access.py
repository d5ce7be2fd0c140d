"""Getting at the accounts: through the running relay, or in its place when none runs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from madmail.account.address import canonical, mail_domain
from madmail.account.placement import shard_of
from madmail.account.registry import Accounts
from madmail.account.secret import load as load_secret
from madmail.admin.refused import Refused, by_shard
from madmail.cli.result import Failure
from madmail.imap.mailbox import OpenMailboxes
from madmail.master import control
from madmail.master.exits import Stop
from madmail.master.plan import load_loop_modules
from madmail.master.privileges import owner
from madmail.master.state import lock, read_shards
from madmail.settings import Settings, overlay
from madmail.shard.calls import CallRefused, ShardUnavailable, call_blocking
from madmail.shard.methods import ShardMethods
from madmail.store.control import Blocklist, Control
from madmail.store.database import StoreInUse
from madmail.store.room import room
from madmail.store.schema import NewerVersion
from madmail.store.sqlite import open_store
from madmail.upkeep.caretaker import Caretaker

PAGE = 1000  # accounts listed by one call


class _NoSessions:
    """The sessions of a relay that does not run."""

    logged_in = 0

    def __len__(self) -> int:
        return 0

    def count(self, account_id: int) -> int:
        return 0

    def dismiss(self, account_id: int) -> None:
        pass


class _NoCalls:
    """The calls of a relay that does not run."""

    def ended(self, account_id: int, address: str = '') -> None:
        pass  # who is blocked loses what was given out when the relay starts


class _StoppedShard:
    """What the methods of a shard need, without its process."""

    def __init__(self, state_dir: Path, index: int, settings: Settings) -> None:
        self.settings = settings
        self.domain = mail_domain(settings['domain'])
        self.store = open_store(state_dir / 'shards' / str(index), **room(settings))
        self.blocklist = Blocklist(state_dir)
        self.sessions = _NoSessions()
        self.accounts = Accounts(
            self.store,
            settings,
            load_secret(state_dir),
            self.blocklist,
            lambda function, *arguments: function(*arguments),
        )
        self.boxes = OpenMailboxes(self.store)
        self.upkeep = Caretaker(
            self.store,
            settings,
            index,
            connected=self.sessions.count,
            forget=self.accounts.forget,
        )
        self.turn = _NoCalls()
        self.methods = ShardMethods(self)  # type: ignore[arg-type]

    def statistics(self) -> dict[str, Any]:
        return {'accounts': self.store.account_count()}

    def reload_blocklist(self) -> None:
        self.blocklist.reload()

    def announce(self) -> None:
        pass  # who starts looks at the outbox

    def close(self) -> None:
        self.upkeep.stop()
        self.store.close()
        self.blocklist.close()


class Access:
    """The relay of one state directory; see `madmail.admin.relay.Relay`, which it fulfils.

    Raises Refused where something is not as it has to be.  Run as root, we
    become the owner of the directory first, so that no file turns into one
    that the relay cannot write.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state_dir: Path = settings['state_dir'].absolute()
        self.domain = mail_domain(settings['domain'])
        self._lock = -1
        self._stopped: dict[int, _StoppedShard] = {}
        try:
            shards = read_shards(self.state_dir)
            if shards is None:
                raise Failure(
                    f'there is no relay in {self.state_dir}; "madmail init" or "madmail run" '
                    'makes one, --config or --state-dir names another'
                )
            self.shards = shards
            identity = owner(self.state_dir)
            if identity:
                load_loop_modules()  # as that user we may not be able to read them
                identity.assume()
            told = self._told()
            self.running = told is not None
            if told is None:
                self._lock = lock(self.state_dir)
            self.control = Control(self.state_dir)
            # Stored values that are not in force, and why.
            self.unusable = overlay(settings, self.control.settings(), generation=True)
            if told is not None:
                self.unusable = told
        except (Stop, OSError, sqlite3.Error, NewerVersion) as error:
            raise Failure(str(error)) from None

    def __enter__(self) -> Access:
        return self

    def __exit__(self, *_: object) -> None:
        for stopped in self._stopped.values():
            stopped.close()
        self.control.close()
        if self._lock >= 0:
            os.close(self._lock)

    def address(self, text: str) -> str:
        """The canonical address of `text`, which may lack the domain."""
        address = canonical(text if '@' in text else f'{text}@{self.domain}', self.domain)
        if address is None:
            raise Refused('invalid', f'{text} is not an address of this relay (…@{self.domain})')
        return address

    def call(self, address: str, method: str, **params: Any) -> Any:
        """Call a method of the shard that owns `address`."""
        shard = shard_of(address, self.shards)
        return self._call(shard, method, address=address, **params)

    def accounts(self) -> Iterator[dict[str, Any]]:
        """All accounts, shard by shard."""
        for shard in range(self.shards):
            after = ''
            while page := self._call(shard, 'account_list', after=after, limit=PAGE):
                yield from page
                after = page[-1]['address']

    def call_shard(self, shard: int, method: str, **params: Any) -> Any:
        """Call a method of a shard."""
        return self._call(shard, method, **params)

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        """Tell the processes of the relay, if it runs."""
        if topic == 'settings':
            overlay(self.settings, self.control.settings(), generation=True)
        if self.running:
            try:
                control.ask(self.state_dir, {'command': 'publish', 'topic': topic, 'data': data})
            except (control.NotRunning, control.Refused, OSError):
                pass  # who starts now reads what we have written

    def ask_master(self, request: dict[str, Any], *, timeout: float = 30.0) -> dict[str, Any]:
        """One request on the control socket; its data."""
        try:
            return control.ask(self.state_dir, request, timeout=timeout) or {}
        except control.NotRunning as error:
            raise Refused('unavailable', str(error)) from None
        except control.Refused as error:
            raise Refused('busy' if error.busy else 'failed', str(error)) from None
        except OSError:
            raise Refused('unavailable', 'the relay does not answer') from None

    def _told(self) -> dict[str, str] | None:
        """What the master says is not in force, None without a master.  Raises Failure.

        It answers that itself: a process that is stuck must not keep us from anything.
        """
        try:
            return dict(control.ask(self.state_dir, {'command': 'unusable'}) or {})
        except control.NotRunning:
            return None
        except (control.Refused, TimeoutError):
            raise Failure('the relay does not answer') from None

    def _open(self, shard: int) -> _StoppedShard:
        try:
            return _StoppedShard(self.state_dir, shard, self.settings)
        except (NewerVersion, StoreInUse, OSError, ValueError, sqlite3.Error) as error:
            raise Refused('unavailable', f'shard {shard} cannot be opened: {error}') from None

    def _call(self, shard: int, method: str, **params: Any) -> Any:
        try:
            if self.running:
                return call_blocking(self.state_dir, shard, method, **params)
            if shard not in self._stopped:
                self._stopped[shard] = self._open(shard)
            answer = self._stopped[shard].methods.call(method, params)
        except ShardUnavailable as error:
            raise Refused('unavailable', f'shard {shard} does not answer: {error}') from None
        except CallRefused as refused:
            raise by_shard(refused.word) from None
        if not answer['ok']:
            raise by_shard(answer['error'])
        return answer.get('result')
