"""Strangers: floods, forged and broken octets; answered by silence, memory bounded."""

from __future__ import annotations

import os
import random
import time

import pytest

from madmail.realtime.turn import message
from madmail.realtime.turn.message import Address, build
from tests.realtime.turn.conftest import Peer, Rig

TRANSPORT = (message.REQUESTED_TRANSPORT, message.family(message.UDP))


def test_strangers_get_few_answers(rig: Rig) -> None:
    client = rig.client()
    client.socket.settimeout(0.3)
    for number in range(1000):
        client.socket.send(build(message.REQUEST, message.ALLOCATE, os.urandom(12), [TRANSPORT]))
        if number % 50 == 0:
            rig.ask(lambda: None)  # none is lost on its way
    answers = 0
    try:
        while client.socket.recv(2048):
            answers += 1
    except TimeoutError:
        pass
    assert 50 <= answers < 500
    assert rig.dropped('stranger') == 1000 - answers


def test_an_answer_to_a_stranger_is_not_much_longer_than_the_question(rig: Rig) -> None:
    client = rig.client()
    question = build(message.REQUEST, message.ALLOCATE, os.urandom(12), [TRANSPORT])
    client.socket.send(question)
    assert len(client.socket.recv(2048)) < 4 * len(question)
    question = build(message.REQUEST, message.BINDING, os.urandom(12), fingerprint=False)
    client.socket.send(question)
    assert len(client.socket.recv(2048)) <= 2 * len(question)


def test_questions_of_strangers_leave_nothing_behind(rig: Rig) -> None:
    for number in range(200):
        client = rig.client()
        client.socket.send(build(message.REQUEST, message.ALLOCATE, os.urandom(12), [TRANSPORT]))
        client.socket.send(b'\x40\0\0\4data')
        client.close()
        if number % 50 == 0:
            rig.ask(lambda: None)
    assert rig.ask(lambda: [len(door.clients) for door in rig.server._doors]) == [0, 0]
    assert not rig.server.accounts
    assert not rig.server.networks


def test_a_replayed_request_of_another_client_does_nothing(rig: Rig) -> None:
    """Seen on the wire and sent again from elsewhere: the nonce is for another address."""
    client = rig.client()
    client.nonce = rig.server.nonces.fresh('192.0.2.1', time.time())
    for method in (message.ALLOCATE, message.REFRESH, message.CREATE_PERMISSION):
        request = build(
            message.REQUEST, method, os.urandom(12), [TRANSPORT, *client.proof()], client.key
        )
        client.socket.send(request)
        answer = message.parse(client.socket.recv(2048))
        code = message.read_error_code(answer.get(message.ERROR_CODE) or b'')
        assert code == 438
    assert not rig.server.allocations


def test_allocations_of_one_address_come_slowly(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.limit(per_account=0, per_address=0)
    codes = [rig.client().denied(message.ALLOCATE, [TRANSPORT]) for _ in range(30)]
    assert codes[:20] == [0] * 20
    assert 486 in codes[20:]


@pytest.mark.parametrize('seed', range(4))
def test_broken_messages_at_every_door(rig: Rig, peer: Peer, seed: int) -> None:
    """Whatever is changed in good messages, the server goes on and answers the next one."""
    chance = random.Random(seed)
    client = rig.client()
    client.allocate()
    client.bind(0x4000, peer.address)
    transaction = os.urandom(12)
    at = (message.XOR_PEER_ADDRESS, message.xor_address(Address('127.0.0.2', 9), transaction))
    good = [
        build(message.REQUEST, method, transaction, [TRANSPORT, at, *client.proof()], client.key)
        for method in range(1, 13)
    ]
    good += [
        build(message.INDICATION, message.SEND, transaction, [at, (message.DATA, b'x' * 50)]),
        b'\x40\0\0\x10' + bytes(16),
        b'\x4f\xff\0\x10' + bytes(16),
    ]
    for _ in range(600):
        data = bytearray(chance.choice(good))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        client.socket.send(bytes(data))
    for _ in range(40):
        stream = rig.client(chance.choice(['tcp', 'tls']))
        data = bytearray(chance.choice(good) + chance.choice(good))
        data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            stream.socket.sendall(bytes(data))
        except OSError:
            pass
        stream.close()
    fresh = rig.client('tcp')
    fresh.ask(message.BINDING, [])
    assert rig.thread.is_alive()
    from madmail import log

    assert not log.exceptions.get('turn')


def test_broken_packets_of_peers(rig: Rig, peer: Peer) -> None:
    client = rig.client()
    relayed = client.allocate()
    client.permit(peer.address)
    chance = random.Random(1)
    for _ in range(200):
        peer.send(chance.randbytes(chance.randrange(200)), relayed)
        message.parse(client.receive())
