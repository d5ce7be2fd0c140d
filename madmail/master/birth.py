"""Forking a child, and what it does before it is itself."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from madmail import log
from madmail.master import child, process
from madmail.master.plan import Renewal
from madmail.master.post import Post, Process
from madmail.settings import Settings

if TYPE_CHECKING:
    from madmail.master.arbiter import Arbiter

_log = log.get('master')


def spawn(arbiter: Arbiter, post: Post, *, takeover: bool, settings: Settings) -> Process:
    """Fork a child for `post`."""
    index = post.index
    if post.kind.renewal is Renewal.OVERLAP:
        index = free_slot(arbiter)
        if index < 0:
            index = _evict(arbiter)
    ours, theirs = socket.socketpair()
    arbiter.ledger.started(post.kind.name)
    master = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = child.BOOT_EXIT
        try:
            ours.close()
            code = _become(arbiter, master, post, index, takeover, theirs, settings)
        except BaseException as error:
            sys.stderr.write(f'madmail {post.kind.name}: {type(error).__name__}: {error}\n')
        finally:
            os._exit(code)
    theirs.close()
    one = Process(pid, post, index, arbiter.generation, ours)
    arbiter.processes[pid] = one
    return one


def free_slot(arbiter: Arbiter) -> int:
    """A number no living child of the overlapping kind has, or -1."""
    taken = {one.index for one in arbiter.processes.values() if one.kind.renewal is Renewal.OVERLAP}
    return next((slot for slot in range(arbiter.plan.slots) if slot not in taken), -1)


def _evict(arbiter: Arbiter) -> int:
    """End the longest lingering gate; its slot."""
    lingering = [
        one
        for one in arbiter.processes.values()
        if one.kind.renewal is Renewal.OVERLAP and one.retiring
    ]
    oldest = min(lingering, key=lambda one: one.born)
    _log.warning('too many lingering gates, the oldest ends', pid=oldest.pid)
    arbiter.kill(oldest)
    os.waitpid(oldest.pid, 0)
    del arbiter.processes[oldest.pid]
    arbiter.buried(oldest, -signal.SIGKILL, time.monotonic())
    return oldest.index


def _become(
    arbiter: Arbiter,
    master: int,
    post: Post,
    index: int,
    takeover: bool,
    stream: socket.socket,
    settings: Settings,
) -> int:
    """In the child: keep what is ours, close the rest, live."""
    arbiter.wake.close()
    kind = post.kind
    listeners = arbiter.listeners.named(kind.listeners, settings, post.index)
    mine = {listener for group in listeners.values() for listener in group}
    for listener in arbiter.listeners.all():
        if listener not in mine:
            listener.close()
    for (name, number), listener in arbiter.own_listeners.items():
        if (name, number) == (kind.name, index) and kind.own_listener:
            listeners[kind.name] = [listener]
        else:
            listener.close()
    for one in arbiter.processes.values():
        one.close()
    if arbiter.control:
        arbiter.control.close(unlink=False)
    process.name_process(f'madmail-{kind.name}')
    if arbiter.user:
        arbiter.user.assume()
    if not process.die_with_parent(master, signal.SIGKILL):
        return 1

    def context(channel: child.Channel) -> child.ChildContext:
        return child.ChildContext(
            kind=kind.name,
            index=index,
            settings=settings,
            state_dir=arbiter.state.path,
            shards=arbiter.state.shards,
            generation=arbiter.generation,
            listeners=listeners,
            shared=arbiter.plan.shared,
            takeover=takeover,
            shared_tls=arbiter.tls if kind.renewal in (Renewal.OVERLAP, Renewal.STAY) else None,
            channel=channel,
        )

    return child.live(arbiter.roles[kind.name], stream, context)
