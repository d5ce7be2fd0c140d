"""Store what real cores send, as the relay's inspection sees it, for the corpus.

    python -m tests.client.capture [DIRECTORY]

starts a relay of the fictional domain relay.example and two or three Delta
Chat cores, does what people do, and writes one file for each message that
passed: core-KIND.eml below tests/corpora/gate/valid.  All accounts keep their
mail on the server (bcc_self), so nothing is lost to the core's own deletion.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.client.core import Cores, cores_on, incoming, wait_event
from tests.system.relay import ROOT, Relay, fetch_all

TARGET = ROOT / 'tests' / 'corpora' / 'gate' / 'valid'


class Capture:
    def __init__(self, cores: Cores, target: Path) -> None:
        self.cores = cores
        self.target = target
        self.known: set[bytes] = set()

    def account(self, name: str) -> Any:
        account = self.cores.configured(name, f'{name}@{self.cores.relay.domain}')
        account.set_config('bcc_self', '1')
        account.bring_online()
        return account

    def take(self, kind: str) -> None:
        """Write the messages that came since the last time, each once."""
        fresh = []
        for person in self.cores.credentials.values():
            with self.cores.relay.imap(*person) as inbox:
                for message in fetch_all(inbox).values():
                    if message not in self.known:
                        self.known.add(message)
                        fresh.append(message)
        for number, message in enumerate(fresh, 1):
            name = f'core-{kind}.eml' if len(fresh) == 1 else f'core-{kind}-{number}.eml'
            (self.target / name).write_bytes(message)
            print(f'{name}: {len(message)} octets')


def capture(relay: Relay, directory: Path, target: Path) -> None:
    with cores_on(relay, directory) as cores:
        shots = Capture(cores, target)
        alice, bob, carol = (shots.account(name) for name in ('alice', 'bob', 'carol'))

        carol.secure_join(alice.get_qr_code())
        wait_event(carol, 'SecurejoinJoinerProgress', lambda e: e['progress'] == 1000)
        wait_event(alice, 'SecurejoinInviterProgress', lambda e: e['progress'] == 1000)
        shots.take('securejoin-v3')

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
        path.write_bytes(os.urandom(150_000))
        to_bob.send_message(text='A file.', file=str(path))
        message = incoming(bob, 'A file.')
        wait_event(
            bob,
            'MsgsChanged',
            lambda _: message.get_snapshot().download_state == 'Done',
        )
        shots.take('file')

        channel = alice.create_broadcast('News')
        bob.secure_join(channel.get_qr_code())
        wait_event(bob, 'SecurejoinJoinerProgress', lambda e: e['progress'] == 1000)
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
