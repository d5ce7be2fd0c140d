"""Processes that live settings switch on and off, and the stored rows behind that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from madmail import log
from madmail.master.exits import STATE, Stop
from madmail.master.plan import Kind, Renewal
from madmail.master.post import Post
from madmail.settings import Settings, overlay
from madmail.settings.declarations import SETTINGS, Applies, Setting
from madmail.store.control import Control
from madmail.store.schema import NewerVersion

if TYPE_CHECKING:
    from madmail.master.arbiter import Arbiter

RETIRE_TIME = 30.0  # seconds a service gets to end
RETRY = 60.0  # seconds until a service that could not start is tried again
RETRY_SOON = 10.0  # the same, of a process that accounts or their mail wait for

_log = log.get('master')


def rows(state_dir: Path) -> dict[str, str]:
    """The stored settings; none without a control database.  Raises Stop.

    Opened for this look only: an SQLite connection must not be open when we fork.
    """
    if not (state_dir / 'control.db').exists():
        return {}
    try:
        control = Control(state_dir)
        try:
            return control.settings()
        finally:
            control.close()
    except NewerVersion as error:
        raise Stop(STATE, str(error)) from None
    except (OSError, sqlite3.Error) as error:
        raise Stop(STATE, f'{state_dir / "control.db"}: {error}') from None


def lay(arbiter: Arbiter, settings: Settings) -> None:
    """Lay the stored rows over what the file says; those that do not fit are told.  Raises Stop."""
    arbiter.seen = mark(arbiter.state.path)
    arbiter.stored = rows(arbiter.state.path)
    arbiter.unusable = overlay(settings, arbiter.stored, generation=True)
    for name in arbiter.unusable:
        _log.error('stored setting is not usable', setting=name)


def begin(arbiter: Arbiter, settings: Settings) -> None:
    """Log, take the certificate and bind, at the start.  Raises Stop.

    What is stored must not keep a relay from starting: where it is in the way, what
    the file says is used.
    """
    follow_log(arbiter, settings)

    def certify() -> None:
        arbiter.tls = arbiter.make_tls(settings)

    def listen() -> None:
        arbiter.listeners.bind(settings, arbiter.plan.listening(settings, switched=False))

    for section, attempt in (('tls.', certify), ('listen.', listen)):
        try:
            attempt()
        except Stop as stop:
            if not _set_aside(arbiter, settings, section, str(stop)):
                raise
            attempt()


def _set_aside(arbiter: Arbiter, settings: Settings, section: str, reason: str) -> bool:
    """Go on without the stored settings of a section; False if there are none."""
    kept = settings.stored()
    aside = [name for name in kept if name.startswith(section)]
    for name in aside:
        del kept[name]
        arbiter.unusable[name] = reason
        _log.error('stored setting cannot be used, that of the file is', setting=name)
    arbiter.unusable.update(settings.lay(kept))
    return bool(aside)


def known_to_fail(arbiter: Arbiter, settings: Settings, before: Mapping[str, str]) -> bool:
    """After a refusal in a reload: whether stored settings were set aside that failed before.

    `before` are the rows that were set aside when the relay started or was last
    reloaded; one that has stood in the way since then is not what this reload is about.
    """
    known = [name for name, text in before.items() if arbiter.stored.get(name) == text]
    kept = settings.stored()
    aside = [name for name in known if kept.pop(name, None) is not None]
    for name in aside:
        arbiter.unusable[name] = 'what it says was refused before'
    arbiter.unusable.update(settings.lay(kept))
    return bool(aside)


def follow_log(arbiter: Arbiter, settings: Settings) -> None:
    """Log as `settings` say, in all processes.  Raises Stop if what the file says cannot be."""
    from madmail.master.arbiter import configure_log

    try:
        configure_log(settings, arbiter.user)
    except Stop as stop:
        if not _set_aside(arbiter, settings, 'log', str(stop)):
            raise
        configure_log(settings, arbiter.user)
    logging = (settings['log'], settings['log_level'])
    if logging != arbiter.logging:
        arbiter.logging = logging
        _log.info('log begins', level=logging[1])
        arbiter.tell({'kind': 'log', 'target': logging[0], 'level': logging[1]})


def mark(state_dir: Path) -> tuple[int, ...]:
    """Another one after each change of the control database.

    PERF: 5 us, and no open database in the process that forks.
    """
    found: list[int] = []
    for name in ('control.db', 'control.db-wal'):
        try:
            status = (state_dir / name).stat()
        except OSError:
            continue
        found += (status.st_ino, status.st_size, status.st_mtime_ns)
    return tuple(found)


def reloads(setting: Setting) -> bool:
    """Whether a row of it is looked at when the configuration is loaded, and not else."""
    return setting.storable and not setting.live


def look(arbiter: Arbiter) -> None:
    """Notice a change that nobody told of."""
    seen = mark(arbiter.state.path)
    if seen != arbiter.seen:
        switch(arbiter)


def switch(arbiter: Arbiter) -> None:
    """A live setting may have changed: log, start and end services as the settings now say."""
    settings = arbiter.settings
    arbiter.seen = mark(arbiter.state.path)
    try:
        stored = rows(arbiter.state.path)
    except Stop:
        return  # who starts next will say so
    unusable = overlay(settings, stored)
    arbiter.stored.update({n: t for n, t in stored.items() if n in SETTINGS and SETTINGS[n].live})
    # Those that apply on reload stay as they were found then.
    kept = {n: why for n, why in arbiter.unusable.items() if n in SETTINGS and reloads(SETTINGS[n])}
    arbiter.unusable = {**unusable, **kept}
    if arbiter.logging != (settings['log'], settings['log_level']):
        try:
            follow_log(arbiter, settings)
        except Stop:
            _log.error('log not opened')
    start(arbiter, settings)


def start(arbiter: Arbiter, settings: Settings) -> None:
    """As many processes of each service as the settings say."""
    for kind in arbiter.plan.kinds:
        if kind.switched:
            _adjust(arbiter, kind, settings)


def take(arbiter: Arbiter, settings: Settings) -> None:
    """In a reload: bind what is new.  Raises Stop.

    A service that cannot listen does not keep everything else from being reloaded,
    unless this reload is about where it listens.
    """
    plan, old = arbiter.plan, arbiter.settings
    names = plan.listening(settings, switched=False)
    for kind in plan.kinds:
        if kind.switched:
            at = {f'listen.{name.partition("/")[0]}' for name in kind.listeners}
            if kind.name not in arbiter.trouble or any(settings[n] != old[n] for n in at):
                names += plan.names(kind, settings)
    arbiter.listeners.bind(settings, names)


def trouble_name(post: Post) -> str:
    """What the arbiter's `trouble` calls it: a service as a whole, else the one process."""
    return post.kind.name if post.kind.switched else f'{post.kind.name} {post.index}'


