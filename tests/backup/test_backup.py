"""Backups of stores made by hand: what goes in comes out, and going on is safe."""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from madmail.backup.archive import HEAD, PROOF, Damaged, Reader, Writer
from madmail.backup.restore import UIDS, NotEmpty, restore, verify
from madmail.backup.snapshot import GUARD, Busy, Snapshot
from madmail.master.state import STATE_FILE, prepare, read_shards
from madmail.store.control import Control
from madmail.store.interface import INLINE_LIMIT, Flag, FlagUpdate, Mailbox, OutboxEntry, Store
from madmail.store.schema import NewerVersion
from madmail.store.spool import MemoryBody
from madmail.store.sqlite import open_store

ALICE, BOB = 'alice@chat.example', 'bob@chat.example'
LARGE = os.urandom(INLINE_LIMIT + 1)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory of two shards, with one account in each, keys and mail."""
    directory = tmp_path / 'state'
    prepare(directory, 2, 2, None).close()
    for index, address in enumerate((ALICE, BOB)):
        with opened(directory, index) as store:
            store.create_account(address, 'verifier', 20000)
            for number in range(5):
                text = b'Subject: %d\r\n\r\nwords\r\n' % number
                store.deliver(MemoryBody(text), (address,), delivery_id=os.urandom(16))
            # Large ones become files, and live as files in the archive.
            store.deliver(MemoryBody(LARGE), (address,), delivery_id=os.urandom(16))
            entry = OutboxEntry(0, address, 'else.example', ('x@else.example',), 1, next_try=9)
            store.deliver(MemoryBody(b'out'), (), delivery_id=os.urandom(16), outbox=[entry])
            inbox = store.mailbox(store.account(address).id, 'INBOX')  # type: ignore[union-attr]
            assert inbox is not None
            store.store_flags(inbox.id, [2, 3], FlagUpdate('add', Flag.SEEN))
            store.store_flags(inbox.id, [1], FlagUpdate('add', Flag.DELETED))
            assert store.expunge(inbox.id) == [1]
    control = Control(directory)
    control.block('spam@chat.example', 'spam', 5)
    control.close()
    (directory / 'secret').write_bytes(b'key')
    (directory / 'dkim').mkdir()
    (directory / 'dkim' / 'one.pem').write_text('PEM')
    return directory


class opened:
    """A store, closed in the end."""

    def __init__(self, directory: Path, index: int) -> None:
        self.store = open_store(
            directory / 'shards' / str(index), quota_default=0, trim_from=0.75, trim_to=0.7
        )

    def __enter__(self) -> Store:
        return self.store

    def __exit__(self, *_: object) -> None:
        self.store.close()


def backup(state: Path, *, mail: bool = True) -> bytes:
    stream = io.BytesIO()
    snapshot = Snapshot(state, mail=mail)
    try:
        snapshot.write(stream, 'chat.example')
    finally:
        snapshot.close()
    return stream.getvalue()


def members(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()


def inbox(store: Store, address: str) -> Mailbox:
    account = store.account(address)
    assert account is not None
    found = store.mailbox(account.id, 'INBOX')
    assert found is not None
    return found


def mail(store: Store, box: Mailbox) -> list[tuple[int, int, bytes]]:
    rows = store.messages(box.id, 1, 0xFFFFFFFF)
    bodies = [store.body(row.body_id) for row in rows]
    return [
        (row.uid, row.flags, body.read()) for row, body in zip(rows, bodies, strict=True) if body
    ]


def test_everything_comes_back(state: Path, tmp_path: Path) -> None:
    archive = backup(state)
    there = tmp_path / 'elsewhere' / 'state'
    head = restore(io.BytesIO(archive), there, None)
    assert (head['domain'], head['shards'], head['mail']) == ('chat.example', 2, True)
    assert (there / 'secret').read_bytes() == b'key'
    assert (there / 'dkim' / 'one.pem').read_text() == 'PEM'
    assert {path.stat().st_mode & 0o077 for path in there.rglob('*')} == {0}
    control = Control(there)
    assert control.blocked('spam@chat.example') is not None
    control.close()
    for index, address in enumerate((ALICE, BOB)):
        with opened(state, index) as old, opened(there, index) as new:
            before, after = inbox(old, address), inbox(new, address)
            assert mail(new, after) == mail(old, before)
            assert len(mail(new, after)) == 5
            assert after.uid_validity == before.uid_validity
            assert (after.messages, after.unseen, after.size) == (
                before.messages,
                before.unseen,
                before.size,
            )
            assert new.account(address) == old.account(address)
            assert new.salt(1) == old.salt(1)
            entries = new.outbox_list()
            assert [(one.sender, one.recipients) for one in entries] == [
                (address, ('x@else.example',))
            ]
            body = new.body(entries[0].body_id)
            assert body is not None
            assert body.read() == b'out'


def test_numbers_go_on_above_those_given_out_since(state: Path, tmp_path: Path) -> None:
    archive = backup(state)
    with opened(state, 0) as store:  # what clients saw and the backup does not know
        for _ in range(7):
            store.deliver(MemoryBody(b'later'), (ALICE,), delivery_id=os.urandom(16))
        lost = inbox(store, ALICE)
        store.store_flags(lost.id, [4], FlagUpdate('add', Flag.FLAGGED))
        seen = inbox(store, ALICE)
        newest = max(row.body_id for row in store.messages(lost.id, 1, 0xFFFFFFFF))
    there = tmp_path / 'elsewhere'
    restore(io.BytesIO(archive), there, None)
    with opened(there, 0) as store:
        box = inbox(store, ALICE)
        assert box.uid_next >= seen.uid_next - 7 + UIDS
        assert box.highest_modseq > seen.highest_modseq
        # A client that knows the lost state hears of everything as it is now.
        changed = store.changed_since(box.id, seen.highest_modseq)
        assert [(row.uid, row.flags & Flag.FLAGGED) for row in changed] == [
            (uid, 0) for uid in range(2, 7)
        ]
        gone = store.expunged_since(box.id, seen.highest_modseq)
        assert set(range(7, seen.uid_next)) <= set(gone)
        assert not set(gone) & set(range(2, 7))
        store.deliver(MemoryBody(b'new'), (ALICE,), delivery_id=os.urandom(16))
        after = inbox(store, ALICE)
        fresh = store.changed_since(box.id, box.highest_modseq)
        assert [row.uid for row in fresh] == [box.uid_next]
        assert fresh[0].body_id > newest
        assert store.changed_since(box.id, after.highest_modseq) == []
        made = store.create_mailbox(box.account_id, 'New')
        assert made.id > 1000, 'its object id was never that of another mailbox'


def test_a_mailbox_at_the_end_of_its_uids(state: Path, tmp_path: Path) -> None:
    database = sqlite3.connect(state / 'shards' / '0' / 'store.db')
    database.execute('UPDATE mailboxes SET uid_next = 4294967000')
    database.commit()
    database.close()
    there = tmp_path / 'elsewhere'
    restore(io.BytesIO(backup(state)), there, None)
    with opened(there, 0) as store:
        assert 4294967000 < inbox(store, ALICE).uid_next < 2**32


def test_without_mail(state: Path, tmp_path: Path) -> None:
    archive = backup(state, mail=False)
    assert LARGE[:64] not in archive
    assert len(archive) < INLINE_LIMIT
    there = tmp_path / 'elsewhere'
    restore(io.BytesIO(archive), there, None)
    with opened(there, 1) as store:
        box = inbox(store, BOB)
        assert (box.messages, box.unseen, box.size) == (0, 0, 0)
        assert mail(store, box) == []
        assert store.outbox_list() == []
        assert store.account(BOB) is not None


def test_the_state_of_one_moment_while_others_write(state: Path) -> None:
    """What comes and goes after the snapshot was taken is not in it, files included."""
    snapshot = Snapshot(state)
    with opened(state, 0) as store:
        box = inbox(store, ALICE)
        store.store_flags(box.id, range(1, 7), FlagUpdate('add', Flag.DELETED))
        store.expunge(box.id)
        store.deliver(MemoryBody(LARGE), (ALICE,), delivery_id=os.urandom(16))
    stream = io.BytesIO()
    snapshot.write(stream, 'chat.example')
    snapshot.close()
    assert not list((state / 'shards').glob('*/backup'))
    names = members(stream.getvalue())
    assert len([name for name in names if '/blobs/' in name]) == 2
    there = state.parent / 'elsewhere'
    restore(io.BytesIO(stream.getvalue()), there, None)
    with opened(there, 0) as store:
        assert [uid for uid, _, _ in mail(store, inbox(store, ALICE))] == [2, 3, 4, 5, 6]


def test_one_backup_at_a_time(state: Path) -> None:
    first = Snapshot(state)
    with pytest.raises(Busy):
        Snapshot(state)
    first.close()
    Snapshot(state).close()
    assert (state / GUARD).exists()
    names = members(backup(state))
    assert f'files/{GUARD}' not in names


def test_links_of_a_killed_backup_are_removed(state: Path) -> None:
    left = state / 'shards' / '0' / 'backup'
    left.mkdir()
    (left / ('0' * 32)).write_bytes(b'old')
    names = members(backup(state))
    assert not [name for name in names if '0' * 32 in name]
    assert not left.exists()


def test_every_cut_is_found(state: Path, tmp_path: Path) -> None:
    archive = backup(state)
    assert verify(io.BytesIO(archive))['shards'] == 2
    for length in (*range(0, 200, 10), *range(200, len(archive) - 1, len(archive) // 40)):
        there = tmp_path / 'elsewhere'
        with pytest.raises(Damaged):
            restore(io.BytesIO(archive[:length]), there, None)
        assert not there.exists()
        assert [entry.name for entry in tmp_path.iterdir()] == ['state']


def rewrite(archive: bytes, name: str, data: bytes | None) -> bytes:
    """With another member `name`, or without it; the proof stays."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as old,
        tarfile.open(fileobj=out, mode='w:gz') as new,
    ):
        for info in old:
            content = old.extractfile(info)
            assert content is not None
            octets = content.read()
            if info.name == name:
                if data is None:
                    continue
                octets = data
                info.size = len(data)
            new.addfile(info, io.BytesIO(octets))
    return out.getvalue()


