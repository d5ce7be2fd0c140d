"""Two sessions on one mailbox under random commands, each watched by a naive client.

The client knows nothing but the untagged responses it has read.  After a NOOP
it must know exactly what the store holds: the same messages under the same
numbers, and the flags of all it has been told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from madmail.imap import mailbox as mailbox_module
from tests.imap.wire_double import Client, ShardDouble, message

_UNTAGGED = re.compile(rb'\* (\d+) (EXISTS|RECENT|EXPUNGE|FETCH)(?: \((.*))?\Z')
_FLAGS = re.compile(rb'FLAGS \(([^)]*)\)')
_UID = re.compile(rb'UID (\d+)')
_BITS = {'\\Seen': 1, '\\Answered': 2, '\\Flagged': 4, '\\Deleted': 8, '\\Draft': 16}


class Naive:
    """A client's idea of its mailbox: [uid or None, flags or None] a message."""

    def __init__(self, client: Client, mailbox: str, claimed: set[int]) -> None:
        self.client = client
        self.mailbox = mailbox
        self.messages: list[list[Any]] = []
        self.idling = False
        self.selected = False
        self.read_only = False
        self.claimed = claimed  # UIDs that were recent in some read-write session
        self.mine: set[int] = set()

    def read(self, answer: bytes, forbidden: tuple[bytes, ...] = ()) -> None:
        for line in answer.split(b'\r\n'):
            found = _UNTAGGED.match(line)
            if found is None:
                assert not line.startswith((b'* BYE', b't BAD')), line
                continue
            number, kind, rest = int(found[1]), found[2], found[3]
            assert kind not in forbidden, line
            if kind == b'EXISTS':
                assert number >= len(self.messages), (number, self.messages)
                self.messages += [[None, None] for _ in range(number - len(self.messages))]
            elif kind == b'EXPUNGE':
                assert 1 <= number <= len(self.messages), line
                del self.messages[number - 1]
            elif kind == b'FETCH':
                assert 1 <= number <= len(self.messages), line
                self.fetched(self.messages[number - 1], rest)

    def fetched(self, known: list[Any], attributes: bytes) -> None:
        uid = _UID.search(attributes)
        if uid is not None:
            assert known[0] in (None, int(uid[1])), (known, attributes)
            known[0] = int(uid[1])
        flags = _FLAGS.search(attributes)
        if flags is not None:
            words = set(flags[1].decode().split())
            recent = '\\Recent' in words and known[0] is not None and not self.read_only
            if recent and known[0] not in self.mine:
                assert known[0] not in self.claimed
                self.claimed.add(known[0])
                self.mine.add(known[0])
            known[1] = frozenset(words - {'\\Recent'})

    def ask(self, command: str, *forbidden: bytes) -> bytes:
        answer = self.client.ask(command)
        self.read(answer, forbidden)
        return answer

    def select(self, *, read_only: bool = False) -> None:
        self.messages = []
        self.mine = set()
        self.selected = True
        self.read_only = read_only
        self.ask(f'{"EXAMINE" if read_only else "SELECT"} {self.mailbox}')

    def check(self, shard: ShardDouble, mailbox_id: int) -> None:
        """Everything that was told is true, and nothing was left out."""
        if self.idling:
            self.read(self.client.take())
        else:
            self.ask('NOOP')
        rows = shard.store.messages(mailbox_id, 1, 0xFFFFFFFF)
        assert len(rows) == len(self.messages)
        for known, row in zip(self.messages, rows, strict=True):
            assert known[0] in (None, row.uid)
            names = {name for name, bit in _BITS.items() if row.flags & bit}
            assert known[1] is None or known[1] == names | set(row.keywords)
        if not self.idling:
            answer = self.ask('FETCH 1:* (UID FLAGS)', b'EXPUNGE')
            assert answer.count(b' FETCH ') == len(rows)
            assert [known[0] for known in self.messages] == [row.uid for row in rows]