def cannot_start(arbiter: Arbiter, post: Post, now: float) -> None:
    """A process died too often before it was ready: try again later."""
    reason = post.boot_error or 'it died without a word'
    name = trouble_name(post)
    if name not in arbiter.trouble:
        _log.error('child cannot start', kind=post.kind.name, index=post.index)
    arbiter.trouble[name] = f'{post.kind.name} {post.index} cannot start: {reason}'
    post.failures = post.boot_failures = 0
    post.due = now + (RETRY if post.kind.switched else RETRY_SOON)


def retry(arbiter: Arbiter, post: Post) -> bool:
    """Try one that could not start at once; whether it was so."""
    if post.process is not None or arbiter.trouble.pop(trouble_name(post), None) is None:
        return False
    post.failures = post.boot_failures = 0
    post.due = 0.0
    return True


def _adjust(arbiter: Arbiter, kind: Kind, settings: Settings) -> None:
    plan = arbiter.plan
    posts = [post for post in arbiter.posts if post.kind is kind]
    count = plan.count(kind, settings, arbiter.state.shards)
    if count > len(posts):
        try:
            arbiter.listeners.bind(settings, plan.names(kind, settings))
        except Stop as stop:
            if arbiter.trouble.get(kind.name) != str(stop):
                _log.error('service cannot listen', kind=kind.name)
            arbiter.trouble[kind.name] = str(stop)
            return
        arbiter.posts += [Post(kind, index) for index in range(len(posts), count)]
        _log.info('service switched on', kind=kind.name)
    elif count < len(posts):
        for post in posts[count:]:
            end(arbiter, post)
        arbiter.listeners.keep(settings, plan.listening(settings))
        _log.info('service switched off', kind=kind.name)
    if count != len(posts) or not count:
        arbiter.trouble.pop(kind.name, None)


def end(arbiter: Arbiter, post: Post) -> None:
    """Nobody fills this post any more."""
    arbiter.posts.remove(post)
    if post.process is not None:
        arbiter.retire(post.process, limit=RETIRE_TIME)


def renew(arbiter: Arbiter, old: Settings) -> Iterator[None]:
    """In a reload: services go on unless something that they are given has changed."""
    settings = arbiter.settings
    for kind in arbiter.plan.kinds:
        if kind.renewal is not Renewal.STAY:
            continue
        if _given(kind, settings) != _given(kind, old):
            for post in [post for post in arbiter.posts if post.kind is kind]:
                ending = post.process
                end(arbiter, post)
                while ending is not None and ending.pid in arbiter.processes:
                    yield
        _adjust(arbiter, kind, settings)


def _given(kind: Kind, settings: Settings) -> list[object]:
    """What a process of this kind learns at its start and not later."""
    own = {f'listen.{name.partition("/")[0]}' for name in (*kind.listeners, *kind.aware_of)}
    return [
        settings[name]
        for name, setting in SETTINGS.items()
        if setting.applies is Applies.RELOAD and (not name.startswith('listen.') or name in own)
    ]
