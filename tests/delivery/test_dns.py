"""The resolver: every outcome apart, nobody believed too easily, nothing without bound."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.delivery import dns as room
from madmail.delivery import dns_message, dns_servers
from madmail.delivery.dns import Answer, Resolver, Status, Tlsa
from madmail.settings import Settings
from tests.delivery.name_server import NameServer

TIMEOUT = 1.0


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture
def resolver(names: NameServer) -> Resolver:
    return Resolver([names.address], timeout=TIMEOUT)


class Clock:
    """time.monotonic() that can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        real = time.monotonic
        monkeypatch.setattr(time, 'monotonic', lambda: real() + self.ahead)


# -- records


def test_exchangers_come_best_first(names: NameServer, resolver: Resolver) -> None:
    names.add('relay.example', 'MX', '20 B.Relay.Example.', '10 a.relay.example.')
    answer = resolver.mx('relay.example')
    assert answer.values == ((10, 'a.relay.example'), (20, 'b.relay.example'))
    assert answer.status is Status.FOUND
    assert 0 < answer.ttl <= 300


def test_a_null_exchanger_has_no_name(names: NameServer, resolver: Resolver) -> None:
    names.add('relay.example', 'MX', '0 .')
    assert resolver.mx('relay.example').values == ((0, ''),)


def test_addresses_of_both_families(names: NameServer, resolver: Resolver) -> None:
    names.add('relay.example', 'A', '192.0.2.1', '192.0.2.2')
    names.add('relay.example', 'AAAA', '2001:db8::1')
    names.add('four.example', 'A', '192.0.2.3')
    names.add('six.example', 'AAAA', '2001:db8::2')
    found = resolver.addresses('relay.example').values
    assert found[0] == '2001:db8::1'
    assert set(found[1:]) == {'192.0.2.1', '192.0.2.2'}
    assert resolver.addresses('four.example').values == ('192.0.2.3',)
    assert resolver.addresses('six.example').values == ('2001:db8::2',)


def test_texts_are_joined_and_octets(names: NameServer, resolver: Resolver) -> None:
    names.add('a.example', 'TXT', '"one" "two"', r'"\255;\""')
    assert set(resolver.txt('a.example').values) == {b'onetwo', b'\xff;"'}


def test_certificates(names: NameServer, resolver: Resolver) -> None:
    names.add('_25._tcp.mx.example', 'TLSA', '3 1 1 ' + 'ab' * 32)
    assert resolver.tlsa('_25._tcp.mx.example').values == (Tlsa(3, 1, 1, b'\xab' * 32),)


def test_other_records_as_in_a_zone_file(names: NameServer, resolver: Resolver) -> None:
    names.add('_imaps._tcp.relay.example', 'SRV', '0 1 993 relay.example.')
    names.add('www.relay.example', 'CNAME', 'relay.example.')
    found = resolver.records('_imaps._tcp.relay.example', 'SRV').values
    assert found == ('0 1 993 relay.example.',)
    assert resolver.records('www.relay.example', 'CNAME').values == ('relay.example.',)


# -- the four outcomes


def test_no_name_no_data_and_failure_are_told_apart(names: NameServer, resolver: Resolver) -> None:
    names.add('a.example', 'A', '192.0.2.1')
    names.fail('dead.example')
    names.fail('refused.example', 'REFUSED')
    assert resolver.mx('a.example').status is Status.NO_DATA
    assert resolver.mx('none.example').status is Status.NO_NAME
    assert resolver.mx('dead.example').status is Status.FAILED
    assert resolver.mx('refused.example').status is Status.FAILED


def test_a_name_between_others_exists(names: NameServer, resolver: Resolver) -> None:
    names.add('a.b.example', 'A', '192.0.2.1')
    assert resolver.txt('b.example').status is Status.NO_DATA


def test_addresses_fail_only_when_nothing_is_known(names: NameServer) -> None:
    def answer(query: bytes, tcp: bool) -> list[bytes]:
        message = dns.message.from_wire(query)
        if message.question[0].rdtype == dns.rdatatype.AAAA:
            failed = dns.message.make_response(message)
            failed.set_rcode(dns.rcode.SERVFAIL)
            return [failed.to_wire()]
        return [names.response(message).to_wire()]

    names.add('half.example', 'A', '192.0.2.1')
    names.add('other.example', 'TXT', 'x')
    names.raw('half.example', answer)
    names.raw('other.example', answer)
    resolver = Resolver([names.address], timeout=TIMEOUT)
    assert resolver.addresses('half.example').values == ('192.0.2.1',)
    assert resolver.addresses('other.example').status is Status.FAILED