_SETS = st.one_of(
    st.just('1:*'),
    st.just('*'),
    st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda pair: f'{pair[0]}:{pair[1]}'),
    st.lists(st.integers(1, 12), min_size=1, max_size=4).map(lambda n: ','.join(map(str, n))),
    st.integers(1, 15).map(lambda n: f'{n}:*'),
)
_FLAG_LISTS = st.lists(
    st.sampled_from(['\\Seen', '\\Flagged', '\\Deleted', '\\Answered', '$Forwarded', 'blue']),
    max_size=3,
    unique=True,
).map(' '.join)
_STORE = st.tuples(
    st.just('store'),
    st.booleans(),
    _SETS,
    st.sampled_from(['', '+', '-']),
    st.booleans(),
    _FLAG_LISTS,
)
_FETCH = st.tuples(st.just('fetch'), st.booleans(), _SETS)
_READ = st.tuples(st.just('read'), st.booleans(), _SETS)
_SEARCH = st.tuples(st.just('search'), st.sampled_from(list(_BITS)))
_ACTIONS = st.one_of(
    st.tuples(st.just('append'), _FLAG_LISTS),
    st.tuples(st.just('deliver'), st.integers(1, 3)),
    _STORE,
    _FETCH,
    _READ,
    _SEARCH,
    # what happens to a client that is not told of an expunge yet
    st.tuples(
        st.just('behind'),
        _SETS,
        st.lists(st.one_of(_STORE, _FETCH, _READ, _SEARCH), min_size=1, max_size=4),
    ),
    st.tuples(st.just('expunge'), _SETS),
    st.tuples(st.just('uid expunge'), _SETS),
    st.tuples(st.just('copy'), st.booleans(), _SETS),
    st.tuples(st.just('move'), st.booleans(), _SETS),
    st.tuples(st.just('idle')),
    st.tuples(st.just('noop')),
    st.tuples(st.just('reselect'), st.sampled_from(['CLOSE', 'UNSELECT', '']), st.booleans()),
    st.tuples(st.just('forget')),
    st.tuples(st.just('move session')),
)


