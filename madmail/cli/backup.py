"""backup create, verify, restore: the whole relay in one archive."""

from __future__ import annotations

import argparse
import errno
import os
import sqlite3
import sys
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from madmail.account.address import mail_domain
from madmail.backup.archive import Damaged
from madmail.backup.restore import NotEmpty, restore, verify
from madmail.backup.snapshot import Busy, Snapshot, Unsettled, readable
from madmail.cli.invocation import Invocation
from madmail.cli.progress import Bar
from madmail.cli.result import Failure, Result, size
from madmail.master.exits import Stop
from madmail.master.privileges import identity, owner
from madmail.master.state import read_shards
from madmail.settings import Settings
from madmail.store.control import Control
from madmail.store.database import StoreInUse
from madmail.store.room import room
from madmail.store.schema import NewerVersion
from madmail.store.sqlite import open_store

NICENESS = 10  # clients come first

# What file systems say that know no links: memory sticks, shares of other hosts.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser(
        'backup', parents=options, help='the whole relay in one archive, and back'
    )
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        return parser

    parser = add('create', create, 'write a backup; the relay goes on meanwhile')
    parser.add_argument('file', metavar='FILE', help='a new file, or - for standard output')
    parser.add_argument('--no-mail', action='store_true', help='accounts, keys, settings only')
    parser = add('verify', verify_, 'read a backup and prove that it can be restored')
    parser.add_argument('file', metavar='FILE', help='or - for standard input')
    parser = add('restore', restore_, 'make the state directory out of a backup')
    parser.add_argument('file', metavar='FILE', help='or - for standard input')


def create(invocation: Invocation) -> Result:
    settings = invocation.load()
    state_dir: Path = settings['state_dir'].absolute()
    name: str = invocation.arguments.file
    if name == '-' and invocation.json:
        raise Failure('--json and a backup cannot both go to standard output')
    with _Output(name) as stream, ExitStack() as stack:
        try:
            if read_shards(state_dir) is None:
                raise Failure(f'there is no relay in {state_dir}')
            kept_by = owner(state_dir)
            if kept_by:
                stack.enter_context(kept_by.acting())  # SQLite makes files beside the databases
            os.nice(NICENESS)
            _complete(settings, state_dir)
            snapshot = Snapshot(state_dir, mail=not invocation.arguments.no_mail)
            stack.callback(snapshot.close)
            total = snapshot.estimate()
            with Bar('backup') as bar:
                domain = mail_domain(settings['domain'])
                head = snapshot.write(stream, domain, lambda done: bar(min(done, total), total))
            stream.flush()
            written = os.fstat(stream.fileno()).st_size if name != '-' else 0
        except (Busy, Unsettled, OSError, sqlite3.Error, Stop) as error:
            raise Failure(f'no backup was made: {readable(error)}') from None
    data = {**head, 'file': name, 'octets': snapshot.octets, 'written': written}
    left_out = [_printable(name) for name in snapshot.left_out]
    data['left_out'] = left_out
    if name == '-':
        return Result(data)  # standard output is the archive
    text = f'Wrote {name}: {size(written)} for {size(snapshot.octets)}.'
    if left_out:
        text += f'\nIt is without {", ".join(left_out)}.'
    return Result(data, text)


def _complete(settings: Settings, state_dir: Path) -> None:
    """Make the databases that are not there yet: of a relay that has never run."""
    Control(state_dir).close()
    for index in range(read_shards(state_dir) or 0):
        shard = state_dir / 'shards' / str(index)
        if not (shard / 'store.db').exists():
            with suppress(StoreInUse):  # it has just been started
                open_store(shard, **room(settings)).close()


def _printable(name: str) -> str:
    return ''.join(sign if sign.isprintable() else '?' for sign in name)


