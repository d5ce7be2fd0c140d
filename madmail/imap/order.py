"""The order of messages for SORT (RFC 5256, RFC 5957): their keys, and sorting by them.

ARRIVAL and SIZE stand in the rows; the others are read from header blocks and
remembered within a bound, for clients sort the same mailbox again and again.
All of it goes in slices.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from madmail.imap.matching import ROWS, Unreadable
from madmail.imap.syntax import Criterion
from madmail.imap.view import Ranges
from madmail.message import sort_key
from madmail.message.header_fields import first_values
from madmail.message.slices import STEP, Result, Sliced, stable_sort
from madmail.message.sort_key import Values
from madmail.message.structure import Structure
from madmail.store.interface import Message

if TYPE_CHECKING:
    from madmail.imap.mailbox import OpenMailbox, OpenMailboxes
    from madmail.imap.session import ImapSession
    from madmail.imap.view import View

MAX_REMEMBERED = 32 * 1024 * 1024  # octets, about, of a shard's remembered keys
ENTRY = 150  # octets an entry costs beside its text

Key = int | str

_NUMBERS = frozenset(('ARRIVAL', 'DATE', 'SIZE'))

_HEADER_KEYS: dict[str, Callable[[Values, Message], Key]] = {
    'DATE': lambda values, row: _sent(values, row),
    'SUBJECT': lambda values, row: sort_key.subject(values),
    'FROM': lambda values, row: sort_key.mailbox(values, b'from'),
    'TO': lambda values, row: sort_key.mailbox(values, b'to'),
    'CC': lambda values, row: sort_key.mailbox(values, b'cc'),
    'DISPLAYFROM': lambda values, row: sort_key.display(values, b'from'),
    'DISPLAYTO': lambda values, row: sort_key.display(values, b'to'),
}


def _sent(values: Values, row: Message) -> int:
    date = sort_key.sent_date(values)
    return row.internal_date if date is None else date  # RFC 5256 2.2


class Memory:
    """Keys of one shard's messages, by mailbox and criterion; the least used ones go first."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._tables: OrderedDict[tuple[int, int, str], dict[int, Key]] = OrderedDict()
        self._costs: dict[tuple[int, int, str], int] = {}
        self._cost = 0

    def get(self, box: OpenMailbox, name: str, uid: int) -> Key | None:
        table = self._tables.get((box.id, box.uid_validity, name))
        return None if table is None else table.get(uid)

    def put(self, box: OpenMailbox, name: str, uid: int, key: Key) -> None:
        cost = ENTRY + (len(key) if isinstance(key, str) else 0)
        where = (box.id, box.uid_validity, name)
        while self._cost + cost > self._limit and self._tables:
            oldest, _ = self._tables.popitem(last=False)
            self._cost -= self._costs.pop(oldest)
        table = self._tables.setdefault(where, {})
        if uid not in table:
            self._cost += cost
            self._costs[where] = self._costs.get(where, 0) + cost
            table[uid] = key

    def used(self, box: OpenMailbox, name: str) -> None:
        where = (box.id, box.uid_validity, name)
        if where in self._tables:
            self._tables.move_to_end(where)


_memories: WeakKeyDictionary[OpenMailboxes, Memory] = WeakKeyDictionary()


def _memory(session: ImapSession) -> Memory:
    boxes = session.shard.boxes
    memory = _memories.get(boxes)
    if memory is None:
        memory = _memories[boxes] = Memory()
    return memory


def drive(session: ImapSession, work: Sliced[Result]) -> Result:
    """Run a long computation, looking at the clock between its slices."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: Result = stop.value
            return result
        session.pause()


def header_values(session: ImapSession, view: View, row: Message) -> Values | None:
    """A message's header fields; None if it has just been expunged."""
    store = session.shard.store
    body = store.body(row.body_id)
    if body is None:
        if store.message(view.box.id, row.uid) is None:
            return None
        raise Unreadable
    return first_values(Structure(body).header())


def keys_of(
    session: ImapSession, view: View, row: Message, names: Sequence[str]
) -> list[Key] | None:
    """A message's keys by these criteria; None if it has just been expunged."""
    memory = _memory(session)
    values: Values | None = None
    keys: list[Key] = []
    for name in names:
        if name == 'ARRIVAL':
            keys.append(row.internal_date)
        elif name == 'SIZE':
            keys.append(row.size)
        else:
            key = memory.get(view.box, name, row.uid)
            if key is None:
                if values is None:
                    values = header_values(session, view, row)
                    if values is None:
                        return None
                key = _HEADER_KEYS[name](values, row)
                memory.put(view.box, name, row.uid, key)
            keys.append(key)
    return keys


def rows_of(session: ImapSession, view: View, uids: Sequence[int]) -> Iterator[Message]:
    """The rows of ascending UIDs, as far as they still exist; may switch between any two."""
    position = 0
    while position < len(uids):
        batch = uids[position : position + ROWS]
        position += len(batch)
        wanted = frozenset(batch)
        for low, high in _spans(batch):
            for row in session.shard.store.messages(view.box.id, low, high, ROWS):
                if row.uid in wanted:
                    yield row
                session.pause()
        session.check()


def _spans(uids: Sequence[int]) -> Ranges:
    """Ranges that hold ascending UIDs and little else, at most ROWS numbers each."""
    spans: Ranges = []
    for uid in uids:
        if spans and uid - spans[-1][1] < 8 and uid - spans[-1][0] < ROWS:
            spans[-1] = (spans[-1][0], uid)
        else:
            spans.append((uid, uid))
    return spans


def arranged(
    session: ImapSession, view: View, uids: Sequence[int], criteria: Sequence[Criterion]
) -> array[int]:
    """The UIDs, ascending before, in the order asked for; may switch.

    What is expunged meanwhile is left out.
    """
    names = tuple(dict.fromkeys(criterion.name for criterion in criteria))
    # PERF: of a list the garbage collector would look at every item.
    columns: dict[str, Any] = {name: array('q') if name in _NUMBERS else [] for name in names}
    known = array('I')
    for row in rows_of(session, view, uids):
        keys = keys_of(session, view, row, names)
        if keys is None:
            continue
        known.append(row.uid)
        for name, key in zip(names, keys, strict=True):
            columns[name].append(key)
    memory = _memory(session)
    for name in names:
        memory.used(view.box, name)
    return drive(session, _in_order(known, criteria, columns))


def _in_order(
    uids: array[int], criteria: Sequence[Criterion], columns: dict[str, Any]
) -> Sliced[array[int]]:
    order: Sequence[int] = range(len(uids))
    yield
    # The last criterion first: each sort keeps the order of what it finds equal, which
    # in the end is that of message numbers (RFC 5256 3), also under REVERSE.
    for criterion in reversed(criteria):
        order = yield from stable_sort(order, columns[criterion.name], criterion.reverse)
    result = array('I')
    for start in range(0, len(order), STEP):
        result.extend([uids[index] for index in order[start : start + STEP]])
        yield
    return result


def precedes(
    criteria: Sequence[Criterion],
    one: tuple[Iterable[Key], int],
    other: tuple[Iterable[Key], int],
) -> bool:
    """Whether the message of these keys, one a criterion, and this UID comes first."""
    for criterion, mine, its in zip(criteria, one[0], other[0], strict=True):
        if mine != its:
            return (mine < its) != criterion.reverse  # type: ignore[operator]
    return one[1] < other[1]
