"""Threads: RFC 5256 4, ORDEREDSUBJECT and REFERENCES, and REFS beside them.

REFS is REFERENCES without the look at subjects; its threads are in the order of
their latest arrival, which is what a client shows first.

A node is a number: below the count of messages it is that message, above it a
message that others refer to and that is not there (a dummy).  Nothing here
recurses, for threads may be as deep as a mailbox is large.
"""

from __future__ import annotations

import re
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


class Messages:
    """Many messages as columns.

    A hundred thousand tuples would keep the garbage collector busy for tens of
    milliseconds at a time; columns of atoms do not concern it.
    """

    __slots__ = ('dates', 'ids', 'parents', 'replies', 'subjects')

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.parents: list[tuple[bytes, ...]] = []
        self.subjects: list[str] = []
        self.replies = bytearray()
        self.dates: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, message: Linked) -> None:
        self.ids.append(message.message_id)
        self.parents.append(message.parents)
        self.subjects.append(message.subject)
        self.replies.append(message.reply)
        self.dates.append(message.date)

    def free(self) -> Sliced[None]:
        """PERF: to free 100,000 messages at once would hold the loop for 20 ms."""
        for column in (self.ids, self.parents, self.subjects, self.dates):
            while column:
                del column[-STEP:]
                yield

    def keys(self) -> Sliced[list[int]]:
        """By date; of equal ones the lower message number is first (RFC 5256 2.2)."""
        keys: list[int] = []
        for start in range(0, len(self), STEP):
            dates = enumerate(self.dates[start : start + STEP], start)
            keys += [date << 32 | index for index, date in dates]
            yield
        return keys


class Forest(NamedTuple):
    """`roots` and `children` in order; nodes from `messages` on are dummies."""

    messages: int
    roots: list[int]
    children: dict[int, list[int]]


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
    subjects = messages.subjects
    keys = yield from messages.keys()
    order = yield from stable_sort(list(range(len(messages))), keys)
    order = yield from stable_sort(order, subjects)
    children: dict[int, list[int]] = {}
    roots: list[int] = []
    for position, index in enumerate(order):
        if roots and subjects[roots[-1]] == subjects[index]:
            children.setdefault(roots[-1], []).append(index)
        else:
            roots.append(index)
        if position % STEP == 0:
            yield
    roots = yield from stable_sort(roots, keys)
    return Forest(len(messages), roots, children)


def references(messages: Messages, *, subjects: bool = True) -> Sliced[Forest]:
    """RFC 5256 4: REFERENCES; REFS without `subjects`."""
    count = len(messages)
    parents = yield from _links(messages)
    children = yield from _pruned(parents, count)
    roots = children.pop(-1, [])
    keys = yield from messages.keys()
    keys += [0] * (len(parents) - count)
    yield
    for root in roots:
        if root >= count:
            keys[root] = min([keys[child] for child in children[root]])
    if subjects:
        roots = yield from stable_sort(roots, keys)  # step 4
        roots = yield from _merged(messages, roots, children, keys)  # step 5
    else:
        keys = yield from _latest(roots, children, keys)
    # step 6
    for number, siblings in enumerate(children.values()):
        if len(siblings) > WHOLE:
            siblings[:] = yield from stable_sort(siblings, keys)
        elif len(siblings) > 1:
            siblings.sort(key=keys.__getitem__)
        if number % STEP == 0:
            yield
    roots = yield from stable_sort(roots, keys)
    return Forest(count, roots, children)


def _links(messages: Messages) -> Sliced[list[int]]:
    """Step 1: every node's parent, -1 for none."""
    count = len(messages)
    parents = [-1] * count
    fertile = bytearray(count)  # whether a node ever was a parent
    nodes: dict[bytes, int] = {}
    for index, name in enumerate(messages.ids):
        if name:
            nodes.setdefault(name, index)  # a duplicate has no name
        if index % STEP == 0:
            yield

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

    steps = 0
    for index, names in enumerate(messages.parents):
        above = -1
        for name in names:
            node = nodes.get(name, -1)
            if node < 0:
                if len(parents) - count >= MAX_DUMMIES:
                    continue
                node = nodes[name] = len(parents)
                parents.append(-1)
                fertile.append(0)
            # step 1 (A): a link that is there stays
            if above >= 0 and parents[node] < 0 and not loops(above, node):
                parents[node] = above
                fertile[above] = 1
            above = node
            steps += 1
        # step 1 (B): the message itself knows best
        parents[index] = -1
        if above >= 0 and not loops(above, index):
            parents[index] = above
            fertile[above] = 1
        steps += 1
        if steps >= STEP // 4:
            steps = 0
            yield
    while nodes:
        for _ in range(min(STEP, len(nodes))):
            nodes.popitem()
        yield
    return parents


