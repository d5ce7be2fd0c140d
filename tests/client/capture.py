"""Store what real cores send, octet for octet, for the corpus of the inspection.

    python -m tests.client.capture [DIRECTORY]

starts a relay of the fictional domain relay.example and three Delta Chat
cores that submit through a tap, does what people do, and writes one file for
each message: core-KIND.eml, below tests/corpora/gate/valid.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.client.core import Cores, cores_on, incoming, wait_event
from tests.system.relay import ROOT, Relay, client_tls

TARGET = ROOT / 'tests' / 'corpora' / 'gate' / 'valid'


class Tap:
    """Passes submission on, TLS on both sides, and keeps what went by as DATA."""

    def __init__(self, relay: Relay) -> None:
        self.messages: list[bytes] = []
        self.relay = relay
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        directory = relay.state_dir / 'tls'
        self.context.load_cert_chain(directory / 'self-signed.crt', directory / 'self-signed.key')
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, plain: socket.socket) -> None:
        client = self.context.wrap_socket(plain, server_side=True)
        far = socket.create_connection(('127.0.0.1', self.relay.ports['submissions']))
        server = client_tls().wrap_socket(far)
        threading.Thread(target=self.back, args=(server, client), daemon=True).start()
        seen = b''
        with contextlib.suppress(OSError):  # the core just closes
            while data := client.recv(65536):
                seen += data
                while match := re.search(rb'\r\nDATA\r\n(.*?\r\n)\.\r\n', seen, re.DOTALL):
                    self.messages.append(re.sub(rb'(?m)^\.', b'', match[1]))
                    seen = seen[match.end() :]
                server.sendall(data)

    @staticmethod
    def back(server: ssl.SSLSocket, client: ssl.SSLSocket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)


class Capture:
    def __init__(self, cores: Cores, tap: Tap, target: Path) -> None:
        self.cores = cores
        self.tap = tap
        self.target = target

    def account(self, name: str) -> Any:
        account = self.cores.delta.add_account()
        account.set_config('displayname', name.capitalize())
        link = self.cores.relay.dclogin(f'{name}@{self.cores.relay.domain}', f'password-{name}')
        port = self.cores.relay.ports['submissions']
        account.add_transport_from_qr(link.replace(f'sp={port}', f'sp={self.tap.port}'))
        account.bring_online()
        return account

    def take(self, kind: str) -> None:
        """Write the messages that were sent since the last time."""
        time.sleep(1)
        fresh, self.tap.messages = self.tap.messages, []
        for number, message in enumerate(fresh, 1):
            name = f'core-{kind}.eml' if len(fresh) == 1 else f'core-{kind}-{number}.eml'
            (self.target / name).write_bytes(message)
            print(f'{name}: {len(message)} octets')


def joined(joiner: Any, inviter: Any | None = None) -> None:
    wait_event(joiner, 'SecurejoinJoinerProgress', lambda e: e['progress'] == 1000)
    if inviter is not None:
        wait_event(inviter, 'SecurejoinInviterProgress', lambda e: e['progress'] == 1000)


def capture(relay: Relay, directory: Path, target: Path) -> None:
    with cores_on(relay, directory) as cores:
        shots = Capture(cores, Tap(relay), target)
        alice, bob, carol, dave = (shots.account(n) for n in ('alice', 'bob', 'carol', 'dave'))

        carol.secure_join(alice.get_qr_code())
        joined(carol, alice)
        shots.take('securejoin-v3')

        dave.secure_join(alice.get_qr_code().replace('&v=3', ''))
        joined(dave, alice)
        shots.take('securejoin-legacy')

        to_bob, to_alice = alice.create_chat(bob), bob.create_chat(alice)
        to_bob.send_text('A first message.')
        received = incoming(bob, 'A first message.')
        shots.take('text')

        to_alice.mark_noticed()
        received.mark_seen()
        wait_event(alice, 'MsgRead')
        shots.take('read-receipt')

        received.send_reaction('👍')
        wait_event(alice, 'IncomingReaction')
        shots.take('reaction')

        group = alice.create_group('Three')
        group.add_contact(bob)
        group.add_contact(carol)
        group.send_text('Welcome.')
        incoming(bob, 'Welcome.')
        incoming(carol, 'Welcome.')
        shots.take('group')

        path = directory / 'picture.bin'
        path.write_bytes(os.urandom(145_000))
        to_bob.send_message(text='A file.', file=str(path))
        message = incoming(bob)
        wait_event(
            bob,
            'MsgsChanged',
            lambda _: message.get_snapshot().download_state == 'Done',
        )
        shots.take('file')

        channel = alice.create_broadcast('News')
        bob.secure_join(channel.get_qr_code())
        joined(bob)
        shots.take('channel-join')
        channel.send_text('The news.')
        incoming(bob, 'The news.')
        shots.take('channel')


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with Relay(directory / 'relay', {'domain': 'relay.example'}) as relay:
            capture(relay, directory, target)


if __name__ == '__main__':
    main()