@pytest.mark.parametrize('data', [None, b'other'])
@pytest.mark.parametrize('name', ['files/secret', 'control/rows/0', 'shards/1/rows/1', PROOF, HEAD])
def test_an_altered_member_is_found(state: Path, name: str, data: bytes | None) -> None:
    altered = rewrite(backup(state), name, data)
    with pytest.raises(Damaged):
        verify(io.BytesIO(altered))


@pytest.mark.parametrize(
    'name',
    [
        'files/../../escape',
        'files//etc/passwd',
        '/etc/passwd',
        'files/a/../b',
        'files/./a',
        'shards/0/blobs/../../x',
        'shards/0/store.db',
        'files/',
        'files/a\nb',
    ],
)
def test_no_member_reaches_out(tmp_path: Path, name: str) -> None:
    stream = io.BytesIO()
    writer = Writer(stream, {'shards': 1, 'created': 0, 'domain': 'x', 'mail': True})
    writer.add(name, b'evil')
    writer.finish()
    there = tmp_path / 'a' / 'state'
    with pytest.raises(Damaged):
        restore(io.BytesIO(stream.getvalue()), there, None)
    assert not list((tmp_path / 'a').iterdir())


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w:gz') as tar:
        head = tarfile.TarInfo(HEAD)
        tar.addfile(head, io.BytesIO(b''))
        link = tarfile.TarInfo('files/a')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        tar.addfile(link)
    with pytest.raises(Damaged):
        Reader(io.BytesIO(stream.getvalue()))


