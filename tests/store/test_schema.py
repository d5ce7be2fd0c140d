"""Opening: schema, migrations, locks, modes; and the control database."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import textwrap

import pytest

from madmail.store import schema
from madmail.store.control import Blocked, Blocklist, Control
from madmail.store.schema import NewerVersion, migrate
from madmail.store.sqlite import open_store
from tests.store.conftest import Place


def test_newer_database_is_refused_untouched(place: Place):
    place.store.close()
    path = place.directory / 'store.db'
    with sqlite3.connect(path) as connection:
        connection.execute('PRAGMA user_version = 1000')
    connection.close()
    before = path.read_bytes()
    with pytest.raises(NewerVersion, match='schema 1000') as caught:
        place.open()
    assert (caught.value.found, caught.value.known) == (1000, len(schema.SHARD))
    assert path.read_bytes() == before
    with sqlite3.connect(path) as connection:
        connection.execute(f'PRAGMA user_version = {len(schema.SHARD)}')
    connection.close()
    place.open()


def test_migrations_run_in_order_once_and_resume_where_one_failed():
    connection = sqlite3.connect(':memory:', isolation_level=None)
    first = ('CREATE TABLE a (x)', 'INSERT INTO a VALUES (1)')
    bad = ('INSERT INTO a VALUES (2)', 'INSERT INTO missing VALUES (1)')
    good = ('INSERT INTO a VALUES (3)',)
    migrate(connection, (first,))
    migrate(connection, (first,))
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (first, bad))
    assert connection.execute('SELECT x FROM a').fetchall() == [(1,)]
    assert schema.version(connection) == 1
    migrate(connection, (first, good))
    assert connection.execute('SELECT x FROM a').fetchall() == [(1,), (3,)]
    assert schema.version(connection) == 2


def test_files_are_private_and_durable(place: Place):
    place.inbox()
    assert stat.S_IMODE(place.directory.stat().st_mode) == 0o700
    for name in ('store.db', 'store.db-wal', 'store.db-shm', 'lock'):
        assert stat.S_IMODE((place.directory / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((place.directory / 'blobs').stat().st_mode) == 0o700
    read = place.store._writer.execute
    assert read('PRAGMA journal_mode').fetchone() == ('wal',)
    assert read('PRAGMA synchronous').fetchone() == (2,)


def test_closed_store_leaves_no_wal(place: Place):
    place.inbox()
    place.store.close()
    wal = place.directory / 'store.db-wal'
    assert not wal.exists() or wal.stat().st_size == 0


def test_second_process_is_refused(place: Place):
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from madmail.store.database import StoreInUse
        from madmail.store.sqlite import open_store
        try:
            open_store(Path({str(place.directory)!r}), quota_default=0, trim_from=1, trim_to=1)
        except StoreInUse:
            print('in use')
        """
    )
    told = subprocess.run([sys.executable, '-c', program], capture_output=True, timeout=30)
    assert told.stdout == b'in use\n', told.stderr


def test_store_works_without_a_running_loop(tmp_path):
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from madmail.store.sqlite import open_store
        store = open_store(Path({str(tmp_path / 's')!r}), quota_default=0, trim_from=1, trim_to=1)
        print(store.create_account('a@localhost', '', 0).address)
        store.close()
        """
    )
    told = subprocess.run([sys.executable, '-c', program], capture_output=True, timeout=30)
    assert told.stdout == b'a@localhost\n', told.stderr
    store = open_store(tmp_path / 's', quota_default=0, trim_from=1, trim_to=1)
    assert store.account_count() == 1
    store.close()


def test_control_settings(tmp_path):
    control = Control(tmp_path / 'state')
    control.set_setting('limits.quota', '5')
    control.set_setting('limits.quota', '6')
    control.set_setting('relay.comment', 'Grüße')
    assert control.remove_setting('relay.comment')
    assert not control.remove_setting('relay.comment')
    again = Control(tmp_path / 'state')
    assert again.settings() == {'limits.quota': '6'}
    assert stat.S_IMODE((tmp_path / 'state' / 'control.db').stat().st_mode) == 0o600
    control.close()
    again.close()


def test_control_blocklist(tmp_path):
    control = Control(tmp_path)
    blocklist = Blocklist(tmp_path)
    assert control.block('b@localhost', 'spam', 100)
    assert not control.block('b@localhost', 'again', 200)
    assert control.block('a@localhost', '', 100)
    assert 'a@localhost' not in blocklist
    blocklist.reload()
    assert 'a@localhost' in blocklist
    assert len(blocklist) == 2
    assert control.blocked('b@localhost') == Blocked('b@localhost', 'spam', 100)
    assert [blocked.address for blocked in control.blocklist()] == ['a@localhost', 'b@localhost']
    assert control.unblock('a@localhost')
    assert not control.unblock('a@localhost')
    assert control.blocked('a@localhost') is None
    blocklist.reload()
    assert 'a@localhost' not in blocklist
    blocklist.close()
    control.close()


def test_number_of_shards_is_fixed_once(tmp_path):
    control = Control(tmp_path)
    assert control.shards == 0
    assert control.set_shards(3) == 3
    assert control.set_shards(5) == 3
    assert control.shards == 3
    with pytest.raises(ValueError, match='one shard'):
        control.set_shards(0)
    control.close()


def test_newer_control_database_is_refused(tmp_path):
    control = Control(tmp_path)
    control._execute('PRAGMA user_version = 99')
    control.close()
    with pytest.raises(NewerVersion):
        Control(tmp_path)
