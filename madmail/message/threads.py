"""Threads: RFC 5256 4, ORDEREDSUBJECT and REFERENCES, and REFS beside them.

REFS is REFERENCES without the look at subjects; its threads are in the order of
their latest arrival, which is what a client shows first.

A node is a number: below the count of messages it is that message, above it a
message that others refer to and that is not there (a dummy).  Nothing here
recurses, for threads may be as deep as a mailbox is large.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from typing import NamedTuple

from madmail.message.base_subject import base_subject
from madmail.message.collation import casemap
from madmail.message.slices import STEP, WHOLE, Sliced, stable_sort
from madmail.message.sort_key import MAX_KEY, Values

MAX_REFERENCES = 200  # the last ones of a message
MAX_REFERENCE_FIELD = 64 * 1024  # octets looked at
MAX_DUMMIES = 500_000  # in one mailbox; further references name nothing
MAX_CLIMB = 1000  # parents looked at to find a loop; a deeper one counts as one
MAX_DATE = (1 << 38) - 1  # beyond the year 9999
MESSAGE = (1 << 24) - 1  # of a key: the message's index, more than a mailbox holds
NEVER = (1 << 63) - 1  # the key of a dummy without children
TABLES = 61

_MESSAGE_ID = re.compile(rb'<([^<>]{1,998})>')
_ESCAPE = re.compile(rb'\\(.)')
_BLANKS = re.compile(rb'[ \t\r\n]+')


class Linked(NamedTuple):
    """One message as threads see it."""

    message_id: bytes  # b'' for none
    parents: tuple[bytes, ...]  # oldest first
    subject: str  # base subject, casemapped
    reply: bool
    date: int  # sent date; for REFS the internal date


class Numbers:
    """Numbers for texts, in the order of their first appearance.

    Many tables instead of one, so that none takes long to grow or to free.
    """

    __slots__ = ('_tables', 'count')

    def __init__(self) -> None:
        self._tables: list[dict[bytes | str, int]] = [{} for _ in range(TABLES)]
        self.count = 0

    def number(self, text: bytes | str, limit: int = 1 << 31) -> int:
        """Its number; -1 for a new one if there are `limit` of them."""
        table = self._tables[hash(text) % TABLES]
        number = table.get(text, -1)
        if number < 0 and self.count < limit:
            number = table[text] = self.count
            self.count += 1
        return number

    def free(self) -> Sliced[None]:
        while self._tables:
            del self._tables[-1]
            yield


class Messages:
    """Many messages as columns of numbers.

    PERF: of a hundred thousand tuples, or lists, or the items of a list, the
    garbage collector would look at each for tens of milliseconds at a time.
    """

    __slots__ = ('dates', 'ends', 'ids', 'names', 'parents', 'replies', 'subjects', 'texts')

    def __init__(self) -> None:
        self.names = Numbers()  # Message-IDs
        self.ids = array('i')  # its own name; -1 for none
        self.parents = array('i')  # the names that messages refer to, all in a row
        self.ends = array('q')  # where in `parents` each message's end
        self.subjects = array('i')  # what `texts` calls the subject; 0 is the empty one
        self.texts = Numbers()
        self.texts.number('')
        self.replies = bytearray()
        self.dates = array('q')

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, message: Linked) -> None:
        name = message.message_id
        self.ids.append(self.names.number(name) if name else -1)
        limit = len(self.ids) + MAX_DUMMIES
        for parent in message.parents:
            number = self.names.number(parent, limit)
            if number >= 0:
                self.parents.append(number)
        self.ends.append(len(self.parents))
        self.subjects.append(self.texts.number(message.subject))
        self.replies.append(message.reply)
        self.dates.append(min(max(message.date, -MAX_DATE), MAX_DATE))

    def free(self) -> Sliced[None]:
        """PERF: to free 100,000 messages at once would hold the loop for 20 ms."""
        yield from self.names.free()
        yield from self.texts.free()

    def keys(self) -> Sliced[array[int]]:
        """By date; of equal ones the lower message number is first (RFC 5256 2.2)."""
        keys = array('q')
        for start in range(0, len(self), STEP):
            dates = enumerate(self.dates[start : start + STEP], start)
            keys.extend([date << 24 | index for index, date in dates])
            yield
        return keys


class Forest(NamedTuple):
    """Nodes in order: the roots, and whose children stand where in one row.

    Those of `node` are `row[starts[node] : starts[node + 1]]`; nodes from
    `messages` on are dummies.
    """

    messages: int
    roots: array[int]
    starts: array[int]
    row: array[int]


def linked(values: Values, date: int) -> Linked:
    """From a header block's first values."""
    own = _ids(values.get(b'message-id', b''))
    parents = _ids(values.get(b'references', b'')[-MAX_REFERENCE_FIELD:])[-MAX_REFERENCES:]
    if not parents:
        # RFC 5256 4: else the first of In-Reply-To
        parents = _ids(values.get(b'in-reply-to', b''))[:1]
    base = base_subject(values.get(b'subject', b''))
    return Linked(
        own[0] if own else b'', tuple(parents), casemap(base.text[:MAX_KEY]), base.reply, date
    )