def test_a_newer_schema_is_refused(state: Path, tmp_path: Path) -> None:
    database = sqlite3.connect(state / 'shards' / '1' / 'store.db')
    database.execute('PRAGMA user_version = 9999')
    database.commit()
    database.close()
    with pytest.raises(NewerVersion):
        restore(io.BytesIO(backup(state)), tmp_path / 'elsewhere', None)
    assert not (tmp_path / 'elsewhere').exists()


def test_what_is_there_is_never_overwritten(state: Path) -> None:
    before = sorted(state.rglob('*'))
    archive = backup(state)
    with pytest.raises(NotEmpty):
        restore(io.BytesIO(archive), state, None)
    assert [path for path in sorted(state.rglob('*')) if path.name != GUARD] == before


def test_an_empty_directory_will_do(state: Path, tmp_path: Path) -> None:
    there = tmp_path / 'elsewhere'
    there.mkdir()
    restore(io.BytesIO(backup(state)), there, None)
    assert (there / 'control.db').exists()


def test_files_of_any_name_come_back(state: Path, tmp_path: Path) -> None:
    names = ('my notes (old).txt', 'pages/Überblick.html', "it's, *really*; \\ fine~", 'x' * 200)
    for name in names:
        (state / name).parent.mkdir(exist_ok=True)
        (state / name).write_text(name)
    there = tmp_path / 'elsewhere'
    restore(io.BytesIO(backup(state)), there, None)
    assert [(there / name).read_text() for name in names] == list(names)


