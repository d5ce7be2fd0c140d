"""A reload, step by step: a generator the arbiter resumes on each turn of its loop.

Nothing is given up before its replacement works: a configuration that cannot
be read or bound, or gates that do not start with it, leave everything as it
was.  Gates come first, then each shard passes its sessions to its successor,
then the courier.  Listeners that stay are never closed, and established
connections are kept: an old gate lingers until its last one ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from madmail import log
from madmail.master import services
from madmail.master.exits import CONFIGURATION, Stop
from madmail.master.plan import Renewal
from madmail.master.post import BOOT_ATTEMPTS, Post
from madmail.settings import SettingError, Settings
from madmail.settings.declarations import SETTINGS, Applies

if TYPE_CHECKING:
    from madmail.master.arbiter import Arbiter

_log = log.get('master')


def reload_steps(arbiter: Arbiter) -> Iterator[None]:
    """Yields while there is something to wait for; raises Stop when the reload is refused."""
    arbiter.reload_error = ''
    old, before = arbiter.settings, (arbiter.unusable, arbiter.stored, arbiter.tls)
    failed = {name: arbiter.stored[name] for name in arbiter.unusable if name in arbiter.stored}
    try:
        settings = _load(arbiter)
        try:
            arbiter.tls = _take(arbiter, settings)
        except Stop:
            if not services.known_to_fail(arbiter, settings, failed):
                raise
            arbiter.tls = _take(arbiter, settings)
        services.follow_log(arbiter, settings)
        yield from _gates(arbiter, settings)
    except Stop:
        arbiter.unusable, arbiter.stored, arbiter.tls = before
        arbiter.listeners.keep(old, arbiter.plan.listening(old))
        with contextlib.suppress(Stop):
            services.follow_log(arbiter, old)
        raise
    arbiter.listeners.keep(settings, arbiter.plan.listening(settings))
    yield from _shards(arbiter)
    yield from _courier(arbiter)
    yield from services.renew(arbiter, old)
    _log.info('reloaded', generation=arbiter.generation)


def _take(arbiter: Arbiter, settings: Settings) -> object:
    """Bind what is new; the new certificate.  Raises Stop."""
    tls = arbiter.make_tls(settings)
    services.take(arbiter, settings)
    return tls


def _load(arbiter: Arbiter) -> Settings:
    if arbiter.load is None:
        raise Stop(CONFIGURATION, 'there is no configuration file to read again')
    try:
        settings = arbiter.load()
        services.lay(arbiter, settings)
    except SettingError as error:
        raise Stop(CONFIGURATION, str(error)) from None
    for name, setting in SETTINGS.items():
        if setting.applies is Applies.RESTART and settings[name] != arbiter.settings[name]:
            if name == 'processes.shards' and settings[name] in (0, arbiter.state.shards):
                continue
            raise Stop(CONFIGURATION, f'{name} was changed, which needs a restart')
    return settings


def _gates(arbiter: Arbiter, settings: Settings) -> Iterator[None]:
    """Bring up the new generation beside the old one, then let the old one linger."""
    former = [post for post in arbiter.posts if post.kind.renewal is Renewal.OVERLAP]
    previous = arbiter.settings
    fresh = []
    for kind in arbiter.plan.kinds:
        if kind.renewal is Renewal.OVERLAP:
            count = arbiter.plan.count(kind, settings, arbiter.state.shards)
            fresh += [Post(kind, index) for index in range(count)]
    arbiter.generation += 1
    arbiter.settings = settings
    arbiter.posts += fresh
    while not all(post.process is not None and post.process.ready for post in fresh):
        failed = [post for post in fresh if post.boot_failures >= BOOT_ATTEMPTS]
        if failed:
            reason = failed[0].boot_error or 'it died without a word'
            arbiter.posts = [post for post in arbiter.posts if post not in fresh]
            arbiter.settings = previous
            for post in fresh:
                if post.process is not None:
                    arbiter.retire(post.process, limit=1.0)
            raise Stop(CONFIGURATION, f'{failed[0].kind.name} cannot start: {reason}')
        yield
    arbiter.posts = [post for post in arbiter.posts if post not in former]
    for post in former:
        arbiter.trouble.pop(services.trouble_name(post), None)
        if post.process is not None:
            arbiter.retire(post.process)


def _shards(arbiter: Arbiter) -> Iterator[None]:
    """Replace one shard after the other; its sessions move to the successor."""
    from madmail.master.arbiter import RETIRE_TIME

    failed: list[str] = []
    for post in [post for post in arbiter.posts if post.kind.renewal is Renewal.TAKEOVER]:
        old = post.process
        if old is None and services.retry(arbiter, post):
            yield from _begun(arbiter, post)
        if old is None or old.generation == arbiter.generation:
            continue  # it was started with the new settings already
        for _ in range(BOOT_ATTEMPTS):
            successor = post.successor = arbiter.spawn(post, takeover=True)
            while post.successor is successor and not successor.awaiting and not successor.ready:
                yield
            if post.successor is successor or post.process is successor:
                break
        else:
            failed.append(f'{post.kind.name} {post.index}: {post.boot_error}')
            post.boot_failures = 0
            continue
        if post.process is old:
            arbiter.retire(old, succeeded=True, limit=RETIRE_TIME)
        while post.process is old:
            yield
        yield from _begun(arbiter, post)
    if failed:
        raise Stop(CONFIGURATION, f'old settings are kept by {", ".join(failed)}')


def _courier(arbiter: Arbiter) -> Iterator[None]:
    """End the old one before the new one begins, so that nothing is sent twice."""
    from madmail.master.arbiter import RETIRE_TIME

    for post in [post for post in arbiter.posts if post.kind.renewal is Renewal.AFTER]:
        old = post.process
        if old is None and services.retry(arbiter, post):
            yield from _begun(arbiter, post)
        if old is None or old.generation == arbiter.generation:
            continue
        arbiter.retire(old, limit=RETIRE_TIME)
        while post.process is old:
            yield
        yield from _begun(arbiter, post)


def _begun(arbiter: Arbiter, post: Post) -> Iterator[None]:
    """Wait until it serves.  Raises Stop when it cannot start; it is tried again all the same."""
    while post.process is None or not post.process.ready:
        trouble = arbiter.trouble.get(services.trouble_name(post))
        if trouble:
            raise Stop(CONFIGURATION, trouble)
        yield
