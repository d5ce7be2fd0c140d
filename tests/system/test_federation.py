"""Two whole relays exchange mail: every transport, signatures, reports, a killed courier."""

from __future__ import annotations

import email
import imaplib
import json
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.name_server import NameServer
from tests.system import mail
from tests.system.relay import fetch_all, wait_for
from tests.web.conftest import WebRelay

SHARED: dict[str, Any] = {
    'processes': {'gates': 1, 'shards': 2},
    'federation': {'dkim': 'off'},
    'queue': {'first_retry': 1},
}


class Pair:
    """one.example and two.example."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.one = WebRelay(directory / 'one', {**SHARED, 'domain': 'one.example', **options})
        self.two = WebRelay(directory / 'two', {**SHARED, 'domain': 'two.example', **options})

    def __enter__(self) -> Pair:
        self.one.start()
        self.two.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.one.stop()
        self.two.stop()

    def join(self, transport: str) -> None:
        """Each finds the other by this transport and no other."""
        for relay, other in ((self.one, self.two), (self.two, self.one)):
            port = other.ports['smtp'] if transport == 'smtp' else other.web[transport]
            endpoint = f'{transport}://127.0.0.1:{port}'
            relay.cli('endpoint-cache', 'set', other.domain, endpoint)


def post(relay: WebRelay, account: tuple[str, str], *recipients: str, size: int = 3000) -> bytes:
    """An encrypted message from an account; what was sent."""
    text = mail.encrypted(account[0], recipients[0], size=size)
    with relay.smtp(*account) as client:
        assert client.sendmail(account[0], recipients, text) == {}
    return text


def identity(text: bytes) -> str:
    return str(email.message_from_bytes(text)['Message-ID'])


def exactly(client: imaplib.IMAP4, count: int, patience: float = 15.0) -> list[bytes]:
    """That many messages, and no more a moment later."""
    wait_for(client, count, patience)
    time.sleep(0.5)
    found = list(fetch_all(client).values())
    assert len(found) == count
    return found


@pytest.fixture(scope='module')
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp('pair')) as pair:
        yield pair


@pytest.mark.parametrize('transport', ['https', 'http', 'smtp'])
def test_mail_crosses_both_ways_and_arrives_once(pair: Pair, transport: str) -> None:
    pair.join(transport)
    alice, bob, carol = pair.one.account(), pair.two.account(), pair.two.account()
    there = post(pair.one, alice, bob[0], carol[0])
    large = post(pair.one, alice, bob[0], size=400_000)
    back = post(pair.two, bob, alice[0])
    with pair.two.imap(*bob) as client:
        found = exactly(client, 2)
        assert {identity(text) for text in found} == {identity(there), identity(large)}
        for sent in (there, large):
            [text] = [one for one in found if identity(one) == identity(sent)]
            assert text.partition(b'\r\n\r\n')[2] == sent.partition(b'\r\n\r\n')[2]
    with pair.two.imap(*carol) as client:
        assert [identity(text) for text in exactly(client, 1)] == [identity(there)]
    with pair.one.imap(*alice) as client:
        assert [identity(text) for text in exactly(client, 1)] == [identity(back)]


def test_a_domain_that_cannot_be_comes_back_as_a_report(tmp_path: Path) -> None:
    with NameServer() as names:
        names.add('one.example', 'A', '127.0.0.1')
        options = {**SHARED, 'domain': 'one.example', 'dns': {'servers': [names.address]}}
        with WebRelay(tmp_path / 'one', options) as relay:
            alice = relay.account()
            sent = post(relay, alice, 'bob@nowhere.example')
            with relay.imap(*alice) as client:
                [report] = exactly(client, 1)
    message = email.message_from_bytes(report)
    assert message.get_content_type() == 'multipart/report'
    assert 'mailer-daemon@one.example' in str(message['From']).lower()
    _, status, original = message.get_payload()  # type: ignore[misc]
    recipient = status.get_payload()[1]  # type: ignore[union-attr,index]
    assert recipient['Action'] == 'failed'
    assert recipient['Final-Recipient'] == 'rfc822; bob@nowhere.example'
    assert recipient['Status'] == '5.1.2'
    assert identity(sent).encode() in original.as_bytes()  # type: ignore[union-attr]


def test_signed_mail_passes_a_relay_that_asks_for_signatures(tmp_path: Path) -> None:
    with NameServer() as names:
        options = {
            'dns': {'servers': [names.address]},
            'federation': {'dkim': 'require'},
        }
        with Pair(tmp_path, **options) as pair:
            for line in records(pair.one):
                names.add(*line)
            names.add('two.example', 'A', '127.0.0.1')  # exists, and has published no key
            alice, bob = pair.one.account(), pair.two.account()
            for number, transport in enumerate(('https', 'smtp')):
                pair.join(transport)
                sent = post(pair.one, alice, bob[0])
                with pair.two.imap(*bob) as client:
                    found = exactly(client, number + 1)
                assert identity(found[-1]) == identity(sent)
                post(pair.two, bob, alice[0])
                with pair.two.imap(*bob) as client:
                    [report] = [one for one in wait_for(client, number + 2) if b'DKIM' in one]
                    assert b'multipart/report' in report
                    assert b'5.7.1' in report
                    for uid, text in fetch_all(client).items():
                        if text == report:
                            client.uid('STORE', str(uid), '+FLAGS', '(\\Deleted)')
                    client.expunge()
            with pair.one.imap(*alice) as client:
                assert fetch_all(client) == {}


def records(relay: WebRelay) -> list[tuple[str, str, str]]:
    """The DKIM records that the relay wants to see published."""
    data = json.loads(relay.cli('--json', 'dns').stdout)['data']
    found = [
        (one['name'], one['type'], one['expected'])
        for one in data['records']
        if '_domainkey' in one['name']
    ]
    assert found
    return found


def test_a_killed_courier_loses_nothing(pair: Pair) -> None:
    pair.join('https')
    alice, bob = pair.one.account(), pair.two.account()
    count, kills = 150, 0
    texts = [mail.encrypted(alice[0], bob[0], size=3000) for _ in range(count)]
    with pair.one.smtp(*alice) as client:
        for number, text in enumerate(texts):
            assert client.sendmail(alice[0], [bob[0]], text) == {}
            if number % 40 == 20:
                [courier] = pair.one.pids('courier')
                os.kill(courier, signal.SIGKILL)
                kills += 1
                end = time.monotonic() + 10
                while pair.one.pids('courier') in ([], [courier]) and time.monotonic() < end:
                    time.sleep(0.05)
    assert kills >= 3
    sent = {identity(text) for text in texts}
    with pair.two.imap(*bob) as client:
        end = time.monotonic() + 30
        while True:
            found = [identity(text) for text in fetch_all(client).values()]
            if sent <= set(found) or time.monotonic() > end:
                break
            time.sleep(0.2)
    assert set(found) == sent
    # What was under way when it died was sent again, and known by the other relay.
    assert len(found) == len(sent)


def test_the_way_is_short(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    pair.join('https')
    alice, bob = pair.one.account(), pair.two.account()
    times = []
    with pair.two.imap(*bob) as client, pair.one.smtp(*alice) as sender:
        client.select('INBOX')
        for number in range(40):
            text = mail.encrypted(alice[0], bob[0], size=3000)
            client.send(b'i%d IDLE\r\n' % number)
            assert client.readline().startswith(b'+')
            assert sender.sendmail(alice[0], [bob[0]], text) == {}
            began = time.perf_counter()
            while b'EXISTS' not in client.readline():
                pass
            times.append(time.perf_counter() - began)
            client.send(b'DONE\r\n')
            while not client.readline().startswith(b'i%d ' % number):
                pass
    median = statistics.median(times) * 1000
    with capsys.disabled():
        print(f'\nfederated delivery: median {median:.1f} ms, longest {max(times) * 1000:.1f} ms')
    assert median < 500
