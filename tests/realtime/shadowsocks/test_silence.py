"""Who does not know the password learns nothing, and takes no room."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket as green

from madmail.realtime.shadowsocks import proxy
from madmail.realtime.shadowsocks.methods import METHODS, TAG
from madmail.realtime.shadowsocks.stream import SIZE
from tests.realtime.shadowsocks.rig import PATIENCE, Rig, eventually

CIPHERS = ('chacha20-ietf-poly1305', '2022-blake3-aes-128-gcm')
SHORTEST, LONGEST = 0.6, 1.2  # seconds here, in place of half a minute and two


@pytest.fixture(params=CIPHERS)
def rig(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rig]:
    monkeypatch.setattr(proxy, 'SHORTEST', SHORTEST)
    monkeypatch.setattr(proxy, 'LONGEST', LONGEST)
    with Rig(tmp_path, shadowsocks__cipher=request.param) as rig:
        yield rig


def seen(rig: Rig, *said: bytes, pause: float = 0.02) -> tuple[bytes, float]:
    """What a prober sees: what it hears until the end of the stream, and when that was.

    Raises when the stream ends in a reset.
    """
    begin = time.monotonic()
    with rig.knock() as stream:
        for piece in said:
            stream.sendall(piece)
            gevent.sleep(pause)
        return stream.recv(65536), time.monotonic() - begin


def probes(rig: Rig) -> dict[str, tuple[bytes, ...]]:
    """By name what probers say."""
    method = METHODS[rig.settings['shadowsocks.cipher']]
    front = method.size + (11 + TAG if method.modern else SIZE)
    recorded = rig.request(rig.call(), b'hello')
    client = rig.knock()
    client.sendall(recorded)
    answer = client.recv(65536)
    assert answer
    client.close()
    flipped = {
        f'bit in octet {at}': (recorded[:at] + bytes((recorded[at] ^ 1,)) + recorded[at + 1 :],)
        for at in (0, method.size - 1, method.size, front - 1)
    }
    fresh = [rig.request(rig.call(), b'hello') for _ in range(3)]
    behind = fresh[0][:front] + bytes((fresh[0][front] ^ 1,)) + fresh[0][front + 1 :]
    return {
        'nothing': (),
        'one octet': (b'\0',),
        'less than a salt': (os.urandom(method.size - 1),),
        'a salt': (os.urandom(method.size),),
        'one octet too few': (os.urandom(front - 1),),
        'just enough': (os.urandom(front),),
        'one octet more': (os.urandom(front + 1),),
        'much': (os.urandom(200_000),),
        'octet by octet': tuple(bytes((o,)) for o in os.urandom(front + 3)),
        'HTTP': (b'GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n' * 3,),
        'TLS': (b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + os.urandom(506),),
        'SOCKS5': (b'\x05\x01\x00',),
        'a replay': (recorded,),
        'a replay in pieces': (recorded[:front], recorded[front:]),
        'a replay with more behind': (recorded + os.urandom(500),),
        'its own words': (answer,),
        'half a request': (fresh[1][: front + 2],),
        'a broken chunk behind a good front': (behind,),
        **flipped,
    }


def test_probers_all_see_the_same(rig: Rig) -> None:
    """Nothing is said, and the end comes at a time that what they said has no part in."""
    said = probes(rig)
    before = rig.counts()['opened']
    reached = len(rig.peers)
    found = {name: gevent.spawn(seen, rig, *words, pause=0.0) for name, words in said.items()}
    gevent.joinall(list(found.values()), timeout=PATIENCE, raise_error=True)
    for name, greenlet in found.items():
        heard, after = greenlet.get(block=False)
        assert heard == b'', name
        assert after >= SHORTEST - 0.1, f'{name}: it was closed early'
    assert rig.counts()['opened'] == before
    assert len(rig.peers) == reached, 'no service was reached'
    assert rig.counts()['replayed'] >= 3
    eventually(lambda: not rig.proxy.count, 'none is left')


def test_the_time_is_drawn_anew_for_each(rig: Rig) -> None:
    tunnels = [rig.proxy.patience() - time.monotonic() for _ in range(200)]
    assert SHORTEST - 0.01 <= min(tunnels) < max(tunnels) <= LONGEST
    assert max(tunnels) - min(tunnels) > (LONGEST - SHORTEST) / 2


def test_who_interferes_with_an_open_tunnel_sees_the_same(rig: Rig) -> None:
    client = rig.client(b'hello')
    assert client.hear(5) == b'hello'
    begin = time.monotonic()
    client.stream.sendall(os.urandom(100))
    client.stream.sendall(os.urandom(100_000))
    assert client.stream.recv(100) == b''
    assert time.monotonic() - begin > SHORTEST - 0.1
    assert rig.counts()['connections'] == 0
    assert rig.counts()['rejected'] == 1


def test_a_recording_is_worth_nothing_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, 'SHORTEST', 0.1)
    monkeypatch.setattr(proxy, 'LONGEST', 0.2)
    with Rig(tmp_path) as rig:
        recorded = rig.request(rig.call(), b'hello')
        stream = rig.knock()
        stream.sendall(recorded)
        assert stream.recv(100)
        port = rig.port
    with Rig(tmp_path, listen__imaps=f'127.0.0.1:{port}') as rig:
        assert seen(rig, recorded)[0] == b''
        assert rig.counts()['replayed'] == 1


def test_a_client_that_hesitates_is_served(rig: Rig) -> None:
    call = rig.call()
    stream = rig.knock()
    for octet in rig.request(call, b'hi'):
        stream.sendall(bytes((octet,)))
        gevent.sleep(0)
    heard = b''
    while not heard:
        heard = call.feed(stream.recv(100), time.time())
    assert heard == b'hi'


# -- floods


def resident() -> int:
    with open('/proc/self/statm', 'rb') as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_a_flood_of_noise_takes_no_memory(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        streams = [rig.knock() for _ in range(20)]
        noise = os.urandom(65536)
        for stream in streams:
            stream.sendall(noise)
        before = resident()
        for _ in range(100):
            for stream in streams:
                stream.sendall(noise)
        eventually(lambda: rig.counts()['octets']['shadowsocks']['received'] > 131e6, 'it is read')
        assert resident() - before < 16 * 1024 * 1024
        assert all(one._reception is None for one in rig.proxy.silent)
        assert rig.client(b'hello').hear(5) == b'hello', 'others are served'


def test_when_there_is_no_room_the_oldest_strangers_go(tmp_path: Path) -> None:
    with Rig(tmp_path, shadowsocks__connections=30) as rig:
        users = [rig.client(b'hello') for _ in range(10)]
        assert all(user.hear(5) == b'hello' for user in users)
        strangers = [rig.knock() for _ in range(200)]
        eventually(lambda: rig.counts()['shed'] >= 180, 'they make room for each other')
        assert rig.proxy.count <= 30
        assert strangers[0].recv(1) == b''
        late = rig.client(b'late')
        assert late.hear(4) == b'late'
        for user in users:
            user.say(b'still')
            assert user.hear(5) == b'still', 'whoever is known stays'


def test_when_all_room_is_in_use_newcomers_wait_in_silence(tmp_path: Path) -> None:
    with Rig(tmp_path, shadowsocks__connections=5) as rig:
        users = [rig.client(b'hello') for _ in range(5)]
        assert all(user.hear(5) == b'hello' for user in users)
        late = rig.client(b'late')
        with gevent.Timeout(0.5, False):
            assert late.stream.recv(1) != b'', 'not a word and no end'
        assert rig.counts()['accept_pauses'] > 0
        assert rig.role.check()
        users[0].close()
        assert late.hear(4) == b'late'


def test_one_address_does_not_take_the_room_of_others(
    tmp_path: Path,
) -> None:
    with Rig(tmp_path, limits__connections_per_ip=8) as rig:
        knocks: list[Any] = []
        for _ in range(50):
            stream = green.create_connection(rig.at, source_address=('127.0.0.9', 0))
            knocks.append(stream)
        eventually(lambda: rig.counts()['shed'] >= 42, 'its own oldest go')
        assert rig.proxy.count <= 8
        users = [rig.client(b'hello') for _ in range(8)]
        assert all(user.hear(5) == b'hello' for user in users)
        more = rig.client(b'hello')
        with gevent.Timeout(0.4, False):
            assert more.stream.recv(1) != b'', 'over the limit nobody is listened to'
        assert rig.counts()['connections'] == 8
