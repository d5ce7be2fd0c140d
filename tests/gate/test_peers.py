from __future__ import annotations

from mmap import mmap

import pytest

from madmail.gate import peers
from madmail.gate.peers import SIZE, SLOTS, Peers, forget


@pytest.fixture
def shared() -> mmap:
    return mmap(-1, SIZE)


def test_gates_see_each_other_s_connections(shared: mmap) -> None:
    one, two = Peers(shared, 0), Peers(shared, SLOTS - 1)
    peer = one.origin('192.0.2.1')[0]
    assert two.origin('192.0.2.1')[0] == peer
    one.opened(peer)
    two.opened(peer)
    two.opened(peer)
    assert one.connections(peer) == two.connections(peer) == 3
    assert one.total() == 3
    assert one.connections(one.origin('192.0.2.2')[0]) == 0
    two.closed(peer)
    assert one.connections(peer) == 2


def test_a_dead_gate_s_connections_are_forgotten(shared: mmap) -> None:
    one, two = Peers(shared, 3), Peers(shared, 4)
    peers_ = [one.origin(f'10.0.{n // 256}.{n % 256}')[0] for n in range(500)]
    for peer in peers_:
        one.opened(peer)
    two.opened(peers_[0])
    forget(shared, 3)
    assert one.total() == 1
    assert [one.connections(peer) for peer in peers_[1:]].count(0) >= 495
    one.closed(peers_[0])  # a gate that lived after all survives it
    assert one.connections(peers_[0]) == 1


def test_ipv6_counts_by_network_and_mapped_ipv4_as_ipv4(shared: mmap) -> None:
    view = Peers(shared, 0)
    assert view.origin('2001:db8:1:2::1')[0] == view.origin('2001:db8:1:2:ffff::9')[0]
    assert view.origin('2001:db8:1:2::1')[0] != view.origin('2001:db8:1:3::1')[0]
    assert view.origin('::ffff:192.0.2.1')[0] == view.origin('192.0.2.1')[0]
    assert view.origin('fe80::1%eth0')[0] == view.origin('fe80::2')[0]


def test_the_hash_is_keyed(shared: mmap) -> None:
    other = Peers(mmap(-1, SIZE), 0)
    assert Peers(shared, 0).origin('192.0.2.1')[0] != other.origin('192.0.2.1')[0]


def test_rates_slide_over_a_minute(shared: mmap, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [6000.0]
    monkeypatch.setattr(peers.time, 'monotonic', lambda: now[0])
    one, two = Peers(shared, 0), Peers(shared, 1)
    peer = one.origin('192.0.2.1')[0]
    for _ in range(6):
        one.count_login(peer)
    for _ in range(4):
        two.count_login(peer)
    assert one.logins(peer) == 10
    now[0] = 6059.0
    assert one.logins(peer) == 10
    now[0] = 6060.0
    assert one.logins(peer) == 10
    one.count_login(peer)
    now[0] = 6090.0
    assert two.logins(peer) == 1 + 10 / 2
    now[0] = 6120.0
    assert two.logins(peer) == 1
    now[0] = 6240.0
    assert two.logins(peer) == 0
    two.count_login(peer)
    assert one.logins(peer) == 1


def test_counts_are_never_too_low_among_many(shared: mmap) -> None:
    view = Peers(shared, 0)
    found = [view.origin(f'10.{n >> 16}.{n >> 8 & 255}.{n & 255}')[0] for n in range(3000)]
    for peer in found:
        view.opened(peer)
        view.opened(peer)
    counts = [view.connections(peer) for peer in found]
    assert min(counts) == 2
    assert sum(counts) / len(counts) < 4
    for peer in found:
        view.closed(peer)
        view.closed(peer)
    assert not any(view.connections(peer) for peer in found)


def test_wrong_slots_and_maps_are_refused(shared: mmap) -> None:
    with pytest.raises(ValueError, match=f'at most {SLOTS} gates'):
        Peers(shared, SLOTS)
    with pytest.raises(ValueError, match='octets'):
        Peers(mmap(-1, 4096), 0)
