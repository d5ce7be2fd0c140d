"""Asks our own door what a client would ask, and says whether it was served."""

from __future__ import annotations

import os
import time
from typing import Any

from gevent import socket

from madmail.realtime.turn import message
from madmail.realtime.turn.credentials import password
from madmail.realtime.turn.message import (
    REQUEST,
    SUCCESS,
    Malformed,
    Message,
    build,
    parse,
    read_error_code,
)

PATIENCE = 2.0  # seconds for an answer
QUOTA = 486  # the server works and has as many relays as it may
TRIES = 3  # datagrams may be lost


def probe(
    at: tuple[int, tuple[Any, ...]], credentials: tuple[str, bytes], *, life: int = 3600
) -> bool:
    """Get a relayed address and give it back.  Blocks the greenlet; raises OSError, Malformed."""
    family, address = at
    realm, secret = credentials
    name = f'{int(time.time()) + min(life, 600)}:probe'  # which is no account's
    key = message.long_term_key(name, realm, password(secret, name))
    with socket.socket(family, socket.SOCK_DGRAM) as probing:
        probing.connect(address)
        probing.settimeout(PATIENCE)
        transport = (message.REQUESTED_TRANSPORT, message.family(message.UDP))
        refused = _ask(probing, message.ALLOCATE, [transport])
        nonce = refused.get(message.NONCE) if refused else None
        if nonce is None:
            return False
        proof = [
            (message.USERNAME, name.encode()),
            (message.REALM, realm.encode()),
            (message.NONCE, nonce),
        ]
        made = _ask(probing, message.ALLOCATE, [transport, *proof], key)
        if made is None:
            return False
        if made.kind != SUCCESS:
            # Who is told of no server for being full asks others for days.
            return read_error_code(made.get(message.ERROR_CODE) or b'') == QUOTA
        ended = _ask(probing, message.REFRESH, [message.lifetime(0), *proof], key)
        return ended is not None and ended.kind == SUCCESS


def _ask(
    probing: Any, method: int, attributes: list[tuple[int, bytes]], key: bytes | None = None
) -> Message | None:
    transaction = os.urandom(12)
    request = build(REQUEST, method, transaction, attributes, key)
    for _ in range(TRIES):
        probing.send(request)
        try:
            answer = parse(probing.recv(2048))
        except (TimeoutError, Malformed):
            continue
        if answer.transaction == transaction and (key is None or answer.verifies(key)):
            return answer
    return None
