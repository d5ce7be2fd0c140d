"""A client that disconnects at random and comes back by QRESYNC knows what the server holds.

It keeps a cache over its connections: flags by UID, the mod-sequence up to
which the cache is complete, and the UID up to which it has fetched all.  It
follows RFC 7162 and knows nothing but what it has read: a connection may end
in the middle of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from madmail.store import database
from tests.imap.wire_double import Client, ShardDouble, message

_BITS = {'\\Seen': 1, '\\Answered': 2, '\\Flagged': 4, '\\Deleted': 8, '\\Draft': 16}
_FETCH = re.compile(r'\* (\d+) FETCH \((.*)\)\Z')
_CODE = re.compile(r'(\S+) OK \[HIGHESTMODSEQ (\d+)\]')


class Cut(Exception):
    """The connection has ended."""


class Syncing:
    """The client with its cache."""

    def __init__(self, shard: ShardDouble, mailbox: str) -> None:
        self.shard = shard
        self.mailbox = mailbox
        self.client: Client | None = None
        self.flags: dict[int, frozenset[str]] = {}
        self.modseq = 0  # the cache is complete up to here
        self.validity = 0
        self.fetched = 0  # every UID up to here has been fetched or is gone
        self.idling = False
        self.seen = 0  # highest mod-sequence of the answer under way
        self.counted = 0  # messages by EXISTS and VANISHED

    def connect(self, keep: int) -> None:
        self.client = Client(self.shard, self.shard.account())
        self.idling = False
        self.ask('ENABLE QRESYNC', keep)
        parameter = f' (QRESYNC ({self.validity} {self.modseq}))' if self.modseq else ''
        self.counted = 0
        answer = self.ask(f'SELECT {self.mailbox}{parameter}', keep)
        found = re.search(r'UIDVALIDITY (\d+)', answer)
        assert found is not None
        assert self.validity in (0, int(found[1]))
        self.validity = int(found[1])
        self.complete(keep)

    def complete(self, keep: int) -> None:
        """Fetch what is new."""
        self.ask(f'UID FETCH {self.fetched + 1}:* (FLAGS)', keep)
        self.fetched = max([self.fetched, *self.flags])

    def ask(self, command: str, keep: int) -> str:
        """The answer; only its first `keep` lines arrive before the connection ends, -1 = all."""
        assert self.client is not None
        lines = self.client.lines(command)
        self.read(lines if keep < 0 else lines[:keep], command)
        if keep >= 0:
            self.cut()
            raise Cut
        return '\n'.join(lines)

    def cut(self) -> None:
        if self.client is not None:
            self.client.wire.hang_up()
            self.client.take()
            self.client = None
        self.seen = 0

    def read(self, lines: list[str], command: str = '') -> None:
        self.seen = 0
        told = 0
        for line in lines:
            if found := _FETCH.match(line):
                self.read_fetch(found[2], command)
            elif line.startswith('* VANISHED (EARLIER) '):
                for uid in _numbers(line.rpartition(' ')[2]):
                    self.flags.pop(uid, None)
            elif line.startswith('* VANISHED '):
                for uid in _numbers(line.rpartition(' ')[2]):
                    self.flags.pop(uid, None)
                    self.counted -= 1
            elif found := re.match(r'\* (\d+) EXISTS', line):
                assert int(found[1]) >= self.counted
                self.counted = int(found[1])
            elif line.startswith('t OK') or self.idling:
                code = _CODE.match(line)
                if code is not None:
                    self.modseq = int(code[2])
                elif line.startswith('t OK'):
                    self.modseq = max(told or self.modseq, self.seen)
            elif code := _CODE.match(line):
                # Good for nothing before the command ends
                told, self.seen = int(code[2]), 0
            else:
                assert not line.startswith(('t BAD', '* BYE')), line
                assert ' EXPUNGE' not in line

    def read_fetch(self, attributes: str, command: str) -> None:
        uid = re.search(r'UID (\d+)', attributes)
        modseq = re.search(r'MODSEQ \((\d+)\)', attributes)
        flags = re.search(r'FLAGS \(([^)]*)\)', attributes)
        assert uid is not None
        assert modseq is not None  # RFC 7162 3.1, 3.2.4
        self.seen = max(self.seen, int(modseq[1]))
        number = int(uid[1])
        if flags is not None:
            self.flags[number] = frozenset(flags[1].split()) - {'\\Recent'}
        elif '.SILENT' in command:
            sign, words = re.findall(r'([+-])FLAGS.SILENT \((.*)\)', command)[0]
            known = self.flags.get(number, frozenset())
            change = frozenset(words.split())
            self.flags[number] = known | change if sign == '+' else known - change

    def act(self, action: tuple[Any, ...], keep: int) -> None:
        kind = action[0]
        try:
            if self.client is None:
                self.connect(keep if kind == 'connect' else -1)
            elif kind == 'drop':
                self.cut()
            elif self.idling:
                self.read(self.client.take().decode().split('\r\n')[:-1])
                self.idling = False
                self.client.wire.feed(b'DONE\r\n')
                answer = self.client.take().decode()
                self.read(re.sub(r'(?m)^t\d+ ', 't ', answer).split('\r\n')[:-1])
            elif kind == 'idle':
                self.read(self.client.ask('IDLE').decode().split('\r\n')[:-1])
                self.idling = True
            elif kind == 'store':
                _, sign, silent, uids, words = action
                name = 'FLAGS.SILENT' if silent else 'FLAGS'
                self.ask(f'UID STORE {uids} {sign}{name} ({words})', keep)
            elif kind == 'fetch':
                self.ask(f'UID FETCH {action[1]} ({action[2]})', keep)
            elif kind == 'expunge':
                self.ask('EXPUNGE', keep)
            elif kind == 'new':
                self.complete(keep)
            else:
                self.ask('NOOP', keep)
        except Cut:
            pass

    def check(self, mailbox_id: int) -> None:
        if self.idling:
            self.act(('noop',), -1)
        if self.client is None:
            self.connect(-1)
        else:
            self.ask('NOOP', -1)
            self.complete(-1)
        rows = self.shard.store.messages(mailbox_id, 1, 0xFFFFFFFF)
        held = {
            row.uid: frozenset(
                [name for name, bit in _BITS.items() if row.flags & bit] + [*row.keywords]
            )
            for row in rows
        }
        assert self.flags == held
        assert self.counted == len(rows)


def _numbers(text: str) -> Iterator[int]:
    for part in text.split(','):
        low, _, high = part.partition(':')
        yield from range(int(low), int(high or low) + 1)


_UIDS = st.sampled_from(['1:*', '*', '2', '1:3', '2,4,6', '5:9', '3:20'])
_WORDS = st.sampled_from(['\\Seen', '\\Deleted', '\\Deleted \\Flagged', 'blue'])
_STORE = st.tuples(st.just('store'), st.sampled_from('+-'), st.booleans(), _UIDS, _WORDS)
_CLIENT = st.one_of(
    _STORE,
    st.tuples(st.just('fetch'), _UIDS, st.sampled_from(['FLAGS', 'MODSEQ', 'FLAGS MODSEQ'])),
    st.sampled_from(
        [('drop',), ('connect',), ('idle',), ('expunge',), ('new',), ('noop',), ('noop',)]
    ),
)
_OTHER = st.one_of(_STORE, st.sampled_from([('append',), ('append',), ('expunge',), ('move',)]))
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just('other'), _OTHER, st.just(-1)),
        st.tuples(st.just('client'), _CLIENT, st.sampled_from([-1, -1, -1, 0, 1, 3, 9])),
    ),
    min_size=8,
    max_size=50,
)


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Any]]:
    shard = ShardDouble(tmp_path_factory.mktemp('qresync') / 'shard')
    other = Client(shard, shard.account())
    other.ask('CREATE away')
    count = iter(range(1, 1_000_000))

    def fresh() -> tuple[ShardDouble, Client, str]:
        name = f'box{next(count)}'
        other.ask(f'CREATE {name}')
        for number in range(3):
            other.append(message(number), name)
        other.ask(f'SELECT {name}')
        return shard, other, name

    yield fresh
    shard.close()


def _other_acts(client: Client, name: str, action: tuple[Any, ...]) -> None:
    if action[0] == 'append':
        client.append(message(9), name, '(\\Seen)')
    elif action[0] == 'store':
        _, sign, silent, uids, words = action
        client.ask(f'UID STORE {uids} {sign}FLAGS{".SILENT" if silent else ""} ({words})')
    elif action[0] == 'move':
        client.ask('UID MOVE 2:3,7 away')
    else:
        client.ask('EXPUNGE')


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=_STEPS, log=st.sampled_from([1, 4, 1000]))
def test_a_client_that_comes_back_knows_what_the_server_holds(
    world: Callable[[], Any], steps: list[Any], log: int
) -> None:
    before = database.LOG_LIMIT
    database.LOG_LIMIT = log
    try:
        shard, other, name = world()
        row = shard.store.mailbox(shard.account().id, name)
        client = Syncing(shard, name)
        for who, action, keep in steps:
            if who == 'other':
                _other_acts(other, name, action)
            else:
                client.act(action, keep)
        client.check(row.id)
        client.cut()
    finally:
        database.LOG_LIMIT = before