@pytest.mark.parametrize(
    'name',
    [
        '',
        '.',
        'a..b',
        '.example',
        'x' * 64 + '.example',
        'a.' * 130,
        'a b.example',
        'a\0b.example',
        r'a\046b.example',
        'bücher.example',
        '[192.0.2.1]',
        'a@b',
        '*.example',
    ],
)
def test_nobody_is_asked_for_what_is_no_name(
    names: NameServer, resolver: Resolver, name: str
) -> None:
    assert resolver.mx(name).status is Status.NO_NAME
    assert resolver.addresses(name).status is Status.NO_NAME
    assert not names.asked


def test_case_and_final_dot_do_not_matter(names: NameServer, resolver: Resolver) -> None:
    names.add('relay.example', 'A', '192.0.2.1')
    for name in ('Relay.Example', 'relay.example.', 'RELAY.EXAMPLE'):
        assert resolver.addresses(name).values == ('192.0.2.1',)
    assert names.count('relay.example', 'A') == 1


# -- aliases


@pytest.mark.parametrize('partial', [False, True])
def test_aliases_are_followed(names: NameServer, resolver: Resolver, partial: bool) -> None:
    names.partial_chains = partial
    names.add('a.example', 'CNAME', 'b.example.', ttl=100)
    names.add('b.example', 'CNAME', 'C.example.', ttl=50)
    names.add('c.example', 'A', '192.0.2.1', ttl=200)
    answer = resolver.addresses('a.example')
    assert answer.values == ('192.0.2.1',)
    assert answer.ttl <= 50


@pytest.mark.parametrize('partial', [False, True])
def test_an_alias_to_nothing(names: NameServer, resolver: Resolver, partial: bool) -> None:
    names.partial_chains = partial
    names.add('a.example', 'CNAME', 'gone.other.')
    names.add('b.example', 'CNAME', 'c.example.')
    names.add('c.example', 'TXT', 'x')
    assert resolver.mx('a.example').status is Status.NO_NAME
    assert resolver.mx('b.example').status is Status.NO_DATA


@pytest.mark.parametrize('partial', [False, True])
def test_loops_and_long_chains_of_aliases_fail(names: NameServer, partial: bool) -> None:
    names.partial_chains = partial
    names.add('a.example', 'CNAME', 'b.example.')
    names.add('b.example', 'CNAME', 'a.example.')
    names.add('self.example', 'CNAME', 'self.example.')
    for n in range(15):
        names.add(f'c{n}.example', 'CNAME', f'c{n + 1}.example.')
    names.add('c15.example', 'A', '192.0.2.1')
    resolver = Resolver([names.address], timeout=TIMEOUT)
    for name in ('a.example', 'self.example', 'c0.example'):
        assert resolver.mx(name).status is Status.FAILED
    assert len(names.asked) < 40
    assert resolver.addresses('c10.example').status is Status.FOUND


# -- transport


def test_a_truncated_answer_is_fetched_over_tcp(names: NameServer, resolver: Resolver) -> None:
    names.add('big.example', 'TXT', 'x' * 9000)
    names.add('cut.example', 'TXT', 'y')
    names.truncate('cut.example')
    assert resolver.txt('big.example').values == (b'x' * 9000,)
    assert resolver.txt('cut.example').values == (b'y',)
    assert [how for _, _, how in names.asked] == ['udp', 'tcp'] * 2


def test_truncated_and_no_tcp_is_a_failure(names: NameServer, resolver: Resolver) -> None:
    names.listens_on_tcp = False
    names.add('cut.example', 'TXT', 'y')
    names.truncate('cut.example')
    assert resolver.txt('cut.example').status is Status.FAILED


def test_a_lost_datagram_is_sent_again(names: NameServer, resolver: Resolver) -> None:
    names.add('a.example', 'TXT', 'x')
    names.silent('a.example', times=1)
    assert resolver.txt('a.example').values == (b'x',)


