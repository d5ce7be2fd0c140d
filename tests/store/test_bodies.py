"""Spool, body files and their life."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from madmail.store import blobs as blob_module
from madmail.store.blobs import Blobs
from madmail.store.interface import INLINE_LIMIT, FlagUpdate, NewMessage, Outcome, StoreFull
from madmail.store.spool import FileBody, MemoryBody, Spool
from tests.store.conftest import Place, consistent, settle

LARGE = os.urandom(INLINE_LIMIT + 70_000)


def blobs(place: Place) -> list[Path]:
    return list((place.directory / 'blobs').glob('*/*'))


def spooled(place: Place, data: bytes) -> Spool:
    spool = Spool(place.directory)
    for start in range(0, len(data), 10_000):
        spool.append(memoryview(data)[start : start + 10_000])
    return spool


@pytest.mark.parametrize('size', [0, 1, INLINE_LIMIT, INLINE_LIMIT + 1, INLINE_LIMIT * 3])
def test_spool_gives_back_what_it_got(tmp_path, size):
    data = os.urandom(size)
    spool = Spool(tmp_path)
    for start in range(0, size, 65_536):
        spool.append(data[start : start + 65_536])
    assert spool.size == size
    body = spool.finish()
    assert isinstance(body, FileBody if size > INLINE_LIMIT else MemoryBody)
    assert body.size == size
    assert body.read() == data
    assert body.read(5, 70_000) == data[5:70_005]
    assert body.read(size, 10) == b''
    assert spool.finish() is body
    with pytest.raises(ValueError, match='finished'):
        spool.append(b'x')
    spool.discard()
    spool.discard()
    assert list(tmp_path.glob('spool/*')) == []


def test_spool_file_goes_with_its_last_user(tmp_path):
    spool = Spool(tmp_path)
    spool.append(LARGE)
    body = spool.finish()
    del spool
    assert body.read(1, 3) == LARGE[1:4]
    (path,) = tmp_path.glob('spool/*')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    del body
    assert not path.exists()


def test_spool_abandoned_in_the_middle_leaves_no_file(tmp_path):
    spool = Spool(tmp_path)
    spool.append(LARGE)
    del spool
    assert list(tmp_path.glob('spool/*')) == []


def test_spool_on_a_full_disk_says_so(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, 'full')

    spool = Spool(tmp_path)
    monkeypatch.setattr(os, 'write', full)
    with pytest.raises(StoreFull):
        spool.append(LARGE)
    spool.discard()
    assert list(tmp_path.glob('spool/*')) == []


def test_body_file_is_kept_until_the_last_reference_is_gone(place: Place):
    store = place.store
    boxes = [place.inbox('a@localhost'), place.inbox('b@localhost')]
    spool = spooled(place, LARGE)
    outcomes = store.deliver(
        spool.finish(), ['a@localhost', 'b@localhost'], delivery_id=os.urandom(16)
    )
    assert outcomes == [Outcome.STORED] * 2
    spool.discard()
    (path,) = blobs(place)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.stat().st_nlink == 1
    store = place.reopen()
    body = store.body(store.message(boxes[0], 1).body_id)
    assert body.size == len(LARGE)
    assert b''.join(body.read(at, 65_536) for at in range(0, body.size, 65_536)) == LARGE
    for box in boxes:
        assert blobs(place) == [path]
        store.store_flags(box, [1], FlagUpdate('add', 8))
        store.expunge(box)
        settle(store)
    assert blobs(place) == []
    assert body.read(100, 50) == LARGE[100:150]  # who reads it can finish
    consistent(store)


def test_spool_file_of_another_directory_is_adopted_by_several(place: Place, tmp_path):
    inbox = place.inbox()
    spool = Spool(tmp_path / 'elsewhere')
    spool.append(LARGE)
    body = spool.finish()
    assert isinstance(body, FileBody)
    foreign = FileBody(body.path, body.size)
    place.store.append(inbox, [NewMessage(foreign), NewMessage(foreign)])
    assert body.path.exists()
    assert body.path.stat().st_nlink == 3
    spool.discard()
    for uid in (1, 2):
        assert place.store.body(place.store.message(inbox, uid).body_id).read() == LARGE


def test_large_body_from_memory_or_across_devices_is_copied(place: Place, monkeypatch):
    inbox = place.inbox()
    place.store.append(inbox, [NewMessage(MemoryBody(LARGE))])

    def refused(*arguments):
        raise OSError(errno.EXDEV, 'other device')

    monkeypatch.setattr(os, 'link', refused)
    spool = spooled(place, LARGE)
    place.store.append(inbox, [NewMessage(spool.finish())])
    spool.discard()
    for uid in (1, 2):
        assert place.store.body(place.store.message(inbox, uid).body_id).read() == LARGE


def test_blob_of_a_refused_append_is_removed(place: Place):
    inbox = place.inbox()
    place.store.set_quota(place.store.account('a@localhost').id, 1000)
    with pytest.raises(Exception):  # noqa: B017
        place.store.append(inbox, [NewMessage(MemoryBody(LARGE))])
    assert place.deliver('a@localhost', data=LARGE) == [Outcome.OVER_QUOTA]
    assert place.deliver('nobody@localhost', data=LARGE) == [Outcome.UNKNOWN]
    settle(place.store)
    assert blobs(place) == []


def test_file_that_vanished_is_an_error_and_no_blob(place: Place, tmp_path):
    place.inbox()
    gone = FileBody(tmp_path / 'gone', INLINE_LIMIT + 1)
    with pytest.raises(FileNotFoundError):
        place.store.deliver(gone, ['a@localhost'], delivery_id=os.urandom(16))
    assert blobs(place) == []


def test_full_disk_while_adopting(place: Place, monkeypatch):
    inbox = place.inbox()

    def full(*arguments):
        raise OSError(errno.ENOSPC, 'full')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'link', full)
        spool = spooled(place, LARGE)
        with pytest.raises(StoreFull):
            place.store.append(inbox, [NewMessage(spool.finish())])
    assert blobs(place) == []
    place.store.append(inbox, [NewMessage(spool.finish())])
    assert place.store.mailbox_by_id(inbox).messages == 1


def test_leftovers_of_a_crash_are_swept_and_nothing_else(place: Place):
    inbox = place.inbox()
    place.append(inbox, 2, size=INLINE_LIMIT + 5)
    kept = set(blobs(place))
    parent = next(iter(kept)).parent
    orphan = parent / (parent.name + 'f' * 30)
    orphan.write_bytes(b'x')
    left = place.directory / 'spool' / ('e' * 32)
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b'x')
    store = place.reopen()
    place.append(inbox, 1, size=INLINE_LIMIT + 5)
    store._sweeper.join()
    assert not orphan.exists()
    assert not left.exists()
    assert kept < set(blobs(place))
    assert len(blobs(place)) == 3


def test_the_directory_of_a_blob_is_on_disk_whoever_made_it(tmp_path, monkeypatch):
    directory = tmp_path / 'blobs'
    kept = Blobs(directory)
    name = kept.new_name()
    kept.path(name).parent.mkdir()  # by another thread, which has not synced it yet
    synced: list[Path] = []
    sync = blob_module.sync
    monkeypatch.setattr(blob_module, 'sync', lambda path: (sync(path), synced.append(path)))
    kept.keep(name, MemoryBody(LARGE))
    assert synced == [directory, kept.path(name), kept.path(name).parent]
    synced.clear()
    kept.keep(name[:2] + name[2:][::-1], MemoryBody(LARGE))
    assert directory not in synced
