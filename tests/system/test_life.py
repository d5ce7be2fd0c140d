"""Start, reload, restart and end of a relay, as an operator and its clients see them."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from tests.system import mail
from tests.system.relay import Relay, fetch_all, running, wait_for


def idle(relay: Relay, person: tuple[str, str]) -> socket.socket:
    """A connection in IDLE; what it gets is to be read from the socket."""
    inbox = relay.imap(*person)
    inbox.select('INBOX')
    inbox.send(b'i1 IDLE\r\n')
    while not inbox.readline().startswith(b'+'):
        pass
    stream = inbox.socket()
    stream.settimeout(10)
    return stream


def read_until(stream: socket.socket, words: bytes) -> bytes:
    said = b''
    while words not in said:
        data = stream.recv(65536)
        if not data:
            raise ConnectionResetError(f'closed before {words!r}: {said!r}')
        said += data
    return said


def test_restart_keeps_mail_uids_and_flags(room: Path) -> None:
    relay = Relay(room).start()
    try:
        alice, bob = relay.account('alice'), relay.account('bob')
        with relay.smtp(*alice) as smtp:
            for size in (2000, 2000, 300_000):
                smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0], size=size))
        inbox = relay.imap(*bob)
        wait_for(inbox, 3)
        inbox.store('2', '+FLAGS', '(\\Seen)')
        inbox.store('1', '+FLAGS', '(\\Deleted)')
        inbox.expunge()
        before = fetch_all(inbox)
        validity = inbox.status('INBOX', '(UIDVALIDITY UIDNEXT)')[1]
        inbox.logout()
        assert relay.stop() == 0
        relay.start()
        inbox = relay.imap(*bob)
        assert fetch_all(inbox) == before
        assert inbox.status('INBOX', '(UIDVALIDITY UIDNEXT)')[1] == validity
        assert inbox.search(None, 'SEEN')[1] == [b'1']
        inbox.logout()
    finally:
        relay.stop()


def test_graceful_stop_says_goodbye_and_leaves_nothing_running(room: Path) -> None:
    relay = Relay(room).start()
    try:
        bob = relay.account('bob')
        stream = idle(relay, bob)
        smtp = relay.smtp(*bob)
        assert relay.process is not None
        relay.process.send_signal(signal.SIGTERM)
        said = b''
        with contextlib.suppress(ConnectionResetError):
            while data := stream.recv(65536):
                said += data
        assert b'* BYE' in said
        code, _ = smtp.getreply()
        assert code == 421
        assert relay.process.wait(20) == 0
        assert relay.processes() == []
    finally:
        relay.stop()


def test_stop_finishes_the_message_under_way(room: Path) -> None:
    relay = Relay(room).start()
    try:
        alice, bob = relay.account('alice'), relay.account('bob')
        smtp = relay.smtp(*alice)
        smtp.mail(alice[0])
        smtp.rcpt(bob[0])
        smtp.docmd('DATA')
        message = mail.dotted(mail.encrypted(alice[0], size=100_000))
        smtp.send(message[:50_000])
        assert relay.process is not None
        relay.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        code = 0
        with contextlib.suppress(OSError):
            smtp.send(message[50_000:])
            code = smtp.getreply()[0]
        assert relay.process.wait(20) == 0
        relay.process = None
        relay.start()
        with relay.imap(*bob) as inbox:
            if code == 250:  # perhaps parked at the sender's shard: bob's may have been gone
                assert len(wait_for(inbox, 1)) == 1
            else:
                assert fetch_all(inbox) == {}
    finally:
        relay.stop()


def test_reload_keeps_sessions_and_never_refuses_a_connection(room: Path) -> None:
    with running(room) as relay:
        alice, bob = relay.account('alice'), relay.account('bob')
        stream = idle(relay, bob)
        smtp = relay.smtp(*alice)
        refused: list[str] = []
        stop = threading.Event()

        def knock() -> None:
            while not stop.is_set():
                for name in relay.ports:
                    try:
                        with relay.connect(name, timeout=10) as each:
                            if name in ('imaps', 'submissions'):
                                assert each.recv(4)
                    except (OSError, AssertionError) as trouble:
                        refused.append(f'{name}: {trouble!r}')

        knocker = threading.Thread(target=knock)
        knocker.start()
        try:
            for number in range(3):
                relay.write_config(relay__comment=f'comment {number}')
                relay.reload()
                time.sleep(1.0)
                smtp.sendmail(alice[0], [bob[0]], mail.encrypted(alice[0]))
                read_until(stream, b'* %d EXISTS' % (number + 1))
        finally:
            stop.set()
            knocker.join()
        assert refused == []
        inbox = relay.imap(*bob)
        said = b'%r' % (inbox.xatom('GETMETADATA', '""', '(/shared/comment)'),)
        said += b'%r' % (inbox.response('METADATA'),)
        assert b'comment 2' in said


def test_reload_with_a_broken_configuration_changes_nothing(room: Path) -> None:
    with running(room) as relay:
        bob = relay.account('bob')
        stream = idle(relay, bob)
        good = relay.config.read_text()
        relay.config.write_text(good.replace('mode: self_signed', 'mode: sealing_wax'))
        relay.reload()
        time.sleep(1)
        relay.imap(*bob).logout()
        stream.sendall(b'DONE\r\n')
        read_until(stream, b'i1 OK')
        relay.config.write_text(good)


def test_a_broken_configuration_is_told_with_its_place(room: Path) -> None:
    relay = Relay(room)
    relay.config.write_text('domain: chat.example\nlimits: {send_burst: many}\n')
    done = relay.cli('run', check=False)
    assert done.returncode != 0
    said = done.stderr + done.stdout
    assert re.search(r'madmail\.yaml:2.*send_burst', said), said
    assert 'Traceback' not in said


def test_a_port_that_is_taken_is_told_and_nothing_starts(room: Path) -> None:
    with running(room) as relay:
        second = Relay(room.parent / 'second')
        second.write_config(listen__imaps=relay.options['listen']['imaps'])
        done = second.cli('run', check=False)
        assert done.returncode != 0
        said = done.stderr + done.stdout
        assert str(relay.ports['imaps']) in said
        assert 'Traceback' not in said


def test_two_relays_never_share_a_state_directory(room: Path) -> None:
    with running(room) as relay:
        second = Relay(room.parent / 'second', {'state_dir': str(relay.state_dir)})
        done = second.cli('run', check=False)
        assert done.returncode != 0
        assert 'Traceback' not in done.stderr
        relay.account('bob')


def test_accounts_from_the_command_line(room: Path) -> None:
    with running(room, {'accounts': {'registration': 'closed'}}) as relay:
        address, password = relay.credentials('alice')
        with pytest.raises(Exception, match='AUTHENTICATIONFAILED'):
            relay.imap(address, password)
        relay.cli('accounts', 'create', address, password)
        relay.imap(address, password).logout()
        assert address in relay.cli('accounts', 'list').stdout
        relay.cli('accounts', 'delete', '-y', address)
        assert address not in relay.cli('accounts', 'list').stdout
        with pytest.raises(Exception, match='AUTHENTICATIONFAILED'):
            relay.imap(address, password)


def test_deleting_an_account_ends_its_sessions(room: Path) -> None:
    with running(room) as relay:
        bob = relay.account('bob')
        stream = idle(relay, bob)
        relay.cli('accounts', 'delete', '-y', bob[0])
        said = b''
        with contextlib.suppress(ConnectionResetError):
            while data := stream.recv(65536):
                said += data
        assert b'EXISTS' not in said


def test_the_plain_start_makes_a_local_relay(room: Path) -> None:
    with running(room, keeper=True) as relay:
        status = relay.status()
        assert status
        alice = relay.account('alice')
        relay.imap(*alice).logout()
    assert relay.processes() == []


def test_tls_sessions_go_on_at_any_gate(room: Path) -> None:
    """A phone that comes back pays for no second handshake, whichever process it meets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Relay(room, {'processes.gates': 3}) as relay:
        address = ('127.0.0.1', relay.ports['imaps'])
        session, resumed = None, []
        for _ in range(25):
            with (
                socket.create_connection(address, 10) as plain,
                context.wrap_socket(plain, session=session) as stream,
            ):
                assert stream.recv(1000).startswith(b'* OK')  # the ticket came before it
                resumed.append(stream.session_reused)
                session = stream.session
        assert resumed == [False] + [True] * 24