def test_silence_ends_in_time(names: NameServer, resolver: Resolver) -> None:
    names.silent('a.example')
    begin = time.monotonic()
    assert resolver.txt('a.example').status is Status.FAILED
    assert time.monotonic() - begin < 2 * TIMEOUT


def test_a_server_without_edns_is_asked_without(names: NameServer, resolver: Resolver) -> None:
    names.knows_edns = False
    names.add('a.example', 'TXT', 'x')
    assert resolver.txt('a.example').values == (b'x',)
    assert len(names.asked) == 2


def test_ids_and_ports_are_random(names: NameServer, resolver: Resolver) -> None:
    for n in range(30):
        resolver.txt(f'n{n}.example')
    assert len({port for port, _ in names.queries}) > 25
    assert len({query[:2] for _, query in names.queries}) > 25


def test_questions_ask_for_edns_and_for_the_proof(names: NameServer, resolver: Resolver) -> None:
    resolver.txt('a.example')
    query = dns.message.from_wire(names.queries[0][1])
    assert query.edns == 0
    assert query.payload == dns_message.PAYLOAD
    assert query.flags & dns.flags.RD
    assert query.flags & dns.flags.AD


@pytest.mark.parametrize('trouble', ['silent', 'fail'])
def test_another_server_helps_out(names: NameServer, trouble: str) -> None:
    with NameServer() as second:
        for server in (names, second):
            server.add('a.example', 'TXT', 'x')
        getattr(names, trouble)('a.example')
        resolver = Resolver([names.address, second.address], timeout=TIMEOUT)
        assert resolver.txt('a.example').values == (b'x',)
        assert names.count('a.example') == 1