def _ids(value: bytes) -> list[bytes]:
    """Message-IDs in normal form: without blanks, quotes and escapes."""
    found = []
    for text in _MESSAGE_ID.findall(value[:MAX_REFERENCE_FIELD]):
        if b'"' in text or b'\\' in text:
            text = _ESCAPE.sub(rb'\1', text.replace(b'"', b''))
        text = _BLANKS.sub(b'', text)
        if b'@' in text[1:-1]:
            found.append(text)
    return found


def ordered_subject(messages: Messages) -> Sliced[Forest]:
    """RFC 5256 4: ORDEREDSUBJECT; the first of a subject is the parent of the others."""
    count = len(messages)
    keys = yield from messages.keys()
    order = yield from stable_sort(range(count), keys)
    first = array('i', [-1]) * messages.texts.count  # message of each subject
    parents = array('i', [-1]) * count
    roots = array('i')
    for position, index in enumerate(order):
        subject = messages.subjects[index]
        parents[index] = first[subject]
        if first[subject] < 0:
            first[subject] = index
            roots.append(index)
        if position % STEP == 0:
            yield
    return (yield from _arranged(count, parents, roots, keys))


def references(messages: Messages, *, subjects: bool = True) -> Sliced[Forest]:
    """RFC 5256 4: REFERENCES; REFS without `subjects`."""
    count = len(messages)
    parents = yield from _links(messages)
    yield from _prune(parents, count)
    keys = yield from messages.keys()
    keys.extend(array('q', [NEVER]) * (len(parents) - count))
    roots = yield from _roots(parents, count, keys)
    if subjects:
        roots = yield from stable_sort(roots, keys)  # step 4
        yield from _merge(messages, roots, parents, keys)  # step 5
        roots = yield from _roots(parents, count, keys)
        roots = yield from stable_sort(roots, keys)
    else:
        latest = yield from _latest(parents, count, keys)
        roots = yield from stable_sort(roots, latest)
    return (yield from _arranged(count, parents, roots, keys))


def _links(messages: Messages) -> Sliced[array[int]]:
    """Step 1: every node's parent, -1 for none."""
    count = len(messages)
    nodes = array('i', [-1]) * messages.names.count
    for index, name in enumerate(messages.ids):
        if name >= 0 and nodes[name] < 0:
            nodes[name] = index  # a duplicate has no name
        if index % STEP == 0:
            yield
    parents = array('i', [-1]) * count
    fertile = bytearray(count)  # whether a node ever was a parent

    def loops(parent: int, child: int) -> bool:
        if parent == child:
            return True
        if not fertile[child]:
            return False
        for _ in range(MAX_CLIMB):
            if parent < 0:
                return False
            if parent == child:
                return True
            parent = parents[parent]
        return True

    steps = start = 0
    for index, end in enumerate(messages.ends):
        above = -1
        for name in messages.parents[start:end]:
            node = nodes[name]
            if node < 0:
                node = nodes[name] = len(parents)
                parents.append(-1)
                fertile.append(0)
            # step 1 (A): a link that is there stays
            if above >= 0 and parents[node] < 0 and not loops(above, node):
                parents[node] = above
                fertile[above] = 1
            above = node
            steps += 1
        start = end
        # step 1 (B): the message itself knows best
        parents[index] = -1
        if above >= 0 and not loops(above, index):
            parents[index] = above
            fertile[above] = 1
        steps += 1
        if steps >= STEP // 4:
            steps = 0
            yield
    return parents


def _prune(parents: array[int], count: int) -> Sliced[None]:
    """Steps 2 and 3: parents are messages, or dummies at the top that have several children."""
    steps = 0
    passed: list[int] = []
    for node in range(count):
        above = parents[node]
        while above >= count and parents[above] >= 0:
            passed.append(above)
            above = parents[above]
        for dummy in passed:
            parents[dummy] = above  # who comes this way again has it shorter
        parents[node] = above
        steps += 1 + len(passed)
        passed.clear()
        if steps >= STEP:
            steps = 0
            yield
    children = array('i', [0]) * (len(parents) - count)
    for node in range(count):
        if parents[node] >= count:
            children[parents[node] - count] += 1
        if node % STEP == 0:
            yield
    for node in range(count):
        if parents[node] >= count and children[parents[node] - count] == 1:
            parents[node] = -1
        if node % STEP == 0:
            yield


