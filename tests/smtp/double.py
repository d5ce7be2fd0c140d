"""A wire and a shard without sockets, and a client to type with."""

import re
from pathlib import Path
from typing import Any

from madmail.delivery.origin import Origins
from madmail.delivery.router import Router
from madmail.settings import Settings
from madmail.shard.wire import Idle
from madmail.smtp.session import SmtpSession
from madmail.store.interface import Account
from madmail.store.spool import Spool
from tests.delivery.double import MemoryStore

DOMAIN = 'relay.example'
ALICE = f'alice@{DOMAIN}'
BOB = f'bob@{DOMAIN}'

MESSAGE = (
    f'From: <{ALICE}>\r\nTo: <{BOB}>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n'
    'Message-ID: <one@localhost>\r\nMIME-Version: 1.0\r\nSubject: hello\r\n'
    'Content-Type: text/plain; charset=utf-8\r\n\r\nhello\r\n'
).encode()


class ScriptedWire:
    """Input comes from a script; what is sent is kept, one item a send."""

    def __init__(self) -> None:
        self.input = bytearray()
        self.eof = False
        self.closing = False
        self.script: list[bytes] = []
        self.silent = False  # at the end of the script nothing comes, instead of the end
        self.sent: list[bytes] = []
        self.drains = 0
        self._corked = b''

    def write(self, data: bytes) -> None:
        if not self.closing:
            self._corked += data

    def flush(self) -> None:
        if self._corked:
            self.sent.append(self._corked)
            self._corked = b''

    def drain(self) -> None:
        self.drains += 1
        self.flush()

    def wait(self, timeout: float) -> bool:
        self.flush()
        if self.script:
            self.input += self.script.pop(0)
            return True
        if self.silent:
            raise Idle
        self.eof = True
        return False

    def close(self) -> None:
        self.flush()
        self.closing = True


class TestingShard:
    """As much of ShardServices as SMTP asks for."""

    __test__ = False

    def __init__(self, directory: Path, store: MemoryStore, **settings: Any) -> None:
        given = {
            'policy__require_encryption': False,
            'federation__dkim': 'off',
            'limits__send_per_minute': 0,
            **settings,
        }
        self.settings = Settings.defaults(**given)
        self.domain = self.hostname = DOMAIN
        self.store = store
        self.router = Router(
            store,  # type: ignore[arg-type]
            lambda *_: [],
            own_shard=0,
            shard_of=lambda address: 0,
            settings=self.settings,
            domain=self.domain,
        )
        self.origin = Origins(self.settings, DOMAIN)
        self.directory = directory
        self.spools: list[Spool] = []

    def spool(self) -> Spool:
        self.spools.append(Spool(self.directory))
        return self.spools[-1]


class Client:
    """Types at a session and reads what it says."""

    def __init__(self, shard: TestingShard, login: str = ALICE, *, tls: bool = True) -> None:
        self.wire = ScriptedWire()
        self.shard = shard
        account = Account(1, login, '', 0, 0, -1) if login else None
        handover = {'helo': b'[127.0.0.1]', 'esmtp': True, 'tls': tls}
        self.session = SmtpSession(self.wire, shard, account, handover)  # type: ignore[arg-type]
        self.run()

    def run(self) -> str:
        """Let the session work; what it said, CRLF as newlines."""
        del self.wire.sent[:]
        self.session.run()
        self.wire.flush()
        if self.wire.eof:
            self.wire.close()
        if self.wire.closing:
            self.session.ended()
        return self.said

    @property
    def said(self) -> str:
        return b''.join(self.wire.sent).decode().replace('\r\n', '\n')

    def send(self, first: bytes | str, *later: bytes) -> str:
        """Octets that are there at once, then what comes while the session waits."""
        self.wire.input += first.encode() if isinstance(first, str) else first
        self.wire.script.extend(later)
        return self.run()

    def codes(self, first: bytes | str, *later: bytes) -> list[int]:
        """The reply codes, one a reply."""
        said = self.send(first, *later)
        return [int(code) for code in re.findall(r'^(\d{3})(?: |$)', said, re.MULTILINE)]

    def mail(self, *recipients: str, sender: str = ALICE, data: bytes = MESSAGE) -> str:
        """A whole transaction, pipelined; the last reply."""
        rcpt = ''.join(f'RCPT TO:<{name}>\r\n' for name in recipients)
        said = self.send(f'MAIL FROM:<{sender}>\r\n{rcpt}DATA\r\n', data + b'.\r\n')
        return said.splitlines()[-1]
