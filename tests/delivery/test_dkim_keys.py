"""The relay's keys: made once, kept to ourselves, rotated without a gap."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from madmail.delivery import dkim
from madmail.delivery.dkim import Damaged, Keys, Refused
from madmail.message import dkim_key
from madmail.message.bounce import bounce
from madmail.message.dkim import Outcome, Verification
from madmail.settings import Settings
from madmail.smtp.reply import Reply
from madmail.store.spool import MemoryBody, Spool

DOMAIN = 'relay.example'
MESSAGE = b'From: <alice@relay.example>\r\nTo: <bob@other.example>\r\n\r\nhello\r\n'


def keys(directory: Path, domain: str = DOMAIN, **settings: Any) -> Keys:
    return Keys(directory, domain, Settings.defaults(**settings))


def outcome(message: bytes, *all_keys: Keys) -> Outcome:
    records = {
        name: [text.encode()]
        for ring in all_keys
        for one in ring.known()
        for name, text in ring.records(one)
    }
    verification = Verification()
    end = message.index(b'\r\n\r\n') + 4
    verification.feed_header(message[:end])
    verification.feed(message[end:])
    return verification.finish(lambda name: records.get(name, [])).outcome


def test_the_first_key_is_made_once_and_for_us_alone(tmp_path: Path) -> None:
    first = keys(tmp_path)
    (one,) = first.known()
    assert (one.selector, one.state) == ('madmail', 'active')
    assert [again.records for again in keys(tmp_path).known()] == [one.records]
    directory = tmp_path / 'dkim'
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert sorted(path.name for path in directory.iterdir()) == ['keys.json', 'madmail.pem']
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_what_it_signs_holds(tmp_path: Path) -> None:
    ring = keys(tmp_path)
    fields = ring.sign(MemoryBody(MESSAGE))
    assert fields.count(b'DKIM-Signature:') == 1
    assert outcome(fields + MESSAGE, ring) is Outcome.VALID


def test_bounces_are_signed(tmp_path: Path) -> None:
    ring = keys(tmp_path)
    report = bounce(
        DOMAIN, 'bob@other.example', [('x@relay.example', Reply(550, '5.1.1', 'No'))], MESSAGE, 0
    )
    assert outcome(ring.sign(MemoryBody(report)) + report, ring) is Outcome.VALID


@pytest.mark.parametrize('domain', ['[192.0.2.1]', '[ipv6:2001:db8::1]'])
def test_a_relay_on_an_ip_address_has_no_keys(tmp_path: Path, domain: str) -> None:
    ring = keys(tmp_path, domain)
    assert ring.sign(MemoryBody(MESSAGE)) == b''
    assert ring.known() == ring.published() == []
    assert not list(tmp_path.iterdir())


def test_a_second_signature_by_ed25519(tmp_path: Path) -> None:
    assert keys(tmp_path).sign(MemoryBody(MESSAGE)).count(b'a=ed25519-sha256') == 0
    ring = keys(tmp_path, dkim__ed25519=True)
    fields = ring.sign(MemoryBody(MESSAGE))
    assert fields.count(b'a=rsa-sha256') == fields.count(b'a=ed25519-sha256') == 1
    names = [name for name, _ in ring.records(ring.known()[0])]
    assert names == ['madmail._domainkey.relay.example', 'madmail-ed25519._domainkey.relay.example']
    second = b'DKIM-Signature:' + fields.split(b'DKIM-Signature:')[2]
    assert b'ed25519' in second
    assert outcome(second + MESSAGE, ring) is Outcome.VALID
    assert len(keys(tmp_path).sign(MemoryBody(MESSAGE)).split(b'DKIM-Signature:')) == 2


def test_a_large_message_is_signed_from_its_file(tmp_path: Path) -> None:
    body = b''.join(b'%07d line\r\n' % n for n in range(250_000))
    spool = Spool(tmp_path)
    spool.append(MESSAGE + body + b'\r\n\r\n')
    ring = keys(tmp_path)
    fields = ring.sign(spool.finish())
    assert outcome(fields + MESSAGE + body, ring) is Outcome.VALID
    assert outcome(fields + MESSAGE + body[:-14], ring) is Outcome.INVALID
    spool.discard()


def test_signing_holds_one_window_and_not_the_message(tmp_path: Path) -> None:
    class Counted(MemoryBody):
        largest = 0

        def read(self, offset: int = 0, length: int = -1) -> bytes:
            octets = super().read(offset, length)
            Counted.largest = max(Counted.largest, len(octets))
            return octets

    keys(tmp_path).sign(Counted(MESSAGE + b'x' * 76 * 100_000))
    assert 0 < Counted.largest < 256 * 1024


# -- rotation


def test_a_rotation_has_no_gap(tmp_path: Path) -> None:
    courier, operator = keys(tmp_path), keys(tmp_path)
    before = courier.sign(MemoryBody(MESSAGE))
    assert operator.rotate().selector == 'madmail2'
    assert [one.state for one in operator.published()] == ['active', 'next']
    assert b's=madmail;' in courier.sign(MemoryBody(MESSAGE))
    operator.activate()
    after = courier.sign(MemoryBody(MESSAGE))
    assert b's=madmail2;' in after
    for fields in (before, after):
        assert outcome(fields + MESSAGE, operator) is Outcome.VALID
    assert not (tmp_path / 'dkim/madmail.pem').exists()


def test_a_retired_key_stays_published_for_a_while(tmp_path: Path) -> None:
    ring = keys(tmp_path)
    ring.rotate()
    ring.activate()
    now = ring.known()[0].since
    assert [one.selector for one in ring.published(now + dkim.RETIRED_TIME)] == [
        'madmail',
        'madmail2',
    ]
    assert [one.selector for one in ring.published(now + dkim.RETIRED_TIME + dkim.DAY)] == [
        'madmail2'
    ]


def test_selectors_are_never_used_twice(tmp_path: Path) -> None:
    ring = keys(tmp_path, dkim__selector='s')
    for _ in range(3):
        ring.rotate()
        ring.activate()
    assert [one.selector for one in ring.known()] == ['s', 's2', 's3', 's4']
    assert [one.state for one in ring.known()] == ['retired'] * 3 + ['active']


def test_there_is_one_next_key_at_most_and_nothing_else_is_activated(tmp_path: Path) -> None:
    ring = keys(tmp_path)
    with pytest.raises(Refused, match='no next key'):
        ring.activate()
    ring.rotate()
    with pytest.raises(Refused, match='next key already'):
        ring.rotate()


# -- what the operator finds or brings


def test_a_key_that_is_there_is_taken(tmp_path: Path) -> None:
    old = rsa.generate_private_key(65537, 2048)
    directory = tmp_path / 'dkim'
    directory.mkdir()
    (directory / 'opendkim.pem').write_bytes(
        old.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    ring = keys(tmp_path, dkim__selector='opendkim')
    assert ring.known()[0].records == {'opendkim': dkim_key.record(old)}
    assert outcome(ring.sign(MemoryBody(MESSAGE)) + MESSAGE, ring) is Outcome.VALID
    assert stat.S_IMODE((directory / 'opendkim.pem').stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('keys.json', '{', 'damaged'),
        ('keys.json', '[]', 'damaged'),
        ('keys.json', '{"version": 1, "keys": []}', 'one active'),
        ('keys.json', '{"version": 2, "keys": []}', 'another version'),
        ('madmail.pem', 'rubbish', 'no private key'),
    ],
)
def test_damage_is_named_and_nothing_is_overwritten(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    keys(tmp_path).known()
    path = tmp_path / 'dkim' / name
    path.write_text(content)
    with pytest.raises(Damaged, match=words):
        keys(tmp_path).sign(MemoryBody(MESSAGE))
    assert path.read_text() == content


def test_a_missing_private_key_is_named(tmp_path: Path) -> None:
    keys(tmp_path).known()
    (tmp_path / 'dkim/madmail.pem').unlink()
    with pytest.raises(Damaged, match=r'madmail\.pem is missing'):
        keys(tmp_path).sign(MemoryBody(MESSAGE))


def _selectors(directory: Path, together: Any, results: Any) -> None:
    together.wait(60)
    results.put(json.dumps([one.records for one in keys(directory).known()]))


def test_processes_that_start_together_have_the_same_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context('spawn')
    results = context.Queue()
    arguments = (tmp_path, context.Barrier(3), results)
    processes = [context.Process(target=_selectors, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
