"""A node of iroh 1.x: `node.py URL listen`, or `node.py URL call ID`; a JSON line a word.

The listener tells its id and says back what it hears; the caller says something large and
tells whether it came back, and whether all paths led over the relay.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys

import iroh

ALPN = b'madmail-test/1'
SIZE = 2_000_000  # octets
LIMIT = 10_000_000
PATIENCE = 40.0  # seconds


def tell(**words: object) -> None:
    print(json.dumps(words), flush=True)


async def bind(url: str) -> iroh.Endpoint:
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(),
        alpns=[ALPN],
        relay_mode=iroh.RelayMode.custom_from_urls([url]),
    )
    endpoint = await iroh.Endpoint.bind(options)
    await asyncio.wait_for(endpoint.online(), PATIENCE)
    return endpoint


async def listen(url: str) -> None:
    endpoint = await bind(url)
    tell(id=str(endpoint.id()))
    while (incoming := await endpoint.accept_next()) is not None:
        connection = await (await incoming.accept()).connect()
        streams = await connection.accept_bi()
        data = await streams.recv().read_to_end(LIMIT)
        await streams.send().write_all(data)
        await streams.send().finish()
        tell(heard=len(data))
        await connection.closed()


async def call(url: str, identity: str) -> None:
    endpoint = await bind(url)
    address = iroh.EndpointAddr(iroh.EndpointId.from_string(identity), url, [])
    connection = await asyncio.wait_for(endpoint.connect(address, ALPN), PATIENCE)
    streams = await connection.open_bi()
    data = os.urandom(SIZE)
    await streams.send().write_all(data)
    await streams.send().finish()
    back = await asyncio.wait_for(streams.recv().read_to_end(LIMIT), PATIENCE)
    same = hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
    tell(same=same, relayed=all(path.is_relay for path in connection.paths()))
    connection.close(0, b'')
    await endpoint.close()


if __name__ == '__main__':
    _, url, verb, *more = sys.argv
    asyncio.run(listen(url) if verb == 'listen' else call(url, *more))
