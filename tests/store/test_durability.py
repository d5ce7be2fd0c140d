"""kill -9: everything acknowledged is there exactly once, nothing is there in part."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from madmail.store.interface import INLINE_LIMIT
from madmail.store.spool import MemoryBody
from tests.store.conftest import Place, consistent, settle

ROUNDS = 10
RECORD = struct.Struct('!BII')  # what, writer or mailbox, number or UID
SIZES = (200, 5000, INLINE_LIMIT + 1000)
DELIVERED, EXPUNGED = 1, 2

CHILD = f"""
import os, struct, sys
from pathlib import Path
import gevent
from madmail.store.interface import FlagUpdate
from madmail.store.spool import Spool
from madmail.store.sqlite import open_store

RECORD, SIZES = struct.Struct('!BII'), {SIZES!r}
directory, start = Path(sys.argv[1]), int(sys.argv[2])
store = open_store(directory, quota_default=0, trim_from=0.75, trim_to=0.7)
boxes = [store.mailbox(account.id, 'INBOX').id for account in store.accounts()]
addresses = [account.address for account in store.accounts()]

def write(writer):
    number = start
    while True:
        size = SIZES[number % 20 % 3 if number % 20 < 3 else number % 2]
        text = b'%d:%d:' % (writer, number)
        spool = Spool(directory)
        spool.append(text + b'x' * (size - len(text)))
        key = struct.pack('!II', writer, number) + bytes(8)
        for n in range(1 + (number % 7 == 0)):  # sometimes asked twice
            store.deliver(spool.finish(), addresses, delivery_id=key)
        spool.discard()
        os.write(1, RECORD.pack({DELIVERED}, writer, number))
        number += 1

def expunge(box):
    while True:
        gevent.sleep(0.01)
        uids = list(store.uids(box))[::5][:3]
        store.store_flags(box, uids, FlagUpdate('add', 8))
        for uid in store.expunge(box, uids):
            os.write(1, RECORD.pack({EXPUNGED}, box, uid))

gevent.joinall([gevent.spawn(write, n) for n in range(4)] + [gevent.spawn(expunge, boxes[0])])
"""


def test_acknowledged_writes_survive_kill_9_exactly_once(place: Place):
    boxes = [place.inbox(f'{name}@localhost') for name in 'ab']
    chance = random.Random(os.urandom(8))
    delivered: set[tuple[int, int]] = set()
    expunged: set[int] = set()
    uid_next = dict.fromkeys(boxes, 1)
    for count in range(ROUNDS):
        place.store.close()
        records = killed_child(place.directory, count * 100_000, chance.uniform(0.02, 0.25))
        delivered |= {(who, number) for what, who, number in records if what == DELIVERED}
        expunged |= {uid for what, _, uid in records if what == EXPUNGED}
        store = place.open()
        for box in boxes:
            row = store.mailbox_by_id(box)
            assert row.uid_next >= uid_next[box]
            uid_next[box] = row.uid_next
        consistent(store)
    assert len(delivered) > ROUNDS
    store._sweeper.join()
    settle(store)
    found = {box: [content(store, message) for message in rows(store, box)] for box in boxes}
    for contents in found.values():
        assert len(contents) == len(set(contents)), 'stored twice'
    assert delivered <= set(found[boxes[1]])
    assert expunged.isdisjoint(store.uids(boxes[0]))
    assert len(delivered - set(found[boxes[0]])) <= len(expunged) + 3 * ROUNDS
    large = store._one('SELECT count(*) FROM bodies WHERE blob IS NOT NULL')[0]
    assert large > 0
    assert len(list(place.directory.glob('blobs/*/*'))) == large
    assert list(place.directory.glob('spool/*')) == []


def killed_child(directory: Path, start: int, life: float) -> list[tuple[int, int, int]]:
    """Records a child acknowledged until it was killed `life` seconds after the first."""
    child = subprocess.Popen(
        [sys.executable, '-c', CHILD, str(directory), str(start)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    got = os.read(child.stdout.fileno(), RECORD.size)
    assert got, 'the child died by itself'
    time.sleep(life)
    child.send_signal(signal.SIGKILL)
    got += child.stdout.read()
    child.wait()
    child.stdout.close()
    return list(RECORD.iter_unpack(got[: len(got) // RECORD.size * RECORD.size]))


def rows(store, box: int):
    first = 1
    while page := store.messages(box, first, 0xFFFFFFFF):
        yield from page
        first = page[-1].uid + 1


def content(store, message) -> tuple[int, int]:
    body = store.body(message.body_id)
    data = body.read()
    assert len(data) == body.size == message.size
    assert message.size in SIZES
    writer, number, rest = data.split(b':', 2)
    assert rest.strip(b'x') == b''
    return int(writer), int(number)


def test_delivery_without_an_answer_may_be_asked_again_after_a_crash(place: Place):
    """The id is remembered in the transaction that stores, so it is there or neither is."""
    inbox = place.inbox()
    place.store.close()
    records = killed_child_for_repeat(place.directory)
    store = place.open()
    before = store.mailbox_by_id(inbox).messages
    assert before >= records
    for number in range(records + 2):
        store.deliver(MemoryBody(b'x'), ['a@localhost'], delivery_id=number.to_bytes(16, 'big'))
    assert store.mailbox_by_id(inbox).messages == max(before, records + 2)


def killed_child_for_repeat(directory: Path) -> int:
    program = f"""
import os
from pathlib import Path
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store
store = open_store(Path({str(directory)!r}), quota_default=0, trim_from=0.75, trim_to=0.7)
for number in range(10**9):
    key = number.to_bytes(16, 'big')
    store.deliver(MemoryBody(b'x'), ['a@localhost'], delivery_id=key)
    os.write(1, b'.')
"""
    child = subprocess.Popen(
        [sys.executable, '-c', program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    got = os.read(child.stdout.fileno(), 1)
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    got += child.stdout.read()
    child.wait()
    child.stdout.close()
    return len(got)
