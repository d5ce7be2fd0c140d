"""WebSocket clients at rest and how soon they hear of a message.

    python -m benchmarks.websocket [--clients 2000] [--messages 200]

Memory is the proportional set size of all processes of the relay, before and with
the clients.  The push is timed from the end of DATA's answer being sent for (the
last octet of the message written) to the frame being read.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import ssl
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from tests.system import mail
from tests.system.relay import client_tls
from tests.web.conftest import WebRelay


async def page(port: int, who: tuple[str, str], tls: ssl.SSLContext) -> asyncio.StreamReader:
    """An open WebSocket; its writer hangs on the reader, so that both live."""
    reader, writer = await asyncio.open_connection('127.0.0.1', port, ssl=tls)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f'GET /webimap/ws?email={quote(who[0])}&password={quote(who[1])} HTTP/1.1\r\n'
        'Host: chat.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        f'Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n'.encode()
    )
    head = await reader.readuntil(b'\r\n\r\n')
    assert b' 101 ' in head, head
    reader.writer = writer  # type: ignore[attr-defined]
    return reader


async def pushed(reader: asyncio.StreamReader) -> None:
    """Read frames until one tells of a message."""
    while True:
        head = await reader.readexactly(2)
        size = head[1] & 127
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), 'big')
        data = await reader.readexactly(size)
        if head[0] & 15 == 1 and b'new_message' in data:
            return


async def run(relay: WebRelay, clients: int, messages: int) -> dict[str, float]:
    tls = client_tls()
    people = [relay.credentials(f'p{number}') for number in range(min(clients, 200))]
    sender = relay.account('sender')
    for person in people:  # the first login makes the account
        relay.imap(*person).logout()
    before = relay.pss()
    gate = asyncio.Semaphore(50)

    async def one(number: int) -> asyncio.StreamReader:
        async with gate:
            return await page(relay.web['https'], people[number % len(people)], tls)

    began = time.perf_counter()
    readers = await asyncio.gather(*(one(number) for number in range(clients)))
    opened = time.perf_counter() - began
    await asyncio.sleep(2)
    at_rest = relay.pss()
    listener = people[0]
    times = []
    with relay.smtp(*sender) as smtp:
        for _ in range(messages):
            text = mail.encrypted(sender[0], listener[0])
            waiting = asyncio.create_task(pushed(readers[0]))
            await asyncio.sleep(0)
            smtp.mail(sender[0])
            smtp.rcpt(listener[0])
            smtp.docmd('DATA')
            data = text if isinstance(text, bytes) else text.encode()
            smtp.send(data + b'.\r\n')
            start = time.perf_counter()
            await waiting
            times.append(time.perf_counter() - start)
            smtp.getreply()
    times.sort()
    return {
        'clients': clients,
        'open_seconds': round(opened, 2),
        'kb_a_client': round((at_rest - before) / clients / 1024, 1),
        'push_p50_ms': round(statistics.median(times) * 1000, 2),
        'push_p99_ms': round(times[int(len(times) * 0.99)] * 1000, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--clients', type=int, default=2000)
    parser.add_argument('--messages', type=int, default=200)
    arguments = parser.parse_args()
    options = {
        'webimap': {'enabled': True},
        'limits': {'sessions_per_account': 0},
        'processes': {'gates': 1, 'shards': 1},
    }
    with tempfile.TemporaryDirectory(prefix='madmail-bench-') as directory:
        path = Path(directory)
        with WebRelay(path, options) as relay:
            print(json.dumps(asyncio.run(run(relay, arguments.clients, arguments.messages))))


if __name__ == '__main__':
    main()