class Driver:
    """One example: fresh mailboxes, two clients."""

    def __init__(self, shard: ShardDouble, number: int) -> None:
        self.shard = shard
        account = shard.account(f'user{number}@chat.example')
        self.account = account
        claimed: set[int] = set()
        self.clients = [Naive(Client(shard, account), 'INBOX', claimed) for _ in range(2)]
        self.clients[0].ask('CREATE other')
        inbox = shard.store.mailbox(account.id, 'INBOX')
        assert inbox is not None
        self.mailbox_id = inbox.id
        for each in self.clients:
            each.select()
        self.count = 0
        for _ in range(8):
            self.act(0, ('append', ''))

    def awake(self, naive: Naive) -> None:
        if naive.idling:
            naive.idling = False
            answer = naive.client.send(b'DONE\r\n')
            assert answer.endswith(b'OK Idle completed\r\n')
            naive.read(answer)

    def fits(self, naive: Naive, numbers: str, uid: bool) -> bool:
        """Message numbers beyond EXISTS are an error and not the subject here."""
        if uid:
            return True
        highest = max((int(n) for n in re.findall(r'\d+', numbers)), default=0)
        return highest <= len(naive.messages) and bool(naive.messages)

    def act(self, who: int, action: tuple[Any, ...]) -> None:
        naive = self.clients[who]
        verb = action[0]
        if verb == 'deliver':
            for _ in range(action[1]):
                self.count += 1
                spool = self.shard.spool()
                spool.append(message(self.count))
                self.shard.store.deliver(
                    spool.finish(),
                    [self.account.address],
                    delivery_id=self.count.to_bytes(8, 'big') + self.account.id.to_bytes(8, 'big'),
                )
            gevent.sleep(0)
            return
        if verb == 'forget':
            for box in list(self.shard.boxes._open.values()):
                self.shard.boxes._loaded -= box.drop_spare()
            return
        if verb == 'move session':
            self.move_session(naive)
            return
        if verb == 'behind':
            self.act(1 - who, ('expunge', action[1]))
            for each in action[2]:
                self.act(who, each)
            return
        self.awake(naive)
        if verb == 'append':
            self.count += 1
            answer = naive.client.append(message(self.count), options=f'({action[1]})')
            assert b't OK [APPENDUID' in answer
            naive.read(answer)
        elif verb == 'store':
            self.store(naive, *action[1:])
        elif verb == 'expunge':
            naive.ask(f'UID STORE {action[1]} +FLAGS (\\Deleted)', b'EXPUNGE')
            naive.ask('EXPUNGE')
        elif verb == 'fetch':
            if self.fits(naive, action[2], action[1]):
                naive.ask(f'{"UID " if action[1] else ""}FETCH {action[2]} (UID FLAGS)', b'EXPUNGE')
        elif verb == 'uid expunge':
            naive.ask(f'UID EXPUNGE {action[1]}')
        elif verb == 'read':
            if self.fits(naive, action[2], action[1]):
                prefix = 'UID ' if action[1] else ''
                naive.ask(f'{prefix}FETCH {action[2]} (UID FLAGS BODY[TEXT])', b'EXPUNGE')
        elif verb == 'search':
            self.search(naive, action[1])
        elif verb in ('copy', 'move'):
            if self.fits(naive, action[2], action[1]):
                target = 'INBOX' if verb == 'copy' else 'other'
                naive.ask(f'{"UID " if action[1] else ""}{verb.upper()} {action[2]} {target}')
        elif verb == 'idle':
            naive.idling = True
            answer = naive.client.ask('IDLE')
            assert answer.startswith(b'+ idling\r\n')
            naive.read(answer)
        elif verb == 'noop':
            naive.ask('NOOP')
        elif verb == 'reselect':
            if action[1]:
                naive.ask(action[1], b'EXPUNGE', b'EXISTS')
            naive.select(read_only=action[2])

    def store(
        self, naive: Naive, uid: bool, numbers: str, sign: str, silent: bool, flags: str
    ) -> None:
        if not self.fits(naive, numbers, uid):
            return
        if silent and uid:
            # Only who knows its UIDs can foresee what a silent STORE makes of its flags.
            for _ in range(2):
                naive.ask('FETCH 1:* (UID)', b'EXPUNGE')
        # What '*' is was settled when the command was sent: the answer may tell of new messages.
        chosen = self.chosen(naive, numbers, uid)
        what = f'{sign}FLAGS{".SILENT" if silent else ""}'
        answer = naive.ask(f'{"UID " if uid else ""}STORE {numbers} {what} ({flags})', b'EXPUNGE')
        if naive.read_only:
            assert b't NO [READ-ONLY]' in answer
        elif silent and b't OK' in answer:
            self.foresee(naive, chosen, sign, flags)

    def foresee(self, naive: Naive, indices: list[int], sign: str, flags: str) -> None:
        """What a silent STORE makes of flags the client knows."""
        words = frozenset(flags.split())
        for index in indices:
            known = naive.messages[index]
            if known[1] is not None and not naive.read_only:
                known[1] = {'': words, '+': known[1] | words, '-': known[1] - words}[sign]

    def chosen(self, naive: Naive, numbers: str, uid: bool) -> list[int]:
        """Indices of the messages a set names; of those whose UID is known, if by UID."""
        values = [m[0] for m in naive.messages] if uid else list(range(1, len(naive.messages) + 1))
        found = set()
        last = values[-1] if values else 0
        if last is None:
            last = 1 << 32  # a UID it does not know yet is above all that it knows
        for part in numbers.split(','):
            ends = [last if n == '*' else int(n) for n in part.split(':')]
            low, high = min(ends), max(ends)
            found |= {i for i, v in enumerate(values) if v is not None and low <= v <= high}
        return sorted(found)

    def search(self, naive: Naive, name: str) -> None:
        naive.ask('FETCH 1:* (UID FLAGS)', b'EXPUNGE')
        before = [list(known) for known in naive.messages]
        answer = naive.ask(f'SEARCH {name[1:].upper()}', b'EXPUNGE')
        numbers = {int(n) for n in answer.split(b'\r\n')[0].split()[2:]}
        present = set(self.shard.store.uids(self.mailbox_id))
        for number, (uid, flags) in enumerate(before, start=1):
            # An expunged message is not found, but keeps its number until that is told.
            if uid is None or flags is None or uid not in present:
                continue
            assert (number in numbers) == (name in flags)

    def move_session(self, naive: Naive) -> None:
        """As at a reload: the session leaves this process and comes back as another object."""
        from madmail.imap.session import ImapSession

        client = naive.client
        naive.read(client.take())
        state = client.session.freeze()
        assert state is not None
        gevent.sleep(0)
        thawed = ImapSession.thaw(client.wire, self.shard, self.account, state)  # type: ignore[arg-type]
        client.session = thawed
        client.wire.attach(thawed)
        naive.read(client.take())

    def check(self) -> None:
        for naive in self.clients:
            naive.check(self.shard, self.mailbox_id)


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Driver]]:
    directory: Path = tmp_path_factory.mktemp('model') / 'shard'
    shard = ShardDouble(directory)
    count = iter(range(1, 1_000_000))
    yield lambda: Driver(shard, next(count))
    shard.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.tuples(st.integers(0, 1), _ACTIONS), min_size=5, max_size=40),
    window=st.sampled_from([1, 3, 8192]),
)
def test_what_a_client_was_told_is_what_the_store_holds(
    world: Callable[[], Driver], steps: list[Any], window: int
) -> None:
    before = mailbox_module.WINDOW
    mailbox_module.WINDOW = window
    try:
        driver = world()
        for who, action in steps:
            driver.act(who, action)
        driver.check()
        for naive in driver.clients:
            naive.client.wire.hang_up()
            naive.client.take()
    finally:
        mailbox_module.WINDOW = before
