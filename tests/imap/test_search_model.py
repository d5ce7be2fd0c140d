"""SORT against a naive model, and kept searches against fresh ones."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from madmail.imap import context, order
from madmail.imap.view import part
from madmail.message import slices
from tests.imap.wire_double import Client, ShardDouble, message

SUBJECTS = ('', 'tea', 'Re: Tea', '[list] milk', 'ä', 'z')
NAMES = ('ann@x', 'Bob <b@x>', '"carl" <ann@y>', 'ANN@z')
CRITERIA = ('ARRIVAL', 'CC', 'DATE', 'FROM', 'SIZE', 'SUBJECT', 'TO', 'DISPLAYFROM', 'DISPLAYTO')
KEYS: dict[str, Any] = {
    'ARRIVAL': lambda m: m['arrival'],
    'CC': lambda m: '',
    'DATE': lambda m: m['date'],
    'FROM': lambda m: ('ANN', 'B', 'ANN', 'ANN')[m['from']],
    'SIZE': lambda m: m['size'],
    'SUBJECT': lambda m: ('', 'TEA', 'TEA', 'MILK', 'A\u0308', 'Z')[m['subject']],
    'TO': lambda m: ('ANN', 'B', 'ANN', 'ANN')[m['to']],
    'DISPLAYFROM': lambda m: ('ANN@X', 'BOB', 'CARL', 'ANN@Z')[m['from']],
    'DISPLAYTO': lambda m: ('ANN@X', 'BOB', 'CARL', 'ANN@Z')[m['to']],
}
MESSAGES = st.fixed_dictionaries(
    {
        'subject': st.integers(0, len(SUBJECTS) - 1),
        'from': st.integers(0, len(NAMES) - 1),
        'to': st.integers(0, len(NAMES) - 1),
        'date': st.integers(1, 4),
        'arrival': st.integers(1, 4),
        'size': st.integers(0, 2),
    }
)
ORDERS = st.lists(st.tuples(st.sampled_from(CRITERIA), st.booleans()), min_size=1, max_size=3)


def octets(number: int, model: dict[str, int]) -> bytes:
    """A message of which only what the model says counts for SIZE."""
    block = message(
        number,
        Subject=SUBJECTS[model['subject']],
        From=NAMES[model['from']],
        To=NAMES[model['to']],
        Date=f'{model["date"]} Mar 2026 10:00:00 +0000',
    )
    return block + b'x' * (600 + 10 * model['size'] - len(block) - 2) + b'\r\n'


def spelled(criteria: list[tuple[str, bool]]) -> str:
    return ' '.join(f'REVERSE {name}' if reverse else name for name, reverse in criteria)


def arranged(models: dict[int, dict[str, int]], criteria: list[tuple[str, bool]]) -> list[int]:
    uids = sorted(models)
    for name, reverse in reversed(criteria):
        uids.sort(key=lambda uid: KEYS[name](models[uid]), reverse=reverse)
    return uids


def put(client: Client, number: int, model: dict[str, int], flags: str = '') -> bytes:
    date = f'0{model["arrival"]}-Feb-2026 10:00:00 +0000'
    return client.append(octets(number, model), options=f'({flags}) "{date}"')


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(MESSAGES, max_size=12), ORDERS, st.integers(1, 5), st.integers(1, 8))
def test_sort_is_what_a_naive_sort_gives(
    tmp_path_factory: pytest.TempPathFactory,
    models: list[dict[str, int]],
    criteria: list[tuple[str, bool]],
    whole: int,
    first: int,
) -> None:
    shard = ShardDouble(tmp_path_factory.mktemp('sort'))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(slices, 'WHOLE', whole)
            patch.setattr(slices, '_SAMPLE', 1)
            patch.setattr(order, 'ROWS', 3)
            client = Client(shard, shard.account())
            for number, model in enumerate(models, start=1):
                put(client, number, model)
            client.ask('SELECT INBOX')
            expected = arranged(dict(enumerate(models, start=1)), criteria)
            for verb in ('SORT', 'UID SORT'):
                line = client.lines(f'{verb} ({spelled(criteria)}) UTF-8 ALL')[0]
                assert line == ' '.join(['* SORT', *map(str, expected)])
            for partial in ((first, first + 3), (-first, -first - 3)):
                line = client.lines(
                    f'SORT RETURN (COUNT PARTIAL {partial[0]}:{partial[1]})'
                    f' ({spelled(criteria)}) UTF-8 ALL'
                )[0]
                shown = re.search(r'PARTIAL \(\S+ (\S+)\)', line)
                assert shown is not None
                assert expand(shown[1]) == expected[part(partial, len(expected))]
    finally:
        shard.close()


def expand(text: str) -> list[int]:
    """A sequence set in its order."""
    if text == 'NIL':
        return []
    numbers: list[int] = []
    for word in text.split(','):
        low, _, high = word.partition(':')
        numbers.extend(range(int(low), int(high or low) + 1))
    return numbers


class Follower:
    """What a client makes of one kept search."""

    def __init__(self, uid: bool, ordered: bool, members: list[int]) -> None:
        self.uid = uid
        self.ordered = ordered
        self.members = members

    def obey(self, line: str) -> None:
        assert (' UID ' in line) == self.uid
        for verb, pairs in re.findall(r'(ADDTO|REMOVEFROM) \(([^)]*)\)', line):
            words = pairs.split()
            for position, numbers in zip(words[::2], words[1::2], strict=True):
                self._obey(verb, int(position), expand(numbers))

    def _obey(self, verb: str, position: int, numbers: list[int]) -> None:
        assert bool(position) == self.ordered
        if verb == 'ADDTO':
            assert not set(numbers) & set(self.members)
            at = position - 1 if position else len(self.members)
            self.members[at:at] = numbers
        elif position:
            end = position - 1 + len(numbers)
            assert self.members[position - 1 : end] == numbers
            del self.members[position - 1 : end]
        else:
            for number in numbers:
                self.members.remove(number)
        if not position:
            self.members.sort()

    def expunged(self, number: int) -> None:
        """Message numbers shift; what is expunged must have left before."""
        if not self.uid:
            assert number not in self.members
            self.members = [n - 1 if n > number else n for n in self.members]


class KeptSearches(RuleBasedStateMachine):
    """Two sessions change a mailbox; one keeps searches."""

    directories: Any = None
    numbers = count()

    def __init__(self) -> None:
        super().__init__()
        self.shard = ShardDouble(self.directories / str(next(self.numbers)))
        account = self.shard.account()
        self.client, self.other = Client(self.shard, account), Client(self.shard, account)
        for client in (self.client, self.other):
            client.ask('SELECT INBOX')
        self.followers: dict[str, tuple[str, Follower]] = {}
        self.sent = 0
        self.idle = False

    def teardown(self) -> None:
        self.shard.close()

    def hear(self, answer: bytes) -> None:
        for line in answer.decode('latin-1').split('\r\n'):
            found = re.match(r'\* ESEARCH \(TAG "(\w+)"\)', line)
            if found and found[1] in self.followers:
                self.followers[found[1]][1].obey(line)
            expunge = re.match(r'\* (\d+) EXPUNGE', line)
            if expunge:
                for _, follower in self.followers.values():
                    follower.expunged(int(expunge[1]))

    def ask(self, command: str) -> bytes:
        if self.idle:
            self.idle = False
            self.hear(self.client.send(b'DONE\r\n'))
        answer = self.client.ask(command)
        self.hear(answer)
        return answer

    @rule(model=MESSAGES, seen=st.booleans(), own=st.booleans())
    def append(self, model: dict[str, int], seen: bool, own: bool) -> None:
        self.sent += 1
        flags = '\\Seen' if seen else ''
        if own and not self.idle:
            self.hear(put(self.client, self.sent, model, flags))
        else:
            put(self.other, self.sent, model, flags)

    @precondition(lambda self: self.sent)
    @rule(
        low=st.integers(1, 12),
        width=st.integers(0, 4),
        change=st.sampled_from(('+FLAGS', '-FLAGS', 'FLAGS.SILENT')),
        flag=st.sampled_from(('\\Seen', '\\Flagged', '\\Deleted')),
        own=st.booleans(),
    )
    def store(self, low: int, width: int, change: str, flag: str, own: bool) -> None:
        command = f'UID STORE {low}:{low + width} {change} ({flag})'
        if own:
            self.ask(command)
        else:
            self.other.ask(command)

    @rule(own=st.booleans())
    def expunge(self, own: bool) -> None:
        if own:
            self.ask('EXPUNGE')
        else:
            self.other.ask('EXPUNGE')

    @rule()
    def look(self) -> None:
        """A command that must not tell of expunges."""
        assert b'EXPUNGE\r\n' not in self.ask('SEARCH SEEN')

    @precondition(lambda self: not self.idle)
    @rule()
    def enter_idle(self) -> None:
        self.idle = True
        self.hear(self.client.send(b'i IDLE\r\n'))

    @precondition(lambda self: len(self.followers) < 4)
    @rule(
        key=st.sampled_from(
            (
                'ALL',
                'SEEN',
                'UNSEEN SUBJECT tea',
                'OR FLAGGED SINCE 3-Feb-2026',
                'UID 1:*',
                'TEXT xx',
            )
        ),
        criteria=st.one_of(st.none(), ORDERS),
        uid=st.booleans(),
    )
    def keep(self, key: str, criteria: list[tuple[str, bool]] | None, uid: bool) -> None:
        self.ask('NOOP')
        tag = f'k{len(self.followers)}'
        prefix = 'UID ' if uid else ''
        verb = 'SEARCH' if criteria is None else 'SORT'
        order = '' if criteria is None else f'({spelled(criteria)}) UTF-8 '
        line = f'{prefix}{verb} RETURN (%s) {order}{key}'
        answer = self.client.send(f'{tag} {line % "UPDATE ALL"}\r\n'.encode()).decode()
        found = re.search(r'ALL (\S+)', answer)
        members = expand(found[1]) if found else []
        self.followers[tag] = (line, Follower(uid, criteria is not None, members))

    @invariant()
    def the_client_holds_what_a_fresh_search_gives(self) -> None:
        if self.idle or not self.followers:
            return
        self.ask('NOOP')
        for line, follower in list(self.followers.values()):
            found = re.search(r'\) (?:UID )?ALL (\S+)', self.ask(line % 'ALL').decode())
            assert follower.members == (expand(found[1]) if found else []), line


def test_kept_searches_equal_fresh_ones(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, 'BATCH', 2)
    monkeypatch.setattr(context, 'MAX_NOTED', 4)
    KeptSearches.directories = tmp_path_factory.mktemp('kept')
    KeptSearches.TestCase.settings = settings(
        max_examples=30, stateful_step_count=25, deadline=None
    )
    KeptSearches.TestCase('runTest').runTest()
