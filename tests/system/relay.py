"""A real relay for tests: own directory, free ports on loopback, ended by process id.

Every process of a relay carries a mark in its environment (`MADMAIL_TEST_RELAY`),
so that they are found in /proc whatever became of their parents, and nothing
else is ever touched.
"""

from __future__ import annotations

import base64
import contextlib
import imaplib
import json
import os
import secrets
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
LISTENERS = ('smtp', 'submission', 'submissions', 'imap', 'imaps')
MARK = 'MADMAIL_TEST_RELAY'
OPEN_LIMITS = {
    'send_per_minute': 0,
    'send_burst': 0,
    'securejoin_per_hour': 0,
    'connections_per_ip': 0,
    'logins_per_minute_per_ip': 0,
    'registrations_per_minute_per_ip': 0,
    'registrations_per_minute_per_network': 0,
    'registrations_per_minute': 0,
    'load_per_core': 0,
}


class NotReady(Exception):
    """The relay ended or did not greet in time; the text holds its output."""


_given: set[int] = set()  # by free_ports in this process


def free_ports(count: int) -> list[int]:
    """Never one twice, though nobody may listen on it yet."""
    sockets: list[socket.socket] = []
    found: list[int] = []
    try:
        while len(found) < count:
            sockets.append(socket.socket())
            sockets[-1].bind(('127.0.0.1', 0))
            port: int = sockets[-1].getsockname()[1]
            if port not in _given:
                _given.add(port)
                found.append(port)
        return found
    finally:
        for each in sockets:
            each.close()


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` into a copy of `base`; dotted names reach into sub-dicts."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for name, value in over.items():
        head, _, rest = name.partition('.')
        if rest:
            result[head] = merge(result.get(head) or {}, {rest: value})
        elif isinstance(value, dict) and isinstance(result.get(head), dict):
            result[head] = merge(result[head], value)
        else:
            result[head] = value
    return result


def client_tls() -> ssl.SSLContext:
    """Accepts any certificate, as Delta Chat does with ic=3."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Relay:
    """One relay in `directory`; `options` are laid over the test configuration."""

    host = '127.0.0.1'  # where it listens

    def __init__(
        self,
        directory: Path,
        options: dict[str, Any] | None = None,
        *,
        keeper: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.state_dir = directory / 'state'
        self.config = directory / 'madmail.yaml'
        self.output = directory / 'output.txt'
        self.keeper = keeper
        self.mark = secrets.token_hex(8)
        self.environment = environment or {}
        self.ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        at = f'[{self.host}]' if ':' in self.host else self.host
        base: dict[str, Any] = {
            'domain': 'chat.example',
            'state_dir': str(self.state_dir),
            'listen': {name: [f'{at}:{port}'] for name, port in self.ports.items()},
            'tls': {'mode': 'self_signed'},
            'processes': {'gates': 1, 'shards': 2},
            'limits': dict(OPEN_LIMITS),
            # Nobody is there: no test reaches the real service.
            'push': {'url': 'http://127.0.0.1:9/notify'},
        }
        self.options = merge(base, options or {})
        self.domain: str = self.options['domain']
        if self.domain.replace('.', '').isdigit():
            self.domain = f'[{self.domain}]'
        self.process: subprocess.Popen[bytes] | None = None
        self.write_config()

    # -- life
    def write_config(self, **changes: Any) -> None:
        """Write the configuration, with `changes` (dotted names allowed) laid over it."""
        self.options = merge(self.options, {k.replace('__', '.'): v for k, v in changes.items()})
        self.config.write_text(yaml.safe_dump(self.options, sort_keys=False))

    def start(self, timeout: float = 30.0) -> Relay:
        if self.keeper:
            command = [str(ROOT / 'scripts' / 'run'), '--config', str(self.config)]
        else:
            command = [sys.executable, '-m', 'madmail', '--config', str(self.config), 'run']
        environment = {
            **os.environ,
            **self.environment,
            'PYTHON': sys.executable,
            'PYTHONPATH': str(ROOT),
            MARK: self.mark,
        }
        with self.output.open('ab') as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.wait_ready(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Until every listener greets."""
        end = time.monotonic() + timeout
        for name in self.ports:
            while True:
                if self.process is not None and self.process.poll() is not None:
                    raise NotReady(f'ended with {self.process.returncode}:\n{self.text()[-4000:]}')
                try:
                    self.connect(name, timeout=2.0).close()
                    break
                except OSError as trouble:
                    if time.monotonic() > end:
                        text = self.text()[-4000:]
                        raise NotReady(f'{name} does not greet: {trouble}\n{text}') from trouble
                    time.sleep(0.05)

    def stop(self, timeout: float = 15.0) -> int | None:
        """SIGTERM to what was started, then SIGKILL to whatever is left; the exit status."""
        status = None
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            try:
                status = self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
        deadline = time.monotonic() + 2
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None and self.process.poll() is None:
            self.process.wait(5)
        self.process = None
        return status

    def __enter__(self) -> Relay:
        return self.start() if self.process is None else self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- processes
    def processes(self) -> list[int]:
        """Living processes of this relay, the keeper included."""
        mark = f'{MARK}={self.mark}'.encode()
        found = []
        for entry in os.listdir('/proc'):
            if not entry.isdigit() or int(entry) == os.getpid():
                continue
            try:
                with open(f'/proc/{entry}/environ', 'rb') as environ:
                    if mark not in environ.read().split(b'\0'):
                        continue
                with open(f'/proc/{entry}/stat', 'rb') as stat:
                    if stat.read().rpartition(b')')[2].split()[0] in b'ZX':
                        continue
            except OSError:
                continue
            found.append(int(entry))
        return sorted(found)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.cli('--json', 'status').stdout)
        return answer

    def pids(self, role: str) -> list[int]:
        """Process ids of master, gate, shard or courier."""
        if role == 'master':
            return [int((self.state_dir / 'master.pid').read_text())]
        found = []
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if role in Path(f'/proc/{pid}/comm').read_text():
                    found.append(pid)
        return found

    def kill_master(self) -> int:
        """SIGKILL to the master; its process id."""
        (pid,) = self.pids('master')
        os.kill(pid, signal.SIGKILL)
        return pid

    def reload(self) -> None:
        (pid,) = self.pids('master')
        os.kill(pid, signal.SIGHUP)

    def cli(
        self, *arguments: str, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        # The mark is for the relay's own processes only, so it is left out here.
        environment = {k: v for k, v in os.environ.items() if k != MARK}
        return subprocess.run(
            [sys.executable, '-m', 'madmail', '--config', str(self.config), *arguments],
            cwd=ROOT,
            env={**environment, 'PYTHONPATH': str(ROOT)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )

    def text(self) -> str:
        """Everything the relay wrote to stdout and stderr."""
        return self.output.read_text(errors='replace') if self.output.exists() else ''

    def cpu(self) -> float:
        """Seconds of CPU used so far by all living processes, user and system."""
        ticks = 0
        for pid in self.processes():
            with contextlib.suppress(OSError), open(f'/proc/{pid}/stat', 'rb') as stat:
                fields = stat.read().rpartition(b')')[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf('SC_CLK_TCK')

    def pss(self) -> int:
        """Proportional memory of all living processes, in bytes."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError), open(f'/proc/{pid}/smaps_rollup', 'rb') as rollup:
                for line in rollup:
                    if line.startswith(b'Pss:'):
                        total += int(line.split()[1]) * 1024
        return total

    # -- clients
    def connect(self, name: str, timeout: float = 20.0) -> socket.socket:
        """A socket to the named listener, in TLS where the port is, with the greeting seen."""
        plain = socket.create_connection((self.host, self.ports[name]), timeout)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream: socket.socket = plain
            if name in ('imaps', 'submissions'):
                stream = client_tls().wrap_socket(plain)
            greeting = stream.recv(1, socket.MSG_PEEK) if stream is plain else b'?'
            if not greeting:
                raise ConnectionResetError('closed before the greeting')
        except BaseException:
            plain.close()
            raise
        return stream

    def credentials(self, name: str = 'user') -> tuple[str, str]:
        """A fresh address and password; the account comes into being at first login."""
        return f'{name}-{secrets.token_hex(4)}@{self.domain}', secrets.token_hex(12)

    def account(self, name: str = 'user') -> tuple[str, str]:
        """A fresh account that exists."""
        address, password = self.credentials(name)
        self.imap(address, password).logout()
        return address, password

    def imap(self, address: str, password: str, timeout: float = 20.0) -> imaplib.IMAP4_SSL:
        client = imaplib.IMAP4_SSL(
            self.host, self.ports['imaps'], ssl_context=client_tls(), timeout=timeout
        )
        try:
            client.login(address, password)
        except BaseException:
            client.shutdown()
            raise
        return client

    def smtp(self, address: str, password: str, timeout: float = 20.0) -> smtplib.SMTP_SSL:
        client = smtplib.SMTP_SSL(
            self.host, self.ports['submissions'], context=client_tls(), timeout=timeout
        )
        try:
            client.login(address, password)
        except BaseException:
            client.close()
            raise
        return client

    def dclogin(self, address: str, password: str) -> str:
        """The link that configures Delta Chat for this relay (fact sheet 3.4)."""
        from urllib.parse import quote

        return (
            f'dclogin:{quote(address, safe="@")}?p={quote(password, safe="")}&v=1'
            f'&ih=127.0.0.1&ip={self.ports["imaps"]}&is=ssl'
            f'&sh=127.0.0.1&sp={self.ports["submissions"]}&ss=ssl&ic=3'
        )


def fetch_all(client: imaplib.IMAP4, mailbox: str = 'INBOX') -> dict[int, bytes]:
    """UID to message of a whole mailbox."""
    status, data = client.select(mailbox)
    assert status == 'OK', data
    status, rows = client.uid('FETCH', '1:*', '(UID BODY.PEEK[])')
    assert status == 'OK', rows
    found = {}
    for row in rows:
        if isinstance(row, tuple):
            head, body = row
            found[int(head.split(b'UID ')[1].split()[0])] = body
    return found


def wait_for(client: imaplib.IMAP4, count: int, timeout: float = 15.0) -> list[bytes]:
    """The messages of INBOX once there are at least `count`."""
    end = time.monotonic() + timeout
    while True:
        found = fetch_all(client)
        if len(found) >= count:
            return [found[uid] for uid in sorted(found)]
        if time.monotonic() > end:
            raise AssertionError(f'{len(found)} of {count} messages after {timeout} s')
        time.sleep(0.05)


def plain_token(address: str, password: str) -> str:
    """The initial response of AUTH PLAIN (RFC 4616)."""
    return base64.b64encode(f'\0{address}\0{password}'.encode()).decode()


@contextlib.contextmanager
def running(
    directory: Path, options: dict[str, Any] | None = None, **kinds: Any
) -> Iterator[Relay]:
    relay = Relay(directory, options, **kinds).start()
    try:
        yield relay
    finally:
        relay.stop()
