"""What the process that orders a certificate is told, and starting it.

The library of ACME brings requests and pyOpenSSL along, which no process that lives long
should carry; so an order is a process of its own, `python -m madmail.tls.order`.  It gets
the brief on its standard input, and what came of it stands in `acme.State`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import madmail

ORDER, ASK = 'order', 'ask'  # a certificate; when to renew the one we have
ORDER_TIME = 330.0  # seconds after which an order is ended
BUSY = 75  # exit status if another order is under way, EX_TEMPFAIL
TOPIC = 'certificate'  # of the bus, see `renewal`


class Wish(NamedTuple):
    """What somebody asks for, now, in spite of failures: he has mended something."""

    request: str = ''
    force: bool = False  # though none is due
    new_key: bool = False
    trial: bool = False


@dataclass(frozen=True)
class Brief:
    directory: str  # <state_dir>/tls
    source: str  # URL of the authority's directory
    names: tuple[str, ...] = ()  # the first one is needed
    task: str = ORDER
    email: str = ''
    ca_file: str = ''  # who vouches for the authority's server, '' = what browsers trust
    account: tuple[str, str] = ('', '')  # id and key of an account there, RFC 8555 7.3.4
    setup: str = ''  # see acme.State
    request: str = ''
    new_key: bool = False
    trial: bool = False  # the certificate is thrown away, and nothing counts but the try
    probe: tuple[str, int] | None = None  # where the relay itself answers challenges
    listeners: tuple[int, ...] = ()  # descriptors, if the order is to answer them
    parent: int = 0  # process id; the order ends with it

    def start(self, listeners: Sequence[socket.socket] = ()) -> subprocess.Popen[bytes]:
        """Start the process.  Raises OSError."""
        descriptors = tuple(listener.fileno() for listener in listeners)
        told = {**asdict(self), 'listeners': descriptors, 'parent': os.getpid()}
        path = os.pathsep.join(
            filter(None, (str(Path(madmail.__file__).parents[1]), os.environ.get('PYTHONPATH')))
        )
        process = subprocess.Popen(
            [sys.executable, '-m', 'madmail.tls.order'],
            # The library takes dates that authorities give for local time.
            env={**os.environ, 'PYTHONPATH': path, 'TZ': 'UTC'},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # it could say names
            pass_fds=descriptors,
        )
        assert process.stdin is not None
        try:
            with process.stdin as stdin:
                stdin.write(json.dumps(told).encode())  # far less than a pipe holds
        except BrokenPipeError:
            pass  # it has died already
        return process


def read(text: str) -> Brief:
    """In the process: what it is to do."""
    told = json.loads(text)
    for name in ('names', 'account', 'probe', 'listeners'):
        if told[name] is not None:
            told[name] = tuple(told[name])
    return Brief(**told)
