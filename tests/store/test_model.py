"""A random walk over the store beside a model of dictionaries."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from madmail.store.interface import FlagUpdate, NewMessage
from madmail.store.spool import MemoryBody
from tests.store.conftest import STORES, Place, consistent

BOX = st.integers(0, 2)
UIDS = st.lists(st.integers(1, 12), max_size=6)
FLAGS = st.integers(0, 31)
WORDS = st.lists(st.sampled_from(['a', 'b', '$c']), unique=True, max_size=2).map(tuple)


class Walk(RuleBasedStateMachine):
    """Each box: uid → (flags, keywords, text); plus what was expunged after which modseq."""

    name = 'sqlite'

    @initialize()
    def make(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix='madmail-model-'))
        self.place = Place(self.root / 's', STORES[self.name])
        inbox = self.place.inbox()
        account = self.place.store.account('a@localhost').id
        self.ids = [inbox] + [
            self.place.store.create_mailbox(account, name).id for name in ('One', 'Two')
        ]
        self.boxes: list[dict[int, tuple[int, tuple[str, ...], bytes]]] = [{}, {}, {}]
        self.next = [1, 1, 1]
        self.marks: list[list[tuple[int, dict[int, Any]]]] = [[], [], []]
        self.counter = 0

    def teardown(self) -> None:
        if hasattr(self, 'place'):
            self.place.store.close()
            shutil.rmtree(self.root)

    @property
    def store(self) -> Any:
        return self.place.store

    def add(self, box: int, content: tuple[int, tuple[str, ...], bytes]) -> int:
        uid = self.next[box]
        self.next[box] += 1
        self.boxes[box][uid] = content
        return uid

    @rule(box=BOX, flags=FLAGS, words=WORDS, count=st.integers(1, 3))
    def append(self, box, flags, words, count):
        texts = [b'%d' % (self.counter + n) for n in range(count)]
        self.counter += count
        new = [NewMessage(MemoryBody(text), flags, words) for text in texts]
        wanted = [self.add(box, (flags, words, text)) for text in texts]
        assert self.store.append(self.ids[box], new) == wanted

    @rule(text=st.binary(max_size=20))
    def deliver(self, text):
        self.place.deliver('a@localhost', data=text)
        self.add(0, (0, (), text))

    @rule(box=BOX, uids=UIDS, mode=st.sampled_from(['add', 'remove', 'replace']), flags=FLAGS,
          words=WORDS)  # fmt: skip
    def change(self, box, uids, mode, flags, words):
        rows = self.store.store_flags(self.ids[box], uids, FlagUpdate(mode, flags, words))
        wanted = []
        for uid in sorted(set(uids) & set(self.boxes[box])):
            bits, had, text = self.boxes[box][uid]
            if mode == 'add':
                bits, had = bits | flags, had + tuple(w for w in words if w not in had)
            elif mode == 'remove':
                bits, had = bits & ~flags, tuple(w for w in had if w not in words)
            else:
                bits, had = flags, words
            self.boxes[box][uid] = bits, had, text
            wanted.append((uid, bits, had))
        assert [row[:3] for row in rows] == wanted

    @rule(box=BOX, uids=st.none() | UIDS)
    def expunge(self, box, uids):
        wanted = [
            uid
            for uid, (flags, _, _) in sorted(self.boxes[box].items())
            if flags & 8 and (uids is None or uid in uids)
        ]
        assert self.store.expunge(self.ids[box], uids) == wanted
        for uid in wanted:
            del self.boxes[box][uid]

    @rule(source=BOX, into=BOX, uids=UIDS, move=st.booleans())
    def copy_or_move(self, source, into, uids, move):
        present = sorted(set(uids) & set(self.boxes[source]))
        wanted = [(uid, self.add(into, self.boxes[source][uid])) for uid in present]
        if move:
            got = self.store.move(self.ids[source], uids, self.ids[into])
            for uid in present:
                del self.boxes[source][uid]
        else:
            got = self.store.copy(self.ids[source], uids, self.ids[into])
        assert got == wanted

    @rule(box=BOX)
    def mark(self, box):
        modseq = self.store.mailbox_by_id(self.ids[box]).highest_modseq
        self.marks[box] = [*self.marks[box][-3:], (modseq, dict(self.boxes[box]))]

    @rule(box=BOX)
    def ask_for_changes(self, box):
        """A client that knows the mailbox as of a mark learns everything since."""
        for modseq, then in self.marks[box]:
            changed = self.store.changed_since(self.ids[box], modseq)
            assert [m.modseq for m in changed] == sorted(m.modseq for m in changed)
            assert all(m.modseq > modseq for m in changed)
            known = {uid: row[:2] for uid, row in then.items()}
            known.update({m.uid: (m.flags, m.keywords) for m in changed})
            for uid in self.store.expunged_since(self.ids[box], modseq):
                known.pop(uid, None)
            assert known == {uid: row[:2] for uid, row in self.boxes[box].items()}

    @rule()
    def reopen(self):
        self.place.reopen()

    @invariant()
    def the_same(self):
        if not hasattr(self, 'place'):
            return
        for mailbox_id, box, uid_next in zip(self.ids, self.boxes, self.next, strict=True):
            rows = self.store.messages(mailbox_id, 1, 10_000)
            assert list(self.store.uids(mailbox_id)) == [row.uid for row in rows] == sorted(box)
            for row in rows:
                text = self.store.body(row.body_id).read()
                assert (row.flags, row.keywords, text) == box[row.uid]
            mailbox = self.store.mailbox_by_id(mailbox_id)
            assert mailbox.uid_next == uid_next
            unseen = [uid for uid, row in box.items() if not row[0] & 1]
            assert (mailbox.messages, mailbox.unseen) == (len(box), len(unseen))
            assert self.store.first_unseen(mailbox_id) == min(unseen, default=0)
        consistent(self.store)


@pytest.mark.parametrize('name', sorted(STORES))
def test_store_behaves_like_the_model(name):
    class Named(Walk):
        pass

    Named.name = name
    Named.TestCase.settings = settings(
        max_examples=30,
        stateful_step_count=30,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    Named.TestCase('runTest').runTest()