def _roots(parents: array[int], count: int, keys: array[int]) -> Sliced[array[int]]:
    """What stands at the top; dummies get the key of their first child."""
    roots = array('i')
    for node in range(count, len(parents)):
        keys[node] = NEVER
        if node % STEP == 0:
            yield
    for node in range(count):
        above = parents[node]
        if above < 0:
            roots.append(node)
        elif above >= count and keys[node] < keys[above]:
            if keys[above] == NEVER:
                roots.append(above)
            keys[above] = keys[node]
        if node % STEP == 0:
            yield
    return roots


def _merge(
    messages: Messages, roots: array[int], parents: array[int], keys: array[int]
) -> Sliced[None]:
    """Step 5: threads of the same base subject become one.  `roots` are in order."""
    count = len(messages)
    replies = messages.replies

    def subject_of(root: int) -> int:
        # The last digits of a key are its message; a dummy has that of its first child.
        return messages.subjects[root if root < count else keys[root] & MESSAGE]

    table = array('i', [-1]) * messages.texts.count
    for position, root in enumerate(roots):
        subject = subject_of(root)
        other = table[subject]
        if other < 0 or (
            other < count and (root >= count or (replies[other] and not replies[root]))
        ):
            table[subject] = root
        if position % STEP == 0:
            yield
    same = array('i', [-1]) * len(parents)  # the dummy that takes the children of another
    for position, root in enumerate(roots):
        if position % STEP == 0:
            yield
        subject = subject_of(root)
        other = table[subject]
        if not subject or other == root or parents[root] >= 0:
            continue
        if other >= count:
            # a dummy takes the other's children, or the other itself
            if root >= count:
                same[root] = other
            else:
                parents[root] = other
        elif replies[root] and not replies[other]:
            parents[root] = other
        else:
            dummy = len(parents)
            parents.append(-1)
            keys.append(NEVER)
            parents[other] = parents[root] = dummy
            table[subject] = dummy
    for node in range(count):
        above = parents[node]
        if count <= above < len(same) and same[above] >= 0:
            parents[node] = same[above]
        if node % STEP == 0:
            yield


def _latest(parents: array[int], count: int, keys: array[int]) -> Sliced[array[int]]:
    """REFS: keys by which roots are ordered, the latest message of their thread."""
    latest = keys[:]
    tops = parents[:]
    steps = 0
    passed: list[int] = []
    for node in range(count):
        top = node
        while tops[top] >= 0:
            passed.append(top)
            top = tops[top]
        for below in passed:
            tops[below] = top
        latest[top] = max(latest[top], keys[node])
        steps += 1 + len(passed)
        passed.clear()
        if steps >= STEP:
            steps = 0
            yield
    return latest


def _arranged(
    count: int, parents: array[int], roots: array[int], keys: array[int]
) -> Sliced[Forest]:
    """Step 6: children by date, each parent's in a row; `roots` are in order."""
    starts = array('i', [0]) * (len(parents) + 1)
    for node in range(count):
        if parents[node] >= 0:
            starts[parents[node] + 1] += 1
        if node % STEP == 0:
            yield
    children = 0
    for node in range(len(starts)):
        children += starts[node]
        starts[node] = children
        if node % STEP == 0:
            yield
    row = array('i', [0]) * children
    filled = array('i', [0]) * len(parents)
    for node in range(count):
        above = parents[node]
        if above >= 0:
            row[starts[above] + filled[above]] = node
            filled[above] += 1
        if node % STEP == 0:
            yield
    steps = 0
    for node in range(len(parents)):
        size = filled[node]
        if size > 1:
            place = slice(starts[node], starts[node + 1])
            if size > WHOLE:
                row[place] = yield from stable_sort(row[place], keys)
            else:
                row[place] = array('i', sorted(row[place], key=keys.__getitem__))
        steps += 1 + size
        if steps >= STEP:
            steps = 0
            yield
    return Forest(count, roots, starts, row)


def written(forest: Forest, number: Callable[[int], int]) -> Sliced[bytes]:
    """The thread lists of a THREAD response (RFC 5256 5)."""
    count, roots, starts, row = forest
    lines: list[bytes] = []
    pieces: list[bytes] = []
    steps = 0
    for root in roots:
        pieces.append(b'(')
        pending: list[int | bytes] = [b')', root]
        while pending:
            node = pending.pop()
            if isinstance(node, bytes):
                pieces.append(node)
                continue
            below = row[starts[node] : starts[node + 1]]
            if node < count:
                pieces.append(b'%d' % number(node))
                if below:
                    pieces.append(b' ')
            if len(below) == 1:
                pending.append(below[0])
            else:
                for child in reversed(below):
                    pending += (b')', child, b'(')
            steps += 1 + len(below) // 4
            if steps >= STEP // 2:
                steps = 0
                lines.append(b''.join(pieces))
                pieces.clear()
                yield
    lines.append(b''.join(pieces))
    return b''.join(lines)
