"""Two WebRTC programs that may talk through relays only."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from madmail.realtime.turn.credentials import password
from tests.realtime.turn.conftest import Rig

aiortc = pytest.importorskip('aiortc')
aioice = pytest.importorskip('aioice')


def credentials(number: int) -> tuple[str, str]:
    name = str(int(time.time()) + 3600 + number)
    return name, password(b'north', name)


async def relayed(rig: Rig, transport: str, number: int) -> Any:
    name, secret = credentials(number)
    connection = aioice.Connection(
        ice_controlling=number % 2 == 0,
        turn_server=rig.addresses[transport][:2],
        turn_username=name,
        turn_password=secret,
        turn_transport='udp' if transport == 'udp' else 'tcp',
        transport_policy=aioice.TransportPolicy.RELAY,
        use_ipv6=False,
    )
    await connection.gather_candidates()
    return connection


async def connected(one: Any, two: Any) -> None:
    for mine, theirs in ((one, two), (two, one)):
        for candidate in theirs.local_candidates:
            await mine.add_remote_candidate(candidate)
        await mine.add_remote_candidate(None)
        mine.remote_username, mine.remote_password = theirs.local_username, theirs.local_password
    await asyncio.gather(one.connect(), two.connect())


@pytest.mark.parametrize('transports', [('udp', 'udp'), ('udp', 'tcp')])
def test_ice_through_relays(rig: Rig, transports: tuple[str, str]) -> None:
    async def talk() -> None:
        one, two = [await relayed(rig, each, n) for n, each in enumerate(transports)]
        assert {c.type for c in (*one.local_candidates, *two.local_candidates)} == {'relay'}
        await connected(one, two)
        for size in (1, 160, 1200):
            await one.send(bytes(size))
            assert await two.recv() == bytes(size)
            await two.send(b'\1' * size)
            assert await one.recv() == b'\1' * size
        await asyncio.gather(one.close(), two.close())

    asyncio.run(asyncio.wait_for(talk(), 30))
    assert rig.ask(lambda: len(rig.server.allocations)) == 0


def test_a_call_with_sound_through_relays(rig: Rig) -> None:
    async def call() -> int:
        policy = aiortc.RTCIceTransportPolicy.RELAY
        connections = []
        for number in range(2):
            name, secret = credentials(number)
            host, port = rig.addresses['udp'][:2]
            server = aiortc.RTCIceServer(f'turn:{host}:{port}', name, secret)
            configuration = aiortc.RTCConfiguration([server], iceTransportPolicy=policy)
            connections.append(aiortc.RTCPeerConnection(configuration))
        alice, bob = connections
        heard: asyncio.Queue[Any] = asyncio.Queue()
        bob.on('track', heard.put_nowait)
        alice.addTrack(aiortc.mediastreams.AudioStreamTrack())
        await alice.setLocalDescription(await alice.createOffer())
        await bob.setRemoteDescription(alice.localDescription)
        await bob.setLocalDescription(await bob.createAnswer())
        await alice.setRemoteDescription(bob.localDescription)
        assert 'typ host' not in alice.localDescription.sdp + bob.localDescription.sdp
        track = await heard.get()
        frames = [await track.recv() for _ in range(25)]
        await asyncio.gather(alice.close(), bob.close())
        return len(frames)

    assert asyncio.run(asyncio.wait_for(call(), 30)) == 25
    received = rig.ask(rig.server.statistics)['octets']['turn']
    assert received['received'] > 1000
    assert received['sent'] > 1000
