"""What clients ask and are answered, over datagrams."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import pytest

from madmail.realtime.turn import message
from madmail.realtime.turn.limits import Bucket, take
from madmail.realtime.turn.message import Address, read_error_code
from madmail.realtime.turn.probe import probe
from madmail.realtime.turn.process import NOTHING
from tests.realtime.turn.client import Denied, TurnClient
from tests.realtime.turn.conftest import Peer, Rig

TRANSPORT = (message.REQUESTED_TRANSPORT, message.family(message.UDP))


def code(answer: message.Message) -> int:
    return read_error_code(answer.get(message.ERROR_CODE) or b'')


@pytest.mark.parametrize('transport', ['udp', 'udp6', 'tcp', 'tls'])
def test_binding_tells_where_one_comes_from(rig: Rig, transport: str) -> None:
    client = rig.client(transport)
    answer = client.ask(message.BINDING, [])
    own = client.socket.getsockname()
    assert client.address(answer, message.XOR_MAPPED_ADDRESS) == Address(own[0], own[1])
    assert [number for number, _ in answer.attributes] == [message.XOR_MAPPED_ADDRESS]


@pytest.mark.parametrize('transport', ['udp', 'tcp', 'tls'])
def test_allocate_as_browsers_do(rig: Rig, transport: str) -> None:
    client = rig.client(transport)
    first = client.ask(message.ALLOCATE, [TRANSPORT])
    assert code(first) == 401
    assert first.get(message.REALM) == b'chat.example'
    client.nonce = first.get(message.NONCE) or b''
    answer = client.ask(message.ALLOCATE, [TRANSPORT, *client.proof()], client.key)
    assert answer.kind == message.SUCCESS
    assert answer.verifies(client.key)
    assert [number for number, _ in answer.attributes] == [
        message.XOR_RELAYED_ADDRESS,
        message.LIFETIME,
        message.XOR_MAPPED_ADDRESS,
        message.MESSAGE_INTEGRITY,
    ]
    relayed = client.address(answer, message.XOR_RELAYED_ADDRESS)
    assert relayed.host == '127.0.0.1'
    assert relayed.port in range(20000, 21000)
    assert answer.get(message.LIFETIME) == (600).to_bytes(4, 'big')


def test_an_allocate_said_again_is_answered_the_same(rig: Rig) -> None:
    client = rig.client()
    client.nonce = client.ask(message.ALLOCATE, [TRANSPORT]).get(message.NONCE) or b''
    transaction = os.urandom(12)
    answers = [
        client.ask(message.ALLOCATE, [TRANSPORT, *client.proof()], client.key, transaction)
        for _ in range(2)
    ]
    relayed = {client.address(one, message.XOR_RELAYED_ADDRESS) for one in answers}
    assert len(relayed) == 1
    assert client.denied(message.ALLOCATE, [TRANSPORT]) == 437
    assert rig.ask(lambda: len(rig.server.allocations)) == 1


@pytest.mark.parametrize('missing', [message.USERNAME, message.REALM, message.NONCE])
def test_a_proof_that_lacks_something_is_a_bad_request(rig: Rig, missing: int) -> None:
    client = rig.client()
    client.nonce = client.ask(message.ALLOCATE, [TRANSPORT]).get(message.NONCE) or b''
    proof = [pair for pair in client.proof() if pair[0] != missing]
    assert code(client.ask(message.ALLOCATE, [TRANSPORT, *proof], client.key)) == 400


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'nonce': b'made-up'}, 438),
        ({'nonce': b'A' * 32}, 438),
        ({'realm': 'other.example'}, 401),
        ({'name': '1000000000'}, 401),
        ({'name': str(int(time.time()) + 90000)}, 401),
        ({'name': 'alice'}, 401),
        ({'key': b'k' * 16}, 401),
    ],
)
def test_wrong_proofs(rig: Rig, changes: dict[str, object], expected: int) -> None:
    client = rig.client()
    client.nonce = client.ask(message.ALLOCATE, [TRANSPORT]).get(message.NONCE) or b''
    for name, value in changes.items():
        setattr(client, name, value)
    answer = client.ask(message.ALLOCATE, [TRANSPORT, *client.proof()], client.key)
    assert code(answer) == expected
    assert answer.get(message.NONCE)
    assert answer.get(message.REALM) == b'chat.example'
    assert rig.ask(lambda: len(rig.server.allocations)) == 0


def test_a_nonce_of_another_address_is_stale(rig: Rig) -> None:
    nonce = rig.server.nonces.fresh('192.0.2.1', time.time())
    client = rig.client()
    client.nonce = nonce
    with pytest.raises(Denied) as denied:
        client.allocate()
    assert denied.value.code == 438


def test_a_nonce_that_grows_old_in_a_call_is_replaced(rig: Rig) -> None:
    client = rig.client()
    client.allocate()
    client.nonce = rig.server.nonces.fresh('127.0.0.1', time.time() - 3700)
    with pytest.raises(Denied) as denied:
        client.refresh(600)
    assert denied.value.code == 438
    assert denied.value.answer.get(message.REALM) == b'chat.example'
    client.nonce = denied.value.answer.get(message.NONCE) or b''
    assert client.refresh(600) == 600


def test_a_former_secret_counts(rig: Rig) -> None:
    rig.reconfigure(secrets=(b'south', b'north'))
    rig.client(secret=b'north').allocate()
    rig.client(secret=b'south').allocate()
    rig.reconfigure(secrets=(b'south',))
    with pytest.raises(Denied):
        rig.client(secret=b'north').allocate()


def test_an_allocation_outlives_the_credentials_and_their_secret(rig: Rig) -> None:
    client = rig.client()
    client.allocate()
    rig.reconfigure(secrets=(b'another',), life=0)
    assert client.refresh(1200) == 1200
    client.permit(Address('127.0.0.2', 1))


def test_what_must_be_understood_and_is_not(rig: Rig) -> None:
    client = rig.client()
    with pytest.raises(Denied) as denied:
        client.request(message.ALLOCATE, [TRANSPORT, (0x7001, b'x'), (0x001D, b'y')])
    assert denied.value.code == 420
    assert denied.value.answer.verifies(client.key)
    assert denied.value.answer.get(message.UNKNOWN_ATTRIBUTES) == b'\x70\x01\x00\x1d'
    client.allocate((0xFF05, b'optional'))


@pytest.mark.parametrize(
    ('attributes', 'expected'),
    [
        ([], 400),
        ([(message.REQUESTED_TRANSPORT, b'\x11')], 400),
        ([(message.REQUESTED_TRANSPORT, message.family(99))], 442),
        ([(message.REQUESTED_TRANSPORT, message.family(message.TCP))], 400),  # over UDP
        ([TRANSPORT, (message.REQUESTED_ADDRESS_FAMILY, message.family(3))], 440),
        ([TRANSPORT, (message.REQUESTED_ADDRESS_FAMILY, b'')], 400),
        ([TRANSPORT, (message.RESERVATION_TOKEN, bytes(8))], 508),
        ([TRANSPORT, (message.RESERVATION_TOKEN, bytes(7))], 400),
        ([TRANSPORT, (message.RESERVATION_TOKEN, bytes(8)), (message.EVEN_PORT, b'\0')], 400),
        ([TRANSPORT, (message.EVEN_PORT, b'')], 400),
        ([TRANSPORT, (message.LIFETIME, b'\0')], 400),
        (
            [
                TRANSPORT,
                (message.REQUESTED_ADDRESS_FAMILY, message.family(1)),
                (message.ADDITIONAL_ADDRESS_FAMILY, message.family(2)),
            ],
            400,
        ),
    ],
)
def test_wrong_allocates(rig: Rig, attributes: list[tuple[int, bytes]], expected: int) -> None:
    assert rig.client().denied(message.ALLOCATE, attributes) == expected


@pytest.mark.parametrize(
    ('asked', 'given'), [(None, 600), (5, 600), (601, 601), (3600, 3600), (0xFFFFFFFF, 3600)]
)
def test_lifetimes(rig: Rig, asked: int | None, given: int) -> None:
    client = rig.client()
    more = [] if asked is None else [message.lifetime(asked)]
    answer = client.request(message.ALLOCATE, [TRANSPORT, *more])
    assert answer.get(message.LIFETIME) == given.to_bytes(4, 'big')
    if asked is not None:
        assert client.refresh(asked) == given


def test_refresh_to_zero_ends_it_and_the_port_rests(rig: Rig) -> None:
    client = rig.client()
    relayed = client.allocate()
    assert client.refresh(0) == 0
    assert client.denied(message.REFRESH, [message.lifetime(0)]) == 437
    assert rig.ask(lambda: len(rig.server.allocations)) == 0
    rig.reconfigure(ports=range(relayed.port, relayed.port + 2))
    ports = rig.server.ports
    assert ports.range == range(relayed.port, relayed.port + 2)
    client = rig.client()
    first = client.allocate()
    client.refresh(0)
    client = rig.client()
    assert client.allocate().port != first.port
    client = rig.client()
    assert client.denied(message.ALLOCATE, [TRANSPORT]) == 508
    rig.pass_time(61)
    assert client.allocate().port == first.port


def test_requests_without_an_allocation_are_answered(rig: Rig) -> None:
    client = rig.client()
    assert client.denied(message.REFRESH, []) == 437
    with pytest.raises(Denied, match='437'):
        client.permit(Address('127.0.0.2', 1))
    with pytest.raises(Denied, match='437'):
        client.bind(0x4000, Address('127.0.0.2', 1))


def test_another_user_cannot_use_the_allocation(rig: Rig) -> None:
    client = rig.client()
    client.allocate()
    other = TurnClient(rig.addresses['udp'], name=str(int(time.time()) + 999))
    client.name, client.key = other.name, other.key
    other.close()
    assert client.denied(message.REFRESH, []) == 441
    with pytest.raises(Denied, match='441'):
        client.permit(Address('127.0.0.2', 1))


def test_families(rig: Rig) -> None:
    client = rig.client()
    six = (message.REQUESTED_ADDRESS_FAMILY, message.family(message.IPV6))
    assert client.allocate(six).host == '::1'
    with pytest.raises(Denied, match='443'):
        client.permit(Address('127.0.0.2', 1))
    with pytest.raises(Denied, match='443'):
        client.bind(0x4000, Address('127.0.0.2', 1))
    four = (message.REQUESTED_ADDRESS_FAMILY, message.family(message.IPV4))
    assert client.denied(message.REFRESH, [four]) == 443
    assert rig.client('udp6').allocate().host == '127.0.0.1'  # IPv4 unless asked


def test_even_ports_and_pairs(rig: Rig) -> None:
    assert rig.client().allocate((message.EVEN_PORT, b'\0')).port % 2 == 0
    client = rig.client()
    answer = client.request(message.ALLOCATE, [TRANSPORT, (message.EVEN_PORT, b'\x80')])
    first = client.address(answer, message.XOR_RELAYED_ADDRESS)
    token = answer.get(message.RESERVATION_TOKEN)
    assert first.port % 2 == 0
    assert token is not None
    second = rig.client()
    assert second.allocate((message.RESERVATION_TOKEN, token)).port == first.port + 1
    third = rig.client()
    assert third.denied(message.ALLOCATE, [TRANSPORT, (message.RESERVATION_TOKEN, token)]) == 508


def test_a_reservation_ends(rig: Rig) -> None:
    client = rig.client()
    answer = client.request(message.ALLOCATE, [TRANSPORT, (message.EVEN_PORT, b'\x80')])
    token = answer.get(message.RESERVATION_TOKEN) or b''
    rig.pass_time(31)
    late = rig.client()
    assert late.denied(message.ALLOCATE, [TRANSPORT, (message.RESERVATION_TOKEN, token)]) == 508


def test_private_and_own_peers_are_forbidden(rig: Rig) -> None:
    rig.reconfigure(allowed=())
    client = rig.client()
    client.allocate()
    for host in ('127.0.0.2', '10.0.0.1', '192.168.1.1', '169.254.169.254'):
        with pytest.raises(Denied, match='403'):
            client.permit(Address('8.8.8.8', 1), Address(host, 1))
        with pytest.raises(Denied, match='403'):
            client.bind(0x4000, Address(host, 50000))
    port = rig.addresses['udp'][1]
    with pytest.raises(Denied, match='403'):
        client.bind(0x4000, Address('127.0.0.1', port))  # our own door
    assert rig.ask(lambda: [len(a.permissions) for a in rig.server.allocations]) == [0]


def test_channel_numbers(rig: Rig) -> None:
    client = rig.client()
    client.allocate()
    one, two = Address('127.0.0.2', 5000), Address('127.0.0.2', 5001)
    for number in (0, 0x3FFF, 0x8000, 0xFFFF):
        with pytest.raises(Denied, match='400'):
            client.bind(number, one)
    client.bind(0x4000, one)
    client.bind(0x4000, one)
    with pytest.raises(Denied, match='400'):
        client.bind(0x4000, two)
    with pytest.raises(Denied, match='400'):
        client.bind(0x4001, one)
    client.bind(0x7FFF, two)
    number = (message.CHANNEL_NUMBER, b'\x40\x03\0\0')
    assert client.denied(message.CHANNEL_BIND, [number]) == 400


def test_a_permission_without_a_peer_is_a_bad_request(rig: Rig) -> None:
    client = rig.client()
    client.allocate()
    with pytest.raises(Denied, match='400'):
        client.permit()
    assert client.denied(message.CREATE_PERMISSION, [(message.XOR_PEER_ADDRESS, b'123')]) == 400


def test_quotas(rig: Rig) -> None:
    rig.limit(per_account=2, per_address=3, permissions=2, channels=1)
    first = rig.client()
    first.allocate()
    rig.client(name=first.name).allocate()
    assert rig.client(name=first.name).denied(message.ALLOCATE, [TRANSPORT]) == 486
    other = rig.client(name=str(int(first.name) + 1))
    other.allocate()
    third = rig.client(name=str(int(first.name) + 2))
    assert third.denied(message.ALLOCATE, [TRANSPORT]) == 486
    first.permit(Address('127.0.0.2', 1), Address('127.0.0.3', 1))
    with pytest.raises(Denied, match='508'):
        first.permit(Address('127.0.0.4', 1))
    first.bind(0x4000, Address('127.0.0.2', 1))
    with pytest.raises(Denied, match='508'):
        first.bind(0x4001, Address('127.0.0.2', 2))
    first.refresh(0)
    third.allocate()
    rig.limit(total=3, per_account=0, per_address=0)
    assert rig.client().denied(message.ALLOCATE, [TRANSPORT]) == 486


def test_everything_ends_when_its_time_is_over(rig: Rig, peer: Peer) -> None:
    client = rig.client()
    client.allocate()
    client.permit(Address('127.0.0.3', 1))
    client.bind(0x4000, peer.address)
    rig.pass_time(301)
    (allocation,) = rig.server.allocations
    assert allocation.permissions == {}
    assert list(allocation.out) == [0x4000]
    client.refresh(3600)
    rig.pass_time(601)
    assert allocation.out == {}
    assert allocation.channels == {}
    with pytest.raises(Denied, match='400'):
        client.bind(0x4000, Address('127.0.0.2', 1))  # it rests
    rig.pass_time(901)
    assert allocation.bound == {}
    rig.pass_time(3602)
    assert rig.ask(lambda: len(rig.server.allocations)) == 0
    assert rig.server.relayed == {}
    assert rig.server.accounts == {}
    assert not rig.server.networks


def test_figures(rig: Rig, peer: Peer) -> None:
    client = rig.client()
    client.allocate()
    client.bind(0x4000, peer.address)
    client.channel_data(0x4000, bytes(1000))
    _, at = peer.receive()
    peer.send(bytes(300), at)
    client.receive()
    found = rig.ask(rig.server.statistics)
    assert found['relays'] == 1
    assert found['octets'] == {'turn': {'received': 1000, 'sent': 300}}
    assert rig.ask(rig.server.weigh) == {(client.name, False): 1000, (client.name, True): 300}
    assert rig.ask(rig.server.weigh) == {}


def test_names_that_ended_lose_what_they_have_and_get_nothing(rig: Rig) -> None:
    gone, stays = rig.client(), rig.client(name=str(int(time.time()) + 3000))
    gone.allocate()
    stays.allocate()
    rig.ask(lambda: rig.server.end([gone.name]))
    assert rig.ask(lambda: len(rig.server.allocations)) == 1
    assert stays.refresh(600) == 600
    with pytest.raises(Denied, match='401'):
        gone.refresh(600)
    other = rig.client(name=gone.name)
    with pytest.raises(Denied, match='401'):
        other.allocate()


def test_names_that_ended_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('madmail.realtime.turn.server.ENDED_LIMIT', 3)
    soon = int(time.time()) + 3600
    rig.ask(lambda: rig.server.end(['1', '2', *(str(soon + n) for n in range(5))]))
    assert list(rig.server.ended) == [str(soon + n) for n in (2, 3, 4)]


def told(**held: Any) -> dict[str, Any]:
    """By process 1."""
    nothing: dict[str, Any] = {'by': 1, 'accounts': {}, 'networks': {}, 'ports': {}, 'total': 0}
    nothing['whole'] = False
    return {**nothing, **held}


def test_what_other_processes_hold_counts(rig: Rig) -> None:
    rig.reconfigure(alone=False)
    rig.limit(per_account=2, per_address=4, total=6)
    client = rig.client()

    def allocates(**held: Any) -> bool:
        rig.ask(lambda: rig.server.learn(told(**held)))
        if client.denied(message.ALLOCATE, [TRANSPORT]):
            return False
        client.refresh(0)
        return True

    assert allocates(accounts={client.name: 1})
    assert not allocates(accounts={client.name: 2})
    assert allocates(accounts={client.name: 0})
    assert allocates(networks={'127.0.0.1': 3})
    assert not allocates(networks={'127.0.0.1': 4})
    assert not allocates(accounts={'somebody': 4}, total=6)
    assert not allocates(networks={'127.0.0.1': 4}, whole=True)
    assert allocates(whole=True)  # it has begun anew
    assert not allocates(accounts={client.name: 2})
    rig.reconfigure(alone=True)
    assert allocates()


def test_other_processes_are_told_what_is_held(rig: Rig) -> None:
    heard: list[dict[str, Any]] = []
    rig.server.tell = heard.append
    rig.reconfigure(alone=False)
    one, other = rig.client(), rig.client()
    relayed = [one.allocate(), other.allocate()]
    assert rig.ask(rig.server.held)['accounts'] == {one.name: 2}
    one.refresh(0)
    other.refresh(0)
    assert [each['accounts'] for each in heard] == [{one.name: n} for n in (1, 2, 1, 0)]
    assert [each['networks'] for each in heard] == [{'127.0.0.1': n} for n in (1, 2, 1, 0)]
    assert [each['total'] for each in heard] == [1, 2, 1, 0]
    assert rig.ask(rig.server.held) == NOTHING
    ports = [each['ports'] for each in heard]
    assert ports[:2] == [{f'udp1 {address.port}': 1} for address in relayed]
    assert ports[2] == {f'udp1 {relayed[0].port}': 0}


def test_the_rate_of_an_account_is_shared_by_its_relays(rig: Rig) -> None:
    rig.reconfigure(alone=False)
    rig.limit(account_rate=1_000_000)
    client = rig.client()
    client.allocate()

    def rate() -> int:
        found: int = rig.ask(lambda: rig.server.accounts[client.name].bucket.rate)
        return found

    assert rate() == 1_000_000
    rig.ask(lambda: rig.server.learn(told(accounts={client.name: 3})))
    assert rate() == 250_000
    second = rig.client()
    second.allocate()
    assert rate() == 400_000
    rig.limit(account_rate=0)
    assert rate() == 0
    rig.limit(account_rate=500_000)
    assert rate() == 200_000
    rig.ask(lambda: rig.server.learn(told(whole=True)))
    assert rate() == 500_000


def test_a_bucket_keeps_its_level_when_its_rate_changes() -> None:
    bucket = Bucket(1_000_000, 0.0)
    assert take(0.0, 600_000, (bucket,)) == 600_000
    bucket.change(500_000, 0.0)
    assert bucket.look(0.0) == 100_000
    assert bucket.look(100.0) == 350_000
    bucket.change(0, 100.0)
    assert take(100.0, 10_000_000, (bucket,)) == 10_000_000
    bucket.change(500_000, 100.0)
    assert bucket.look(100.0) == 350_000


def test_a_server_that_is_full_answers_its_probe_all_the_same(rig: Rig) -> None:
    """Only one that cannot relay does not."""
    at = (socket.AF_INET, rig.addresses['udp'])
    ours = ('chat.example', b'north')
    assert probe(at, ours)
    assert not probe(at, ('chat.example', b'south'))
    rig.client().allocate()
    rig.limit(total=1)
    assert probe(at, ours)
    rig.limit(total=0)
    rig.reconfigure(bound={1: '203.0.113.9'})
    assert not probe(at, ours)