class _Output:
    """The stream of a new file, which gets its name when all of it is written."""

    def __init__(self, name: str) -> None:
        self._path = Path(name)
        self._partial = self._path.with_name(f'{self._path.name}.partial')
        self._is_file = name != '-'

    def __enter__(self) -> BinaryIO:
        if not self._is_file:
            if sys.stdout.isatty():
                raise Failure('a backup is no text for a terminal; name a file, or use a pipe')
            self._stream: BinaryIO = os.fdopen(os.dup(sys.stdout.fileno()), 'wb')
            return self._stream
        if self._path.exists():
            raise Failure(f'{self._path} is there already')
        try:
            self._partial.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._stream = os.fdopen(os.open(self._partial, flags, 0o600), 'wb')
        except OSError as error:
            raise Failure(f'{self._path}: {error.strerror}') from None
        return self._stream

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._is_file:
                os.fsync(self._stream.fileno())
                self._name()
        except OSError as error:
            raise Failure(f'{self._path}: {error.strerror}') from None
        finally:
            with suppress(OSError):
                self._stream.close()
            if self._is_file:
                self._partial.unlink(missing_ok=True)

    def _name(self) -> None:
        try:
            os.link(self._partial, self._path)  # never over what has come meanwhile
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if self._path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            self._partial.rename(self._path)


def verify_(invocation: Invocation) -> Result:
    stream, total = _input(invocation.arguments.file)
    with stream, Bar('verify') as bar:
        head = _read(lambda: verify(stream, lambda _: bar(_place(stream), total)))
    return Result(head, _told(head) + ' It is whole.')


def restore_(invocation: Invocation) -> Result:
    settings = invocation.load()
    state_dir: Path = settings['state_dir'].absolute()
    with ExitStack() as stack:
        stream, total = _input(invocation.arguments.file)
        stack.enter_context(stream)
        try:
            user = identity(settings['user'])
            with Bar('restore') as bar:
                head = _read(
                    lambda: restore(stream, state_dir, user, lambda _: bar(_place(stream), total))
                )
        except NotEmpty:
            raise Failure(
                f'{state_dir} is not empty; a backup is restored into a new directory'
            ) from None
        except (Stop, sqlite3.Error) as error:
            raise Failure(str(error)) from None
    lines = [_told(head), f'Restored into {state_dir}.']
    domain = mail_domain(settings['domain'])
    if head['domain'] != domain:
        lines.append(
            f'WARNING: it is of {head["domain"]}, but the configuration says {domain}: '
            'its accounts can only log in under their own domain.'
        )
    control = Control(state_dir)
    rows = control.settings()
    control.close()
    if user:
        for path in state_dir.glob('control.db*'):
            user.give(path)
    listeners = sorted(name for name in rows if name.startswith('listen.'))
    if listeners:
        lines.append(f'It sets {", ".join(listeners)}; see "madmail settings list".')
    return Result({**head, 'state_dir': str(state_dir)}, '\n'.join(lines))


def _input(name: str) -> tuple[BinaryIO, int]:
    """The stream and its size, 0 if that is not known."""
    if name == '-':
        return os.fdopen(os.dup(sys.stdin.fileno()), 'rb'), 0
    try:
        stream = os.fdopen(os.open(name, os.O_RDONLY | os.O_CLOEXEC), 'rb')
    except OSError as error:
        raise Failure(f'{name}: {error.strerror}') from None
    return stream, os.fstat(stream.fileno()).st_size


def _place(stream: BinaryIO) -> int:
    return stream.tell() if stream.seekable() else 0


def _read(work: Any) -> dict[str, Any]:
    try:
        head: dict[str, Any] = work()
    except Damaged as damaged:
        raise Failure(f'this backup cannot be used: {damaged}') from None
    except NewerVersion as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f'nothing was restored: {error}') from None
    return head


def _told(head: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(head['created'], UTC).strftime('%Y-%m-%d %H:%M UTC')
    what = '' if head.get('mail') else ', without mail'
    return f'Backup of {head["domain"]}, {when}, madmail {head["madmail"]}{what}.'
