"""Which peers may be reached."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from madmail.realtime.turn.addresses import Policy, own_addresses
from madmail.realtime.turn.limits import Bucket, network, take

OURS = '8.8.4.4'
POLICY = Policy([OURS, '2a00::1'], [OURS, '10.1.1.1', '9.9.9.9'], (), range(50000, 50100))


@pytest.mark.parametrize(
    'host',
    [
        '0.0.0.0',
        '10.0.0.1',
        '100.64.0.1',
        '127.0.0.1',
        '169.254.169.254',
        '172.16.0.1',
        '172.31.255.255',
        '192.0.0.8',
        '192.0.2.1',
        '192.168.1.1',
        '198.18.0.1',
        '224.0.0.1',
        '255.255.255.255',
        '9.9.9.9',  # of this host
        '::',
        '::1',
        '::7f00:1',
        '::ffff:127.0.0.1',
        '64:ff9b::a00:1',
        '64:ff9b:1::1',
        '2002:7f00:1::1',
        '2002:a00:1::1',
        f'64:ff9b::{0x08080404:x}'.replace('8080404', '808:404'),  # ours, otherwise spelt
        '2001::1',
        '2001:db8::1',
        'fc00::1',
        'fd12::1',
        'fe80::1',
        'ff02::1',
    ],
)
def test_denied(host: str) -> None:
    assert not POLICY.allows(host)
    assert not POLICY.allows(host)  # from memory as well
    assert not POLICY.reaches(host, 50001)


@pytest.mark.parametrize('host', ['8.8.8.8', '172.32.0.1', '2a00:1450::1', '64:ff9b::808:808'])
def test_allowed(host: str) -> None:
    assert POLICY.allows(host)
    assert POLICY.reaches(host, 1)
    assert not POLICY.reaches(host, 0)


def test_of_our_own_only_relays_are_reached() -> None:
    assert POLICY.allows(OURS)
    assert POLICY.reaches(OURS, 50000)
    assert POLICY.reaches('2a00::1', 50099)
    assert not POLICY.reaches(OURS, 3478)
    assert not POLICY.reaches(OURS, 50100)


def test_the_operator_may_allow_more_but_not_this_host() -> None:
    policy = Policy([], ['10.1.1.1'], [ip_network('10.0.0.0/8')])
    assert policy.allows('10.2.2.2')
    assert not policy.allows('10.1.1.1')
    assert not policy.allows('192.168.1.1')


def test_verdicts_are_forgotten_before_they_fill_the_memory() -> None:
    policy = Policy([], [])
    for number in range(20_500):
        policy.allows(f'8.{number >> 16}.{number >> 8 & 255}.{number & 255}')
    assert len(policy._verdicts) <= 10_000


def test_this_host_knows_its_addresses() -> None:
    assert '127.0.0.1' in own_addresses()


def test_networks_of_strangers() -> None:
    assert network('192.0.2.7') == '192.0.2.7'
    assert network('2001:db8:1:2:3::4') == network('2001:db8:1:2:ffff::1')
    assert network('2001:db8:1:2::1') != network('2001:db8:1:3::1')


def test_what_is_granted_comes_out_of_every_bucket() -> None:
    mine, all_ = Bucket(1_000_000, 0.0), Bucket(200_000, 0.0)
    total = 0
    while granted := take(0.0, 16384, (mine, all_)):
        total += granted
    assert total == int(all_.depth)
    assert take(0.5, 10**9, (mine, all_)) == 100_000
    assert mine.look(0.5) == mine.depth - total + 500_000 - 100_000 or mine.look(0.5) > 0
    assert take(100.0, 16384, (Bucket(0, 0.0),)) == 16384