def test_who_kept_silent_is_asked_last_for_a_while(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with NameServer() as second:
        names.silent('a.example')
        resolver = Resolver([names.address, second.address], timeout=TIMEOUT)
        resolver.txt('a.example')
        resolver.txt('b.example')
        assert names.count('b.example') == 0
        clock.ahead += dns_servers.AWAY_TIME + 1
        resolver.txt('c.example')
        assert names.count('c.example') == 1


def test_a_server_that_is_not_there_costs_nothing(names: NameServer) -> None:
    names.add('a.example', 'TXT', 'x')
    with NameServer() as gone:
        address = gone.address
    resolver = Resolver([address, names.address], timeout=5)
    begin = time.monotonic()
    assert resolver.txt('a.example').values == (b'x',)
    assert time.monotonic() - begin < 1


def test_over_ipv6() -> None:
    with NameServer('::1') as server:
        server.add('a.example', 'TXT', 'x')
        server.truncate('a.example')
        resolver = Resolver([f'[::1]:{server.port}'], timeout=TIMEOUT)
        assert resolver.txt('a.example').values == (b'x',)


# -- who is believed


def test_answers_to_other_questions_are_passed_over(names: NameServer, resolver: Resolver) -> None:
    names.add('a.example', 'TXT', 'right')

    def answer(query: bytes, tcp: bool) -> list[bytes]:
        message = dns.message.from_wire(query)
        right = names.response(message)
        wrong_id, wrong_name, wrong_kind, question = (names.response(message) for _ in range(4))
        for one in (wrong_id, wrong_name, wrong_kind):
            one.answer = [dns.rrset.from_text('a.example.', 300, 'IN', 'TXT', 'wrong')]
        wrong_id.id = message.id ^ 1
        wrong_name.question = [dns.rrset.from_text('b.example.', 0, 'IN', 'TXT')]
        wrong_kind.question = [dns.rrset.from_text('a.example.', 0, 'IN', 'A')]
        question.flags &= ~dns.flags.QR
        forged = (wrong_id, wrong_name, wrong_kind, question)
        return [b'', b'x', b'\0' * 12, *(one.to_wire() for one in forged), right.to_wire()]

    names.raw('a.example', answer)
    assert resolver.txt('a.example').values == (b'right',)


def test_records_of_other_names_are_no_answer(names: NameServer, resolver: Resolver) -> None:
    def answer(query: bytes, tcp: bool) -> list[bytes]:
        message = names.response(dns.message.from_wire(query))
        message.answer = [
            dns.rrset.from_text('b.example.', 300, 'IN', 'TXT', 'x'),
            dns.rrset.from_text('a.example.', 300, 'IN', 'A', '192.0.2.1'),
            dns.rrset.from_text('a.example.', 300, 'CH', 'TXT', 'x'),
        ]
        return [message.to_wire()]

    names.add('a.example', 'MX', '0 .')
    names.raw('a.example', answer)
    assert resolver.txt('a.example').status is Status.NO_DATA
    assert resolver.txt('b.example').status is Status.NO_NAME


@pytest.mark.parametrize('authentic', [False, True])
def test_secure_is_what_a_trusted_server_has_proved(names: NameServer, authentic: bool) -> None:
    names.authentic = authentic
    names.add('a.example', 'TXT', 'x')
    names.add('b.example', 'A', '192.0.2.1')
    resolver = Resolver([names.address], timeout=TIMEOUT)
    assert resolver.txt('a.example').secure is authentic
    assert resolver.txt('a.example').secure is authentic  # out of the cache
    assert resolver.addresses('b.example').secure is authentic


@pytest.mark.parametrize('trusted', [False, True])
def test_a_server_elsewhere_is_believed_only_when_told_so(
    names: NameServer, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.authentic = True
    names.add('a.example', 'TXT', 'x')
    real = dns_servers.server
    monkeypatch.setattr(dns_servers, 'server', lambda text: real(text)._replace(loopback=False))
    resolver = Resolver([names.address], timeout=TIMEOUT, trusted=trusted)
    assert resolver.txt('a.example').secure is trusted


def test_an_alias_that_is_not_proved_spoils_the_proof(
    names: NameServer, resolver: Resolver
) -> None:
    names.partial_chains = True
    names.add('a.example', 'CNAME', 'b.example.')
    names.add('b.example', 'TXT', 'x')

    def unproved(query: bytes, tcp: bool) -> list[bytes]:
        return [names.response(dns.message.from_wire(query)).to_wire()]

    def proved(query: bytes, tcp: bool) -> list[bytes]:
        answer = names.response(dns.message.from_wire(query))
        answer.flags |= dns.flags.AD
        return [answer.to_wire()]

    names.raw('a.example', unproved)
    names.raw('b.example', proved)
    assert not resolver.txt('a.example').secure
    assert resolver.txt('b.example').secure


# -- hostile answers


def _records(count: int) -> bytes:
    return b''.join(b'\xc0\x0c\0\x10\0\1\0\0\0\5\0\2\1x' for _ in range(count))


@pytest.mark.parametrize(
    'tail',
    [
        b'\xc0\x0c' * 10,
        struct.pack('!HHHHHH', 0, 0, 0, 0, 0, 0),
        _records(3)[:-1],
        b'\xc0\x0c\0\x10\0\1\xff\xff\xff\xff\xff\xff',
        b'\x3f' + b'x' * 63,
        _records(4000),
    ],
)
def test_broken_answers_are_no_answers(names: NameServer, tail: bytes) -> None:
    def answer(query: bytes, tcp: bool) -> list[bytes]:
        records = 4000 if len(tail) > 5000 else 3
        head = query[:2] + struct.pack('!HHHHH', 0x8180, 1, records, 0, 0)
        question = query[12 : query.index(b'\0', 12) + 5]
        return [(head + question + tail)[: 65535 if tcp else 9000]]

    names.raw('a.example', answer)
    resolver = Resolver([names.address], timeout=0.3)
    assert resolver.txt('a.example').status is Status.FAILED
    names.heal('a.example')


def test_an_answer_with_too_many_records_is_not_read(names: NameServer) -> None:
    limit = dns_message.RECORD_LIMIT - 2  # the question and EDNS count
    names.add('many.example', 'A', *(f'192.0.2.{n}' for n in range(limit)))
    names.add('more.example', 'A', *(f'192.0.2.{n}' for n in range(limit + 1)))
    resolver = Resolver([names.address], timeout=TIMEOUT)
    assert len(resolver.addresses('many.example').values) == limit
    assert resolver.addresses('more.example').status is Status.FAILED


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_any_octets_are_a_message_or_malformed(octets: bytes) -> None:
    try:
        dns_message.read(octets)
    except dns_message.Malformed:
        pass


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_damage_to_an_answer_is_survived(data: st.DataObject) -> None:
    query = dns.message.make_query('a.example', 'MX')
    answer = dns.message.make_response(query)
    answer.answer.append(dns.rrset.from_text('a.example.', 5, 'IN', 'MX', '1 b.a.example.'))
    octets = bytearray(answer.to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        dns_message.read(bytes(octets))
    except dns_message.Malformed:
        pass


def test_a_flood_of_strangers_does_not_keep_us(names: NameServer) -> None:
    names.raw('a.example', lambda query, tcp: [b'x' * 20] * 1000)
    resolver = Resolver([names.address], timeout=10)
    begin = time.monotonic()
    assert resolver.txt('a.example').status is Status.FAILED
    assert time.monotonic() - begin < 5


# -- cache


def test_answers_are_kept_as_long_as_they_say(
    names: NameServer, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    names.add('a.example', 'TXT', 'x', ttl=60)
    assert resolver.txt('a.example').ttl == 60
    clock.ahead += 30
    names.put('a.example', 'TXT', 'y', ttl=60)
    kept = resolver.txt('a.example')
    assert kept.values == (b'x',)
    assert 28 <= kept.ttl <= 30
    clock.ahead += 31
    assert resolver.txt('a.example').values == (b'y',)


def test_no_answer_is_kept_for_ever(
    names: NameServer, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    names.add('a.example', 'TXT', 'x', ttl=2**31 - 1)
    names.add('b.example', 'TXT', 'x', ttl=0)
    assert resolver.txt('a.example').ttl == room.TTL_LIMIT
    clock.ahead += room.TTL_LIMIT + 1
    resolver.txt('a.example')
    assert names.count('a.example') == 2
    resolver.txt('b.example')
    resolver.txt('b.example')
    assert names.count('b.example') == 2


def test_that_there_was_nothing_is_remembered(
    names: NameServer, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    names.add('a.example', 'A', '192.0.2.1')
    for _ in range(3):
        assert resolver.mx('none.example').status is Status.NO_NAME
        assert resolver.mx('a.example').status is Status.NO_DATA
    assert len(names.asked) == 2
    clock.ahead += 61  # the SOA of the test server says a minute
    resolver.mx('none.example')
    assert len(names.asked) == 3


def test_nothing_without_a_term_is_not_remembered(names: NameServer, resolver: Resolver) -> None:
    names.negative_soa = False
    for _ in range(2):
        assert resolver.mx('none.example').status is Status.NO_NAME
    assert len(names.asked) == 2


def test_trouble_is_remembered_for_seconds(
    names: NameServer, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    names.fail('a.example')
    for _ in range(3):
        assert resolver.txt('a.example').status is Status.FAILED
    assert names.count('a.example') == 1
    names.heal('a.example')
    names.add('a.example', 'TXT', 'x')
    clock.ahead += room.FAILURE_TTL + 0.1
    assert resolver.txt('a.example').status is Status.FOUND


def test_the_cache_is_bounded_in_entries_and_octets(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, 'CACHE_LIMIT', 10)
    monkeypatch.setattr(room, 'CACHE_OCTETS', 40_000)
    resolver = Resolver([names.address], timeout=TIMEOUT)
    for n in range(30):
        names.add(f'n{n}.example', 'TXT', 'x')
        resolver.txt(f'n{n}.example')
    assert len(resolver._cache) == 10
    for n in range(30):
        names.add(f'm{n}.example', 'TXT', 'x' * 2000)
        resolver.txt(f'm{n}.example')
    assert resolver._octets < 40_000
    asked = len(names.asked)
    resolver.txt('m29.example')
    resolver.txt('n0.example')
    assert len(names.asked) == asked + 1
    names.add('huge.example', 'TXT', 'x' * 30_000)
    assert resolver.txt('huge.example').status is Status.FOUND
    assert resolver._octets < 40_000
    for key in list(resolver._cache):
        resolver._forget(key)
    assert resolver._octets == 0


# -- many at a time


def test_who_asks_for_the_same_shares_one_answer(names: NameServer, resolver: Resolver) -> None:
    names.add('a.example', 'TXT', 'x')
    names.delay('a.example', 0.2)
    asking = [gevent.spawn(resolver.txt, 'a.example') for _ in range(50)]
    gevent.joinall(asking)
    assert {one.value.values for one in asking} == {(b'x',)}
    assert names.count('a.example') == 1


def test_one_who_gives_up_does_not_take_the_others_with_it(
    names: NameServer, resolver: Resolver
) -> None:
    names.add('a.example', 'TXT', 'x')
    names.delay('a.example', 0.3)
    first = gevent.spawn(resolver.txt, 'a.example')
    gevent.sleep(0.05)
    second = gevent.spawn(resolver.txt, 'a.example')
    gevent.sleep(0.05)
    first.kill()
    answer: Answer[Any] = second.get(timeout=5)
    assert answer.values == (b'x',)


def test_the_loop_goes_on_while_somebody_waits(names: NameServer) -> None:
    # A hundred threads answer at once, which takes a busy machine a while.
    resolver = Resolver([names.address], timeout=10)
    for n in range(100):
        names.add(f'n{n}.example', 'TXT', 'x')
        names.delay(f'n{n}.example', 0.3)
    asking = [gevent.spawn(resolver.txt, f'n{n}.example') for n in range(100)]
    turns = 0
    while not all(one.ready() for one in asking):
        gevent.sleep(0.01)
        turns += 1
    assert turns >= 5
    assert all(one.value.status is Status.FOUND for one in asking)


def test_there_is_a_bound_to_look_ups_at_a_time(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, 'UNDER_WAY', 5)
    resolver = Resolver([names.address], timeout=TIMEOUT)
    for n in range(10):
        names.add(f'n{n}.example', 'TXT', 'x')
        names.delay(f'n{n}.example', 0.1)
    asking = [gevent.spawn(resolver.txt, f'n{n}.example') for n in range(10)]
    gevent.joinall(asking)
    found = [one.value.status for one in asking]
    assert found.count(Status.FOUND) == found.count(Status.FAILED) == 5
    assert resolver.txt('n9.example').status is Status.FOUND


# -- which servers


def test_servers_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / 'resolv.conf'
    path.write_text(
        '# comment\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch x\nnameserver rubbish\n'
        'nameserver 192.0.2.2 \nnameserver 192.0.2.3\n'
    )
    found = [server.address[:2] for server in dns_servers.system_servers(path)]
    assert found == [('192.0.2.1', 53), ('2001:db8::1', 53), ('192.0.2.2', 53)]
    path.write_text('')
    assert dns_servers.system_servers(path)[0].loopback
    assert dns_servers.system_servers(tmp_path / 'none')[0].address == ('127.0.0.1', 53)


def test_changes_of_resolv_conf_are_noticed(
    names: NameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    names.add('a.example', 'TXT', 'x')
    path = tmp_path / 'resolv.conf'
    path.write_text('nameserver 127.0.0.1\n')
    monkeypatch.setattr(dns_servers, 'RESOLV_CONF', path)
    monkeypatch.setattr(
        dns_servers,
        'system_servers',
        lambda: [
            dns_servers.server(names.address if 'right' in path.read_text() else '127.0.0.1:1')
        ],
    )
    resolver = Resolver(None, timeout=TIMEOUT)
    assert resolver.txt('a.example').status is Status.FAILED
    path.write_text('# the right one now\n')
    clock.ahead += max(dns_servers.RECHECK, room.FAILURE_TTL) + 1
    assert resolver.txt('a.example').status is Status.FOUND


@pytest.mark.parametrize(
    ('text', 'address'),
    [
        ('192.0.2.1', ('192.0.2.1', 53)),
        ('192.0.2.1:5353', ('192.0.2.1', 5353)),
        ('localhost:54', ('127.0.0.1', 54)),
        ('[::1]:5353', ('::1', 5353)),
        ('::1', ('::1', 53)),
    ],
)
def test_how_a_server_is_written(text: str, address: tuple[str, int]) -> None:
    assert dns_servers.server(text).address[:2] == address


@pytest.mark.parametrize('servers', [[], ['ns.example'], [''], ['1.2.3']])
def test_servers_are_named_by_their_address(servers: list[str]) -> None:
    with pytest.raises(ValueError):
        Resolver(servers)


def test_the_settings_name_servers(names: NameServer) -> None:
    names.authentic = True
    names.add('a.example', 'TXT', 'x')
    given = Settings.defaults(dns__servers=[names.address])
    assert Resolver.configured(given).txt('a.example').values == (b'x',)
    Resolver.configured(Settings.defaults())
