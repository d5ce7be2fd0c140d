"""Processes that live settings switch on and off, and the stored rows behind that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from madmail import log
from madmail.master.exits import STATE, Stop
from madmail.master.plan import Kind, Renewal
from madmail.master.post import Post
from madmail.settings import Settings, overlay
from madmail.settings.declarations import SETTINGS, Applies
from madmail.store.control import Control
from madmail.store.schema import NewerVersion

if TYPE_CHECKING:
    from madmail.master.arbiter import Arbiter

RETIRE_TIME = 30.0  # seconds a service gets to end

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


def lay(arbiter: Arbiter, settings: Settings) -> None:
    """Lay the stored rows over what the file says; those that do not fit are told."""
    arbiter.unusable = {
        name: 'it does not fit this version or the other settings'
        for name in overlay(settings, rows(arbiter.state.path), generation=True)
    }
    for name in arbiter.unusable:
        _log.error('stored setting is not usable', setting=name)


def bind(arbiter: Arbiter, settings: Settings) -> None:
    """Bind what is to listen.  Should stored rows be in the way, what the file says is used.

    Raises Stop.
    """
    plan = arbiter.plan
    try:
        arbiter.listeners.bind(settings, plan.listening(settings))
    except Stop as stop:
        stored = [n for n in SETTINGS if n.startswith('listen.') and settings.source(n) == 'live']
        if not stored:
            raise
        for name in stored:
            settings.store(name, None)
            arbiter.unusable[name] = str(stop)
            _log.error('stored listener cannot be used, that of the file is', setting=name)
        arbiter.listeners.bind(settings, plan.listening(settings))


def switch(arbiter: Arbiter) -> None:
    """A live setting has changed: start and end services as the settings now say."""
    settings = arbiter.settings
    try:
        overlay(settings, rows(arbiter.state.path))
    except Stop:
        return  # who starts next will say so
    for kind in arbiter.plan.kinds:
        if kind.switched:
            _adjust(arbiter, kind, settings)


def _adjust(arbiter: Arbiter, kind: Kind, settings: Settings) -> None:
    plan = arbiter.plan
    posts = [post for post in arbiter.posts if post.kind is kind]
    count = plan.count(kind, settings, arbiter.state.shards)
    if count > len(posts):
        try:
            arbiter.listeners.bind(settings, kind.listeners)
        except Stop as stop:
            arbiter.trouble[kind.name] = str(stop)
            _log.error('service cannot listen', kind=kind.name)
            return
        arbiter.posts += [Post(kind, index) for index in range(len(posts), count)]
        _log.info('service switched on', kind=kind.name)
    elif count < len(posts):
        for post in posts[count:]:
            end(arbiter, post)
        arbiter.listeners.keep(settings, plan.listening(settings))
        _log.info('service switched off', kind=kind.name)
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
    own = {f'listen.{name.partition("/")[0]}' for name in kind.listeners}
    return [
        settings[name]
        for name, setting in SETTINGS.items()
        if setting.applies is Applies.RELOAD and (not name.startswith('listen.') or name in own)
    ]
