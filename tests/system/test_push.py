"""Push notifications of a running relay, with a service of the test."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.realtime.push.double import NotificationService, root_environment
from tests.system import mail
from tests.system.relay import Relay, running, wait_for
from tests.tls.authority import Authority

Person = tuple[str, str]
QUIET = 0.7  # seconds in which a request that must not come would


@contextmanager
def relay_with(directory: Path, service: NotificationService, **options: Any) -> Iterator[Relay]:
    environment = options.pop('environment', None)
    log = {'log': str(directory / 'log'), 'log_level': 'debug'}
    options = {'push': {'url': service.url, **options.pop('push', {})}, **log, **options}
    with running(directory, options, environment=environment) as relay:
        yield relay
        for text in (relay.text(), Path(log['log']).read_text()):
            assert 'device-of' not in text
            assert 'openpgp:' not in text


@pytest.fixture
def service() -> Iterator[NotificationService]:
    with NotificationService() as made:
        yield made


def device(relay: Relay, person: Person, *tokens: str) -> None:
    client = relay.imap(*person)
    try:
        assert 'XDELTAPUSH' in client.capabilities or 'XDELTAPUSH' in _capabilities(client)
        for token in tokens:
            status, _ = client.xatom('SETMETADATA', 'INBOX', f'(/private/devicetoken "{token}")')
            assert status == 'OK'
    finally:
        client.logout()


def _capabilities(client: Any) -> str:
    _, data = client.capability()
    found: str = data[0].decode()
    return found


def send(relay: Relay, sender: Person, *to: str) -> None:
    with relay.smtp(*sender) as smtp:
        assert smtp.sendmail(sender[0], to, mail.encrypted(sender[0])) == {}


def push_status(relay: Relay) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(relay.cli('push', 'status', '--json').stdout)
    return data


def doctor(relay: Relay) -> list[dict[str, Any]]:
    told = json.loads(relay.cli('doctor', '--json', check=False).stdout)
    return [one for one in told['data']['checks'] if one['name'] == 'push']


def eventually(condition: Callable[[], Any], wait: float = 20.0) -> Any:
    end = time.monotonic() + wait
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def none_comes(service: NotificationService, count: int) -> None:
    time.sleep(QUIET)
    assert len(service.requests) == count


def test_whoever_gets_mail_is_told_once_and_nobody_else(
    room: Path, service: NotificationService
) -> None:
    with relay_with(room, service) as relay:
        ann, bob, carol, dave = (relay.account(name) for name in ('ann', 'bob', 'carol', 'dave'))
        for person in (ann, bob, carol):
            device(relay, person, f'device-of-{person[0]}')
        device(relay, bob, f'device-of-{bob[0]}', 'device-of-bobs-tablet')
        send(relay, ann, bob[0], carol[0], dave[0], ann[0])
        service.wait(3)
        none_comes(service, 3)
        assert sorted(service.tokens) == sorted(
            [f'device-of-{bob[0]}', 'device-of-bobs-tablet', f'device-of-{carol[0]}']
        )
        # From elsewhere, by port 25.
        with smtplib.SMTP('127.0.0.1', relay.ports['smtp']) as smtp:
            sender = 'eve@[127.0.0.9]'
            smtp.sendmail(sender, [carol[0]], mail.encrypted(sender))
        assert service.wait(4)[-1].token == f'device-of-{carol[0]}'
        # A bounce is mail; a message that a client appends is not.
        send(relay, ann, f'nobody-there@{relay.domain}')
        assert service.wait(5)[-1].token == f'device-of-{ann[0]}'
        client = relay.imap(*bob)
        client.append('INBOX', '', '', mail.encrypted(bob[0]))
        client.logout()
        none_comes(service, 5)
        state = push_status(relay)
        assert state == {
            'ok': True,
            'command': 'push status',
            'data': {
                'mode': 'auto',
                'runtime_enabled': True,
                'failures': 0,
                'auto_disable_threshold': 5,
                'paused': False,
                'successful_notifications': 5,
                'waiting': 0,
                'url': service.url,
            },
        }


def test_dead_tokens_go_and_do_no_harm(room: Path, service: NotificationService) -> None:
    with relay_with(room, service) as relay:
        ann, bob = relay.account('ann'), relay.account('bob')
        device(relay, bob, *(f'device-of-bob-{n}' for n in range(12)))
        service.behave = lambda request: 200 if request.token.endswith('-7') else 410
        send(relay, ann, bob[0])
        service.wait(12)
        none_comes(service, 12)
        send(relay, ann, bob[0])
        assert service.wait(13)[-1].token == 'device-of-bob-7'
        none_comes(service, 13)
        data = push_status(relay)['data']
        assert (data['runtime_enabled'], data['failures']) == (True, 0)


def test_a_restart_loses_nothing(room: Path, service: NotificationService) -> None:
    """What failed is tried again by whoever comes next, from where it was."""
    with relay_with(room, service) as relay:
        ann, bob = relay.account('ann'), relay.account('bob')
        device(relay, bob, 'device-of-bob')
        service.script = [500]
        send(relay, ann, bob[0])
        service.wait(1)
        eventually(lambda: push_status(relay)['data']['waiting'] == 1)
        time.sleep(0.3)
        relay.stop()
        relay.start()
        first, second = service.wait(2)
        assert second.token == 'device-of-bob'
        assert 7.5 < second.at - first.at < 20
        eventually(lambda: push_status(relay)['data']['waiting'] == 0)
        none_comes(service, 2)


def test_a_slow_service_holds_up_no_mail(room: Path, service: NotificationService) -> None:
    with relay_with(room, service, push={'timeout': 2, 'connections': 2}) as relay:
        ann, bob = relay.account('ann'), relay.account('bob')
        device(relay, bob, *(f'device-of-bob-{n}' for n in range(6)))
        service.behave = lambda request: 'hang'
        client = relay.imap(*bob)
        began = time.monotonic()
        for _ in range(10):
            send(relay, ann, bob[0])
        assert len(wait_for(client, 10)) == 10
        assert time.monotonic() - began < 15
        client.logout()
        eventually(lambda: push_status(relay)['data']['failures'] >= 2)


def test_an_outage_is_told_and_ends_by_itself_or_by_the_operator(
    room: Path, service: NotificationService
) -> None:
    with relay_with(room, service) as relay:
        ann, bob = relay.account('ann'), relay.account('bob')
        device(relay, bob, *(f'device-of-bob-{n}' for n in range(20)))
        service.behave = lambda request: 503
        send(relay, ann, bob[0])
        data = eventually(lambda: (found := push_status(relay)['data'])['paused'] and found)
        assert (data['mode'], data['runtime_enabled']) == ('auto', False)
        (finding,) = doctor(relay)
        assert finding['level'] == 'warn'
        assert 'did not answer' in finding['seen']
        asked = len(service.requests)
        assert asked <= 4 + 8  # those under way when the fifth failed
        none_comes(service, asked)
        service.behave = lambda request: 200
        relay.cli('push', 'on')
        service.wait(20)  # at once; those that failed wait for their time
        assert set(service.counts.values()) == {1}
        eventually(lambda: push_status(relay)['data']['waiting'] <= asked)
        data = push_status(relay)['data']
        assert (data['mode'], data['runtime_enabled'], data['failures']) == ('on', True, 0)


def test_off_is_off_at_once_and_not_offered(room: Path, service: NotificationService) -> None:
    with relay_with(room, service) as relay:
        ann, bob = relay.account('ann'), relay.account('bob')
        device(relay, bob, 'device-of-bob')
        assert json.loads(relay.cli('push', 'off', '--json').stdout)['data'] == {
            'mode': 'off',
            'runtime_enabled': False,
        }
        send(relay, ann, bob[0])
        none_comes(service, 0)
        client = relay.imap(*bob)
        assert 'XDELTAPUSH' not in _capabilities(client)
        # What a client says of its device is kept all the same.
        status, _ = client.xatom('SETMETADATA', 'INBOX', '(/private/devicetoken "device-of-bob")')
        assert status == 'OK'
        client.logout()
        relay.cli('push', 'auto')
        client = relay.imap(*bob)
        assert 'XDELTAPUSH' in _capabilities(client)
        client.logout()
        none_comes(service, 0)
        send(relay, ann, bob[0])
        service.wait(1)


@pytest.mark.parametrize('trusted', [True, False])
def test_only_a_service_with_a_right_certificate_is_told(room: Path, trusted: bool) -> None:
    room.mkdir()
    authority = Authority(room)
    with NotificationService(tls=authority.issue('127.0.0.1')) as service:
        environment = root_environment(authority.root) if trusted else None
        with relay_with(room, service, environment=environment) as relay:
            ann, bob = relay.account('ann'), relay.account('bob')
            device(relay, bob, 'device-of-bob')
            send(relay, ann, bob[0])
            if trusted:
                service.wait(1)
            else:
                eventually(lambda: push_status(relay)['data']['failures'] == 1)
                assert service.requests == []


def test_a_killed_sender_sends_again_what_was_under_way_and_no_more(
    room: Path, service: NotificationService
) -> None:
    """At least once: everybody is told; no storm: few are told twice."""
    people, devices = 4, 15
    with relay_with(room, service, push={'connections': 4}) as relay:
        ann = relay.account('ann')
        receivers = [relay.account(f'user{n}') for n in range(people)]
        tokens = [[f'device-of-{person[0]}-{n}' for n in range(devices)] for person in receivers]
        for person, some in zip(receivers, tokens, strict=True):
            device(relay, person, *some)
        service.delay = 0.1
        kills = 0
        for _ in range(3):
            send(relay, ann, *(address for address, _ in receivers))
            for pause in (0.2, 0.5):
                time.sleep(pause)
                for pid in relay.pids('courier'):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
                eventually(lambda: relay.pids('courier'))
        eventually(lambda: push_status(relay)['data']['waiting'] == 0, 40)
        none_comes(service, len(service.requests))
        assert set(service.counts) == {token for some in tokens for token in some}
        # 4 under way, and those of the last moments whose outcome was not written yet.
        assert len(service.requests) <= 3 * people * devices + kills * (4 + 12)


def test_a_reload_repeats_nothing(room: Path, service: NotificationService) -> None:
    with relay_with(room, service) as relay:
        ann, bob = relay.account('ann'), relay.account('bob')
        device(relay, bob, 'device-of-bob')
        service.delay = 0.5
        send(relay, ann, bob[0])
        service.wait(1)
        relay.cli('reload')
        none_comes(service, 1)
        send(relay, ann, bob[0])
        service.wait(2)
        none_comes(service, 2)
        assert push_status(relay)['data']['successful_notifications'] == 2


def test_a_deleted_account_is_told_of_nothing(room: Path, service: NotificationService) -> None:
    with relay_with(room, service) as relay:
        ann, bob = relay.account('ann'), relay.account('bob')
        device(relay, bob, 'device-of-bob')
        service.script = [500]
        send(relay, ann, bob[0])
        service.wait(1)
        relay.cli('accounts', 'delete', bob[0], '--yes')
        assert push_status(relay)['data']['waiting'] == 0
        none_comes(service, 1)


def test_several_devices_are_told_only_to_who_asks_for_exactly_them(relay: Relay) -> None:
    person = relay.account('ann')
    device(relay, person, 'one', 'two')
    client = relay.imap(*person)
    try:
        for wide in ('(DEPTH infinity) INBOX (/private)', '(DEPTH infinity) "" (/private /shared)'):
            client.send(f'x GETMETADATA {wide}\r\n'.encode())
            text = b''
            while not text.startswith(b'x '):
                text = client.readline()
                assert b'devicetoken' not in text
        client.send(b'y GETMETADATA INBOX (/private/devicetoken)\r\n')
        assert client.readline().startswith(b'* METADATA')
        assert client.readline() == b'one two)\r\n'
        assert client.readline().startswith(b'y OK')
    finally:
        client.logout()
