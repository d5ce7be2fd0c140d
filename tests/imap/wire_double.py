"""A wire in memory, the services around a session, and a client that talks to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from madmail.bus.embedded import Bus
from madmail.imap.mailbox import OpenMailboxes
from madmail.imap.session import ImapSession
from madmail.realtime.presence import Presence
from madmail.realtime.turn.offer import Offer
from madmail.settings import Settings
from madmail.shard.wire import OUTPUT_LIMIT, Gone, Idle
from madmail.store.interface import Account, Store
from madmail.store.spool import Spool
from madmail.store.sqlite import open_store


class WireDouble:
    """Fulfils the contract of madmail.shard.wire.Wire, with bytearrays for a socket."""

    def __init__(self) -> None:
        self.input = bytearray()
        self.eof = False
        self.output = bytearray()  # what the peer has received
        self.sends = 0
        self.unsent = 0
        self.reading = True  # whether the peer takes what is sent
        self.most_held = 0  # octets, the highest `unsent`
        self.closing = False
        self.failure: BaseException | None = None
        self.session: Any = None
        self._corked: list[bytes] = []
        self._news = Event()
        self._running = False

    # -- for the session

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closing:
            return
        self._corked.append(bytes(data))
        self.unsent += len(data)
        self.most_held = max(self.most_held, self.unsent)
        if self.unsent > 65536:
            self.flush()

    def flush(self) -> None:
        if self._corked and self.reading:
            self.output += b''.join(self._corked)
            self._corked.clear()
            self.unsent = 0
            self.sends += 1

    def drain(self) -> None:
        self.flush()
        while self.unsent > OUTPUT_LIMIT and not self.closing:
            gevent.sleep(0.001)
            self.flush()
        if self.closing:
            raise Gone

    def wait(self, timeout: float) -> bool:
        self.flush()
        before = len(self.input)
        while len(self.input) == before:
            if self.eof or self.closing:
                return False
            self._news.clear()
            if not self._news.wait(timeout):
                raise Idle
        return True

    def close(self) -> None:
        self.flush()
        self.closing = True
        self._news.set()

    # -- for the peer

    def attach(self, session: Any) -> None:
        self.session = session
        self._kick()

    def feed(self, data: bytes) -> None:
        self.input += data
        self._news.set()
        self._kick()

    def hang_up(self) -> None:
        self.eof = True
        self._news.set()
        self._kick()

    @property
    def busy(self) -> bool:
        return self._running

    def _kick(self) -> None:
        if not self._running and not self.closing:
            self._running = True
            gevent.spawn_raw(self._run)

    def _run(self) -> None:
        try:
            while True:
                before = len(self.input)
                self.session.run()
                if self.closing or (len(self.input) <= before and not self._news.is_set()):
                    break
                self._news.clear()
        except Gone:
            self.closing = True
        except Exception as error:
            self.failure = error
            self.flush()
            self.closing = True
        finally:
            self._running = False
        self.flush()
        if self.eof:
            self.closing = True
        if self.closing:
            self.session.ended()


class ShardDouble:
    """ShardServices with a real store in a directory of the test."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        settings.setdefault('policy__require_encryption', False)
        self.directory = directory
        self.settings = Settings.defaults(**settings)
        self.store: Store = open_store(
            directory, quota_default=self.settings['limits.quota'], trim_from=0.75, trim_to=0.7
        )
        self.boxes = OpenMailboxes(self.store)
        self.store.observer = self.boxes.events
        self.domain = 'chat.example'
        self.hostname = 'chat.example'
        self.bus = Bus(lambda frame: None)
        self.presence = Presence(self.bus)
        self.turn = Offer(self.settings, bytes(32), self.presence)
        self._pool = ThreadPool(2)

    def spool(self) -> Spool:
        return Spool(self.directory)

    def offload(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.apply(function, arguments)

    def account(self, address: str = 'ann@chat.example') -> Account:
        found = self.store.account(address)
        if found is None:
            found = self.store.create_account(address, 'x', 0)
        assert found is not None
        return found

    def close(self) -> None:
        self.store.close()
        self._pool.kill()


class Client:
    """A client that is logged in; sends octets and looks at what came back."""

    def __init__(self, shard: ShardDouble, account: Account, tag: bytes = b'a') -> None:
        self.wire = WireDouble()
        self.session = ImapSession(self.wire, shard, account, tag)  # type: ignore[arg-type]
        self._tag = 0
        self.wire.attach(self.session)
        self.greeting = self.take(lambda: b'Logged in' in self.wire.output)

    def take(self, ready: Callable[[], bool] | None = None, timeout: float = 5.0) -> bytes:
        """What has come since the last time, once `ready` and the session rests."""
        deadline = time.monotonic() + timeout
        gevent.sleep(0)
        while (self.wire.busy and not ready) or (ready and not ready()):
            if self.wire.failure is not None:
                raise self.wire.failure
            assert time.monotonic() < deadline, bytes(self.wire.output[-2000:])
            if self.wire.closing and not self.wire.busy:
                break
            gevent.sleep(0.0002)
        if self.wire.failure is not None:
            raise self.wire.failure
        data = bytes(self.wire.output)
        self.wire.output.clear()
        return data

    def send(self, data: bytes) -> bytes:
        """Send octets as they are; the answer when the session rests again."""
        self.wire.feed(data)
        return self.take()

    def ask(self, command: str | bytes) -> bytes:
        """One command line; everything up to its status line, tag replaced by `t`."""
        octets = command.encode() if isinstance(command, str) else command
        self._tag += 1
        tag = b't%d' % self._tag
        self.wire.feed(tag + b' ' + octets + b'\r\n')
        answer = self.take()
        return (b'\n' + answer).replace(b'\n' + tag + b' ', b'\nt ')[1:]

    def lines(self, command: str | bytes) -> list[str]:
        """The answer as lines of text."""
        return self.ask(command).decode('latin-1').split('\r\n')[:-1]

    def append(self, message: bytes, mailbox: str = 'INBOX', options: str = '') -> bytes:
        options = options + ' ' if options else ''
        return self.ask(f'APPEND {mailbox} {options}{{{len(message)}+}}\r\n'.encode() + message)


def message(number: int = 1, body: bytes = b'text\r\n', **fields: str) -> bytes:
    """A small message; fields override or add header lines."""
    header = {
        'From': 'bob@chat.example',
        'To': 'ann@chat.example',
        'Subject': f'message {number}',
        'Message-ID': f'<{number}@localhost>',
        'Date': 'Mon, 02 Mar 2026 10:00:00 +0000',
    }
    header.update((name.replace('_', '-'), value) for name, value in fields.items())
    return (
        b''.join(f'{name}: {value}\r\n'.encode() for name, value in header.items()) + b'\r\n' + body
    )