def _pruned(parents: list[int], count: int) -> Sliced[dict[int, list[int]]]:
    """Steps 2 and 3: children without dummies, except among the roots, which stand under -1."""
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(parents):
        children.setdefault(parent, []).append(node)
        if node % STEP == 0:
            yield
    order = list(children.get(-1, ()))
    for position, node in enumerate(order):  # it grows; in the end parents stand before children
        order.extend(children.get(node, ()))
        if position % STEP == 0:
            yield
    yield
    order.reverse()
    order.append(-1)
    for position, node in enumerate(order):
        below = children.get(node)
        if below is not None and below[-1] >= count:  # they still ascend
            kept: list[int] = []
            for child in below:
                if child < count:
                    kept.append(child)
                    continue
                grandchildren = children.get(child, [])
                if node < 0 and len(grandchildren) > 1:
                    kept.append(child)
                    continue
                kept.extend(grandchildren)
                children.pop(child, None)
            if kept:
                children[node] = kept
            else:
                del children[node]
        if position % STEP == 0:
            yield
    return children


def _merged(
    messages: Messages,
    roots: list[int],
    children: dict[int, list[int]],
    keys: list[int],
) -> Sliced[list[int]]:
    """Step 5: threads of the same base subject become one."""
    count = len(messages)

    subjects, replies = messages.subjects, messages.replies

    def subject_of(root: int) -> str:
        if root < count:
            return subjects[root]
        return subjects[min(children[root], key=keys.__getitem__)]

    table: dict[str, int] = {}
    for position, root in enumerate(roots):
        subject = subject_of(root)
        if subject:
            other = table.setdefault(subject, root)
            if other < count and (root >= count or (replies[other] and not replies[root])):
                table[subject] = root
        if position % STEP == 0:
            yield
    gone: set[int] = set()
    created: list[int] = []
    for position, root in enumerate(roots):
        if root in gone:
            continue
        subject = subject_of(root)
        other = table.get(subject, root) if subject else root
        if other == root:
            continue
        gone.add(root)
        if other >= count:
            # a dummy takes the other's children, or the other itself
            children[other].extend(children.pop(root) if root >= count else [root])
        elif replies[root] and not replies[other]:
            children.setdefault(other, []).append(root)
        else:
            gone.add(other)
            dummy = len(keys)
            children[dummy] = [other, root]
            keys.append(0)
            created.append(dummy)
            table[subject] = dummy
        if position % STEP == 0:
            yield
    left: list[int] = []
    for start in range(0, len(roots), STEP):
        left += [root for root in roots[start : start + STEP] if root not in gone]
        yield
    left += created
    for root in left:
        if root >= count:
            keys[root] = min([keys[child] for child in children[root]])
    return left


def _latest(roots: list[int], children: dict[int, list[int]], keys: list[int]) -> Sliced[list[int]]:
    """REFS: roots are ordered by the latest message below them."""
    result = list(keys)
    for position, root in enumerate(roots):
        pending = [root]
        latest = keys[root]
        while pending:
            node = pending.pop()
            latest = max(latest, keys[node])
            pending.extend(children.get(node, ()))
        result[root] = latest
        if position % STEP == 0:
            yield
    return result


def written(forest: Forest, number: Callable[[int], int]) -> Sliced[bytes]:
    """The thread lists of a THREAD response (RFC 5256 5); uses up the forest."""
    count, roots, children = forest
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
            below = children.get(node, ())
            if node < count:
                pieces.append(b'%d' % number(node))
                if below:
                    pieces.append(b' ')
            if len(below) == 1:
                pending.append(below[0])
            else:
                for child in reversed(below):
                    pending += (b')', child, b'(')
            steps += 1
            if steps % STEP == 0:
                lines.append(b''.join(pieces))
                pieces.clear()
                yield
    lines.append(b''.join(pieces))
    while children:
        for _ in range(min(STEP, len(children))):
            children.popitem()
        yield
    return b''.join(lines)