def test_what_no_archive_can_have_is_told(state: Path, tmp_path: Path) -> None:
    (state / 'two\nlines').write_text('x')
    (state / os.fsdecode(b'caf\xe9')).write_text('x')
    stream = io.BytesIO()
    snapshot = Snapshot(state)
    try:
        snapshot.write(stream, 'chat.example')
    finally:
        snapshot.close()
    assert sorted(snapshot.left_out) == ['caf\udce9', 'two\nlines']
    stream.seek(0)
    restore(stream, tmp_path / 'elsewhere', None)


def test_a_file_that_is_gone_when_its_turn_comes(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state / 'admin_token.abc').write_text('for a moment')
    found = Snapshot._files

    def files(self: Snapshot) -> Iterator[tuple[str, Path]]:
        yield from found(self)
        (state / 'admin_token.abc').unlink()

    monkeypatch.setattr(Snapshot, '_files', files)
    restore(io.BytesIO(backup(state)), tmp_path / 'elsewhere', None)
    assert (tmp_path / 'elsewhere' / 'secret').exists()
    assert not (tmp_path / 'elsewhere' / 'admin_token.abc').exists()


@pytest.mark.parametrize('fails', [False, True])
def test_where_a_file_system_is_mounted(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    there = tmp_path / 'elsewhere'
    (there / 'lost+found').mkdir(parents=True)
    inode = there.stat().st_ino
    monkeypatch.setattr(os.path, 'ismount', lambda path: Path(path) == there)
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if fails and self.name == STATE_FILE and 'restore' not in target.parent.name:
            raise OSError(28, 'No space left on device')
        return rename(self, target)

    monkeypatch.setattr(Path, 'rename', full)
    if fails:
        with pytest.raises(OSError, match='No space'):
            restore(io.BytesIO(backup(state)), there, None)
        assert [entry.name for entry in there.iterdir()] == ['lost+found']
        return
    restore(io.BytesIO(backup(state)), there, None)
    assert there.stat().st_ino == inode
    assert read_shards(there) == 2
    assert not list(there.glob('.*'))
    with opened(there, 0) as store:
        assert len(mail(store, inbox(store, ALICE))) == 5


def test_files_that_come_and_go_while_they_are_linked(state: Path) -> None:
    """A snapshot settles although large messages are delivered and expunged all the time."""
    ended = threading.Event()

    def work() -> None:
        with opened(state, 0) as store:
            box = inbox(store, ALICE)
            while not ended.is_set():
                store.deliver(MemoryBody(LARGE), (ALICE,), delivery_id=os.urandom(16))
                store.store_flags(box.id, [inbox(store, ALICE).uid_next - 1], FlagUpdate('add', 8))
                store.expunge(box.id)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(10):
            assert verify(io.BytesIO(backup(state)))['mail']
    finally:
        ended.set()
        thread.join()
