"""The arbiter: forks the children, hears them, replaces the dead, reloads, stops.

Signals only wake the loop (their numbers arrive in a pipe) and are handled in
it, one at a time:

    TERM, INT   stop gracefully; the second one at once
    HUP         reload the configuration, see `reload`
    USR1        reopen the log, log statistics
    CHLD        reap, strangers included

The supervision follows gunicorn's arbiter: a child that does not answer
through its work loop gets SIGABRT, then SIGKILL; a dead one is replaced at
once, later with growing delays; one that cannot start five times in a row
stops the relay with an exit code of its own.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from madmail import log
from madmail.bus.frame import pack
from madmail.master import birth, child, exits, process, services
from madmail.master.control import ControlServer
from madmail.master.exits import Stop
from madmail.master.listeners import Listeners
from madmail.master.plan import Kind, Plan, Renewal, auto_shards, preload
from madmail.master.post import BOOT_ATTEMPTS, TERMINATED_DELAY, Post, Process
from madmail.master.privileges import Identity, identity
from madmail.master.reload import reload_steps
from madmail.master.state import RUN, StateDirectory, prepare
from madmail.master.wake import Wake
from madmail.metrics.ledger import INTERVAL, Ledger
from madmail.settings import Settings
from madmail.shard.address import bind, connect

PING_INTERVAL = 2.0  # seconds; less for a short heartbeat
ABORT_TIME = 1.0  # seconds between SIGABRT and SIGKILL
BOOT_TIME = 300.0  # seconds a child may take to be ready (a large database to upgrade)
SAME_SIGNAL = 0.3  # seconds; a ^C that a keeper also passes on is one signal
RETIRE_TIME = 60.0  # seconds a retiring shard or courier gets

_log = log.get('master')


class Arbiter:
    """The master of one relay.

    `load` reads the configuration anew for a reload.  `on_ready` is called
    once, when all children serve for the first time.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        load: Callable[[], Settings] | None = None,
        on_ready: Callable[[Arbiter], None] | None = None,
    ) -> None:
        self.settings = settings
        self.plan = plan
        self.load = load
        self.generation = 1
        self.started = time.time()
        self.listeners = Listeners()
        self.own_listeners: dict[tuple[str, int], socket.socket] = {}
        self.posts: list[Post] = []
        self.processes: dict[int, Process] = {}
        self.reloading: Iterator[None] | None = None
        self.reload_wanted = False
        self.stopping = False
        self.user: Identity | None = None
        self.tls: object = None
        self.state: StateDirectory
        self.roles: dict[str, Callable[[child.ChildContext], child.Role]] = {}
        self._on_ready = on_ready
        self._exit_code = exits.OK
        self._exit_reason = ''
        self._stop_at = self._stop_began = 0.0
        self._asked_last = False
        self.wake = Wake()
        self.control: ControlServer | None = None
        self._statistics_number = 0
        self._asked = 0.0
        self.ledger = Ledger()
        self.unusable: dict[str, str] = {}  # stored settings that are not in force, and why
        self.stored: dict[str, str] = {}  # rows of the control database when last read
        self.seen: tuple[int, ...] = ()  # of the control database, see services.mark
        self.logging = ('off', '')  # where to, and from which level on
        self._looked = 0.0
        self.trouble: dict[str, str] = {}  # what cannot run and is tried again, and why
        self.served = False  # since every post was filled once, none that fails ends the rest

    # -- life

    def run(self) -> int:
        """Serve until stopped; the exit code.  Raises Stop when it cannot begin."""
        self._prepare()
        try:
            self._serve()
        finally:
            self._end()
        if self._exit_reason:
            raise Stop(self._exit_code, self._exit_reason)
        return self._exit_code

    def _prepare(self) -> None:
        settings = self.settings
        process.name_process('madmail')
        process.raise_limits()
        for name, only in (('database', 'sqlite'), ('bus', 'embedded')):
            if settings[name] != only:
                raise Stop(exits.CONFIGURATION, f'{name}: this version has {only} only')
        self.user = identity(settings['user'])
        self.state = prepare(
            settings['state_dir'], settings['processes.shards'], auto_shards(), self.user
        )
        try:
            services.lay(self, settings)
            self.roles = preload(self.plan)
            services.begin(self, settings)
            for kind in self.plan.kinds:
                if kind.switched:
                    continue
                count = self.plan.count(kind, settings, self.state.shards)
                self.posts += [Post(kind, index) for index in range(count)]
                if kind.own_listener:
                    for index in range(count):
                        self._bind_own(kind, index)
            services.start(self, settings)
            self.control = ControlServer(self)
            if self.user:
                for entry in (self.state.path / RUN).iterdir():
                    self.user.give(entry)
            self.state.write_pid()
        except OSError as error:
            self._end()
            what = f': {error.filename}' if error.filename else ''
            raise Stop(exits.STATE, f'cannot start{what}: {error.strerror}') from None
        except BaseException:
            self._end()
            raise

    def make_tls(self, settings: Settings) -> object:
        """What the gates started with `settings` share.  Raises Stop."""
        return self.plan.tls(settings, self.state.path) if self.plan.tls else None

    def _bind_own(self, kind: Kind, index: int) -> None:
        name = f'{kind.name}-{index}.sock'
        self.own_listeners[kind.name, index] = bind(self.state.path, name)

    def _serve(self) -> None:
        self.wake.catch()
        # What is loaded now is shared with the children until they write to it;
        # a collection would write to all of it.
        gc.collect()
        gc.disable()
        gc.freeze()
        _log.info('starting', shards=self.state.shards, children=len(self.posts))
        last = time.monotonic()
        while True:
            now = time.monotonic()
            if now - last > PING_INTERVAL * 2:
                for one in self.processes.values():
                    one.heard = one.pinged = now  # we were stopped, not they
            self._reap(now)
            if self.stopping and self._stop_step(now):
                return
            self._heartbeat(now)
            if not self.stopping:
                self._fill(now)
                self._reload_step()
                if now - self._looked > PING_INTERVAL and self.reloading is None:
                    self._looked = now
                    services.look(self)
                self._announce()
            assert self.control is not None
            self.control.turn(now)
            last = time.monotonic()
            self._wait()

    def _end(self) -> None:
        self.listeners.close()
        for listener in self.own_listeners.values():
            listener.close()
        for one in self.processes.values():
            one.close()
        if self.control:
            self.control.close()
        self.wake.close()
        self.state.close()

    # -- signals

    def _signalled(self) -> None:
        for number in self.wake.signals():
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                self.stop(at_once=number == signal.SIGQUIT)
            elif number == signal.SIGHUP:
                self.reload_wanted = True
            elif number == signal.SIGUSR1:
                self._reopen()

    def _reopen(self) -> None:
        try:
            log.reopen()
        except OSError as error:
            _log.error('log not reopened', errno=error.errno)
        self.tell({'kind': 'reopen'})
        self.ask_statistics()
        self._asked_last = True

    # -- waiting and hearing

    def _wait(self) -> None:
        """Sleep until something happens or half a second has passed."""
        assert self.control is not None
        poll = select.poll()
        poll.register(self.wake.fileno(), select.POLLIN)
        by_descriptor = {}
        for one in self.processes.values():
            if not one.closed:
                by_descriptor[one.stream.fileno()] = one
                events = select.POLLIN | (select.POLLOUT if one.unsent else 0)
                poll.register(one.stream.fileno(), events)
        self.control.register(poll)
        for descriptor, events in poll.poll(self._patience()):
            if descriptor == self.wake.fileno():
                self._signalled()
            elif descriptor in by_descriptor:
                one = by_descriptor[descriptor]
                if events & select.POLLOUT:
                    one.write()
                if events & ~select.POLLOUT:
                    self._hear(one)
            else:
                self.control.event(descriptor, events)

    def _patience(self) -> int:
        """Milliseconds until something is due."""
        if self.reloading or self.stopping or self._asked_last:
            return 50
        now = time.monotonic()
        due = [post.due - now for post in self.posts if post.process is None and not post.vacant]
        if any(one.aborted for one in self.processes.values()):
            due.append(0.1)
        return int(max(0.0, min([*due, 0.5])) * 1000) + 1

    def _hear(self, one: Process) -> None:
        frames = one.read()
        if frames is None:
            one.close()  # it has died or is about to; if not, it gets help
            one.deadline = time.monotonic() + ABORT_TIME
            return
        for frame in frames:
            kind = frame.get('kind')
            if kind == 'event':
                self.publish(frame, one)
            elif kind == 'pong':
                one.heard = time.monotonic()
            elif kind == 'ready':
                one.ready = True
                one.heard = one.pinged = time.monotonic()
                one.post.boot_failures = 0
                self.trouble.pop(services.trouble_name(one.post), None)
                _log.info('child ready', kind=one.kind.name, index=one.index, pid=one.pid)
            elif kind == 'awaiting':
                one.awaiting = True
            elif kind == 'retiring':
                self._retires_itself(one)
            elif kind == 'boot_failed':
                one.boot_error = str(frame.get('reason', ''))
            elif kind == 'statistics':
                one.statistics = frame.get('data') or {}
                one.peers = one.statistics.pop('peers', b'')
                one.statistics_number = int(frame.get('n', 0))

    def _retires_itself(self, one: Process) -> None:
        """Somebody sent it SIGTERM.  A gate may linger beside its replacement, others may not."""
        if one.retiring:
            return
        one.terminated = True
        if one.kind.renewal is Renewal.OVERLAP:
            one.retiring = True
            if one.post.process is one:
                one.post.process = None
                one.post.due = time.monotonic() + TERMINATED_DELAY
        else:
            one.deadline = time.monotonic() + RETIRE_TIME

    def publish(self, frame: dict[str, Any], origin: Process | None = None) -> None:
        """Pass an event on to all children but the one it comes from."""
        if frame['topic'] == 'settings' and not self.reloading and not self.stopping:
            services.switch(self)
        data = pack({'kind': 'event', 'topic': frame['topic'], 'data': frame['data']})
        for one in self.processes.values():
            if one is not origin:
                one.send_packed(data, droppable=True)

    def tell(self, frame: dict[str, Any]) -> None:
        for one in self.processes.values():
            one.send(frame)

    def ask_statistics(self) -> int:
        """Ask all children; the number their answers will carry."""
        self._statistics_number += 1
        self._asked = time.monotonic()
        self.tell({'kind': 'statistics', 'n': self._statistics_number})
        return self._statistics_number

    # -- heartbeat

    def _heartbeat(self, now: float) -> None:
        if now - self._asked > INTERVAL:
            self.ask_statistics()
        limit = self.settings['master.heartbeat']
        interval = min(PING_INTERVAL, limit / 4)
        for one in list(self.processes.values()):
            if one.aborted:
                if now - one.aborted > ABORT_TIME:
                    self.kill(one)
            elif one.deadline and now > one.deadline:
                _log.warning('child did not end in time', kind=one.kind.name, index=one.index)
                self.kill(one)
            elif now - one.heard > (limit if one.ready else BOOT_TIME):
                _log.error('child is stuck', kind=one.kind.name, index=one.index, pid=one.pid)
                one.aborted = now
                one.doomed = True
                self._signal(one, signal.SIGABRT)
            elif one.ready and now - one.pinged >= interval:
                one.pinged = now
                one.send({'kind': 'ping', 'n': int(now)})
        if self._asked_last and all(
            one.statistics_number == self._statistics_number or not one.ready
            for one in self.processes.values()
        ):
            self._asked_last = False
            for one in self.processes.values():
                facts = {k: v for k, v in (one.statistics or {}).items() if k != 'exceptions'}
                _log.info('statistics', child=f'{one.kind.name}-{one.index}', **facts)

    def kill(self, one: Process) -> None:
        one.doomed = True
        self._signal(one, signal.SIGKILL)

    def _signal(self, one: Process, number: int) -> None:
        try:
            os.kill(one.pid, number)
        except ProcessLookupError:
            pass

    def retire(self, one: Process, *, succeeded: bool = False, limit: float = 0.0) -> None:
        """Tell a child to end; it is killed after `limit` seconds, 0 = never."""
        one.retiring = True
        one.deadline = time.monotonic() + limit if limit else 0.0
        one.send({'kind': 'retire', 'succeeded': succeeded, 'stopping': self.stopping})

    # -- death and birth

    def _reap(self, now: float) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            one = self.processes.get(pid)
            if one is not None:
                self._last_words(one)
                del self.processes[pid]
                self.buried(one, os.waitstatus_to_exitcode(status), now)

    def _last_words(self, one: Process) -> None:
        """Hear what a dead child had still said."""
        while not one.closed:
            poll = select.poll()
            poll.register(one.stream.fileno(), select.POLLIN)
            if not poll.poll(0):
                return
            self._hear(one)

    def buried(self, one: Process, code: int, now: float) -> None:
        one.close()
        self.ledger.ended(one.kind.name, one.statistics)
        post = one.post
        if one.kind.renewal is Renewal.OVERLAP and self.plan.shared and self.plan.forget:
            self.plan.forget(self.plan.shared, one.index)
        expected = one.retiring or self.stopping
        if not expected or code:
            facts = {'kind': one.kind.name, 'index': one.index, 'pid': one.pid}
            if code == -signal.SIGKILL and not one.doomed:
                _log.error('child killed, perhaps for lack of memory', **facts)
            elif code < 0:
                _log.error('child died', signal=signal.Signals(-code).name, **facts)
            else:
                _log.error('child ended', status=code, **facts)
        if post.successor is one:
            post.successor = None
            post.died(one, now)
        elif post.process is one:
            post.process = None
            if post.successor is not None:
                # It has what its predecessor passed on; should that have died
                # before, it must not wait for it.
                post.process, post.successor = post.successor, None
                if not post.process.ready:
                    hang_up(self.state.path, f'{one.kind.name}-{one.index}.handoff')
            elif not expected or not one.retiring:
                post.died(one, now)

    def _fill(self, now: float) -> None:
        for post in self.posts:
            if post.process is None and not post.vacant and not self.stopping:
                if post.boot_failures >= BOOT_ATTEMPTS:
                    if self.reloading and post.kind.renewal is Renewal.OVERLAP:
                        continue  # the reload gives up
                    if post.kind.switched or self.served:
                        services.cannot_start(self, post, now)
                    else:
                        self._fail(post)
                elif now >= post.due:
                    post.process = self.spawn(post)

    def _fail(self, post: Post) -> None:
        reason = post.boot_error or 'it died without a word'
        self._exit_code = exits.BOOT
        self._exit_reason = f'{post.kind.name} {post.index} cannot start: {reason}'
        self.stop()

    def spawn(
        self, post: Post, *, takeover: bool = False, settings: Settings | None = None
    ) -> Process:
        """Fork a child for `post`."""
        return birth.spawn(self, post, takeover=takeover, settings=settings or self.settings)

    # -- becoming ready, reloading, stopping

    @property
    def complete(self) -> bool:
        """Whether every post is filled by a child that serves; services in trouble do not count."""
        return all(
            (post.process is not None and post.process.ready) or post.kind.name in self.trouble
            for post in self.posts
        )

    def _announce(self) -> None:
        if not self.served and self.complete:
            self.served = True
            if self._on_ready:
                self._on_ready(self)

    def _reload_step(self) -> None:
        if self.reloading is None and self.reload_wanted:
            self.reload_wanted = False
            self.reloading = reload_steps(self)
        if self.reloading is not None:
            try:
                next(self.reloading)
            except StopIteration:
                self.reloading = None
            except Stop as refused:
                self.reloading = None
                self.reload_refused(str(refused))
            else:
                return
            assert self.control is not None
            self.control.reloaded()

    reload_error = ''
    restarting = False  # whoever runs us is to begin again after the stop

    def reload_refused(self, reason: str) -> None:
        """Everything stays as it was."""
        self.reload_error = reason
        _log.error('reload refused', reason=reason)

    def stop(self, *, at_once: bool = False) -> None:
        """Begin to stop; a second time, or `at_once`, kills."""
        now = time.monotonic()
        if at_once or (self.stopping and now - self._stop_began > SAME_SIGNAL):
            self._stop_at = now
        elif not self.stopping:
            self._stop_at = now + self.settings['master.grace']
        if not self.stopping:
            self._stop_began = now
            self.stopping = True
            self.reloading = None
            _log.info('stopping')
            self.listeners.close()
            for one in self.processes.values():
                # Shards go last, so that the courier can tell them what it has sent
                # and the gates can carry what they still have to say.
                if one.kind.renewal is not Renewal.TAKEOVER or not one.ready:
                    self.retire(one)

    def _stop_step(self, now: float) -> bool:
        """One turn of stopping; True when nobody is left."""
        if not self.processes:
            return True
        if now >= self._stop_at:
            for one in self.processes.values():
                if not one.doomed:
                    self.kill(one)
            return False
        grace = self.settings['master.grace']
        busy = any(one.kind.renewal is Renewal.AFTER for one in self.processes.values())
        if not busy or now > self._stop_at - grace / 2:
            for one in self.processes.values():
                if not one.retiring:
                    self.retire(one)
        for one in self.processes.values():
            if not one.ready and not one.doomed:
                self.kill(one)  # nothing begun, nothing lost
        return False


def configure_log(settings: Settings, user: Identity | None) -> None:
    """Open the log as configured.  Raises Stop; the old log stays then."""
    target = settings['log']
    try:
        log.configure(target, settings['log_level'])
        if user and target not in ('off', 'stderr'):
            user.give(Path(target))
    except OSError as error:
        raise Stop(exits.CONFIGURATION, f'log: {target}: {error.strerror}') from None


def hang_up(state_dir: Path, name: str) -> None:
    """Let a successor that waits for a dead predecessor go on with nothing."""
    try:
        connect(state_dir, name).close()
    except OSError:
        pass  # it does not wait
