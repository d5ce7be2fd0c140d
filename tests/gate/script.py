"""Dialogues as a mail admin would write them down.

C: line      the client sends a line (CRLF added, escapes as in Python)
C> octets    the client sends exactly these octets, escapes as in Python
S: line      the server sends exactly this line
TLS          the client begins TLS, after STARTTLS
END          the server closes
LOGIN k=v …  a shard was handed a session with these values
; …          a remark
"""

from __future__ import annotations

from tests.gate.rig import Client, Shard


def _octets(text: str) -> bytes:
    return text.encode().decode('unicode_escape').encode('latin-1')


def play(script: str, client: Client, shard: Shard | None = None, split: bool = False) -> None:
    """Play `script`; with `split` the client sends one octet at a time."""
    for number, raw in enumerate(script.strip().splitlines(), 1):
        line = raw.strip()
        where = f'line {number}: {line}'
        if not line or line.startswith(';'):
            continue
        if line.startswith(('C:', 'C>')):
            data = _octets(line[3:])
            client.send(data + b'\r\n' if line[1] == ':' else data, split)
        elif line.startswith('S:'):
            assert client.line() == _octets(line[3:]), where
        elif line == 'TLS':
            client.start_tls()
        elif line == 'END':
            assert client.ended(), where
        elif line.startswith('LOGIN'):
            assert shard is not None
            frame = shard.frame()
            assert frame['kind'] == 'session', where
            for pair in line.split()[1:]:
                name, _, value = pair.partition('=')
                found = frame[name]
                expected: object = _octets(value) if isinstance(found, bytes) else value
                assert (found if isinstance(found, bytes) else str(found)) == expected, where
        else:
            raise AssertionError(f'not understood, {where}')
