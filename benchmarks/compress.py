"""What COMPRESS=DEFLATE costs: memory of an idle session, CPU of a round to fetch a message.

Clients work as Delta Chat's library does: zlib's own level and window, a sync
flush after each command.  Sessions differ in how much they have said before
they fell silent, because what the relay keeps of it is the client's window.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.system import mail
from tests.system.relay import Relay

COUNT = 300  # sessions of each kind
FEW = 50  # that say more than a window
SILENCE = 9.0  # seconds: the clock of a shard comes by every 5, see madmail.imap.compress
ROUND = (
    b'UID FETCH 1:500000 (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE FROM '
    b'CONTENT-TYPE SECURE-JOIN CHAT-VERSION CHAT-IS-POST-MESSAGE AUTOCRYPT-SETUP-MESSAGE)])',
    b'UID FETCH %d:* (FLAGS BODY.PEEK[])',
    b'UID STORE %d:* +FLAGS (\\Deleted)',
    b'NOOP',
)


class Client:
    def __init__(self, relay: Relay, person: tuple[str, str], *, compressed: bool) -> None:
        self.stream = relay.connect('imaps')
        self.out: Any = None
        self.into: Any = None
        self.buffer = b''
        self.octets = 0  # received
        self.command(b'LOGIN "%s" "%s"' % (person[0].encode(), person[1].encode()))
        if compressed:
            self.command(b'COMPRESS DEFLATE')
            self.out = zlib.compressobj(6, zlib.DEFLATED, -15)
            self.into = zlib.decompressobj(-15)
        self.command(b'SELECT INBOX')

    def send(self, data: bytes) -> None:
        if self.out is not None:
            data = self.out.compress(data) + self.out.flush(zlib.Z_SYNC_FLUSH)
        self.stream.sendall(data)

    def until(self, mark: bytes) -> None:
        while mark not in self.buffer:
            data = self.stream.recv(65536)
            if not data:
                raise ConnectionResetError(repr(self.buffer[-200:]))
            self.octets += len(data)
            self.buffer += data if self.into is None else self.into.decompress(data)
        self.buffer = b''

    def command(self, command: bytes) -> None:
        self.send(b'x ' + command + b'\r\n')
        self.until(b'x OK')

    def idle(self) -> None:
        self.send(b'x IDLE\r\n')
        self.until(b'+ ')

    def talk(self, octets: int) -> None:
        """Say `octets` of ordinary commands."""
        said = uid = 0
        while said < octets:
            uid += 1
            for command in ROUND:
                line = command % uid if b'%d' in command else command
                said += len(line)
                self.command(line)


def idle_memory(
    relay: Relay, person: tuple[str, str], count: int, octets: int, *, compressed: bool
) -> tuple[float, list[Client]]:
    """KB a session, of `count` more that said `octets` before IDLE; they stay open."""
    before = relay.pss()
    clients = [Client(relay, person, compressed=compressed) for _ in range(count)]
    for client in clients:
        client.talk(octets)
        client.idle()
    time.sleep(SILENCE)
    return (relay.pss() - before) / 1000 / count, clients


def download(relay: Relay, person: tuple[str, str], *, compressed: bool) -> tuple[float, float]:
    """ms of CPU and octets to fetch a message of 3 KB alone in its mailbox."""
    client = Client(relay, person, compressed=compressed)
    rounds = 1000
    client.octets = 0
    before = relay.cpu()
    for _ in range(rounds):
        client.command(b'UID FETCH 1:* (FLAGS BODY.PEEK[])')
    used = (relay.cpu() - before) * 1000 / rounds
    client.stream.close()
    return used, client.octets / rounds


def main() -> int:
    options = {
        'processes': {'gates': 1, 'shards': 1},
        'limits.connections': 0,
        'limits.sessions_per_account': 0,
    }
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory, Relay(Path(directory), options) as relay:
        person, empty = relay.account('reader'), relay.account('empty')
        relay.imap(*person).append('INBOX', '', '', mail.encrypted(person[0], size=3000))
        # All stay open, for what one kind gives back the next would get for nothing.
        warm = idle_memory(relay, empty, 50, 500, compressed=True)
        plain, some = idle_memory(relay, empty, COUNT, 500, compressed=False)
        little, more = idle_memory(relay, empty, COUNT, 500, compressed=True)
        much, most = idle_memory(relay, empty, FEW, 40_000, compressed=True)
        figures['idle_plain'] = plain
        figures['idle_compressed_more'] = little - plain
        figures['idle_compressed_more_full_window'] = much - plain
        for client in (*warm[1], *some, *more, *most):
            client.stream.close()
        for name, compressed in (('plain', False), ('compressed', True)):
            cpu, octets_a_message = download(relay, person, compressed=compressed)
            figures[f'fetch_cpu_{name}'] = cpu
            figures[f'fetch_octets_{name}'] = octets_a_message
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
