"""A relay is lost and comes back from its backup; people go on chatting."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.client.core import cores_on, incoming, require_core
from tests.system.relay import Relay
from tests.system.test_backup import numbers, restored


def test_chats_go_on_after_a_restore(tmp_path: Path) -> None:
    require_core()
    archive = tmp_path / 'relay.backup'
    first = Relay(tmp_path / 'one').start()
    with first, cores_on(first, tmp_path) as cores:
        alice, bob = cores.online('alice', 'bob')
        to_bob, to_alice = alice.create_chat(bob), bob.create_chat(alice)
        for number in range(3):
            to_bob.send_text(f'before {number}')
            incoming(bob, f'before {number}')
        first.cli('backup', 'create', str(archive))
        # Seen by the client, unknown to the backup: their UIDs must not come again.
        for number in range(3):
            to_bob.send_text(f'lost {number}')
            incoming(bob, f'lost {number}')
        for pid in first.processes():
            os.kill(pid, signal.SIGKILL)
        with restored(first, tmp_path / 'two', archive) as second:
            to_bob.send_text('after')
            assert incoming(bob).get_snapshot().text == 'after', 'nothing old came again'
            to_alice.send_text('and back')
            assert incoming(alice).get_snapshot().text == 'and back'
            client = second.imap(*cores.credentials[bob.id])
            assert numbers(client)['UIDNEXT'] > 10_000
            client.logout()
