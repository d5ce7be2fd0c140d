"""Ordering and renewing the relay's certificate, in mode acme.

One process of a relay does it, the courier's, so that there is one who decides.  It looks
every six to twelve hours, when a failed try may be repeated, and when somebody asks by the
bus: topic `certificate` with `request` (a word of the asker's, see `acme.State`), `force`,
`new_key` and `trial`.  Where no relay runs, the command line orders by the same `Errand`.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from madmail import log
from madmail.delivery.dns import Resolver, Status
from madmail.settings import Settings
from madmail.tls import acme, acme_names, acme_schedule
from madmail.tls.acme_names import Found, Names
from madmail.tls.brief import ASK, BUSY, ORDER_TIME, TOPIC, Brief, Wish
from madmail.tls.files import DIRECTORY

LOOK_EVERY = (6 * 3600.0, 12 * 3600.0)  # seconds, drawn from these
SOON = 1.0  # seconds after the start; others begin, too
LEAST = 30.0  # seconds between two looks that nobody asked for
END_TIME = 2.0  # seconds in which an order that is to end does so

_log = log.get('certificate')


class Errand:
    """What an order needs to know of a relay."""

    def __init__(self, settings: Settings, state_dir: Path, resolver: Resolver) -> None:
        self._settings = settings
        self._resolver = resolver
        self.directory = Path(state_dir) / DIRECTORY

    @property
    def source(self) -> str:
        """The URL of the authority's directory."""
        chosen: str = self._settings['tls.acme_directory']
        return acme.DIRECTORIES.get(chosen, chosen)

    def names(self) -> Names:
        """Asks the name servers; blocks the greenlet."""
        return acme_names.names(self._settings, self._ask)

    def due(self, names: Names, now: int) -> int:
        """When an order is due, failures set aside."""
        state = acme.load(self.directory)
        wanted = acme_schedule.wanted(names.first, names.others, state, now)
        return acme_schedule.due(acme.held(self.directory), wanted, self.source, state, now)

    def next(self, names: Names, now: int) -> int:
        """When the next try is made."""
        state = acme.load(self.directory)
        if state.setup != self.setup(names):
            state.failures = 0
        return acme_schedule.next_try(self.due(names, now), state, now)

    def setup(self, names: Names) -> str:
        """A digest of what a failure can be about: after a change it is tried at once."""
        told = [
            self.source,
            names.first,
            *(
                str(self._settings[f'tls.{one}'])
                for one in ('acme_email', 'acme_ca_file', 'acme_eab_id', 'acme_eab_secret')
            ),
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def brief(self, names: Names, wish: Wish, **more: Any) -> Brief:
        """For the process that orders."""
        settings = self._settings
        now = int(time.time())
        source = self.source
        if wish.trial and settings['tls.acme_directory'] in acme.DIRECTORIES:
            source = acme.DIRECTORIES['staging']  # others have none; a trial there is one
        return Brief(
            str(self.directory),
            source,
            tuple(acme_schedule.wanted(names.first, names.others, acme.load(self.directory), now)),
            email=settings['tls.acme_email'],
            ca_file=str(settings['tls.acme_ca_file'] or ''),
            account=(settings['tls.acme_eab_id'], settings['tls.acme_eab_secret']),
            setup=self.setup(names),
            request=wish.request,
            new_key=wish.new_key,
            trial=wish.trial,
            **more,
        )

    def probe(self) -> tuple[str, int] | None:
        """Where this relay answers challenges itself."""
        for address in self._settings['listen.http']:
            host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(address.host, address.host)
            return host, address.port
        return None

    def answer(self, wish: Wish) -> None:
        """Say to who asked that nothing is due."""
        with acme.lock(self.directory):
            state = acme.load(self.directory)
            state.request = wish.request
            if not state.failures:
                state.word = state.error = ''  # of a trial
            acme.store(self.directory, state)

    def fail(self, names: Names, wish: Wish, word: str = 'names') -> None:
        """Write down that no order can succeed, without troubling the authority.

        Raises Busy.
        """
        now = int(time.time())
        with acme.lock(self.directory):
            state = acme.load(self.directory)
            state.setup = self.setup(names)
            state.began = state.ended = now
            state.request, state.word, state.error = wish.request, word, names.trouble
            if not wish.trial:
                state.failures += 1
                state.next = now + acme_schedule.pause(state.failures, '', random.random())
            acme.store(self.directory, state)

    def _ask(self, name: str) -> Found:
        answer = self._resolver.addresses(name)
        return Found(answer.values, answer.status is not Status.FAILED)


class Renewals:
    """The one who renews, in greenlets of the process he lives in."""

    def __init__(
        self,
        settings: Settings,
        state_dir: Path,
        resolver: Resolver,
        publish: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._settings = settings
        self._errand = Errand(settings, state_dir, resolver)
        self._publish = publish
        self._wishes: list[Wish] = []
        self._wake = Event()
        self._greenlet: gevent.Greenlet | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._wait = SOON

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._work)

    def stop(self) -> None:
        """An order under way is ended; it is made again at the next start."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._end()

    def asked(self, data: dict[str, Any]) -> None:
        """Somebody wants a certificate, or the settings have changed."""
        if data.get('request'):
            flags = {name: bool(data.get(name)) for name in ('force', 'new_key', 'trial')}
            self._wishes = [*self._wishes[-7:], Wish(str(data['request'])[:64], **flags)]
            self._wake.set()

    def _work(self) -> None:
        while True:
            self._wake.wait(self._wait)
            self._wake.clear()
            self._wait = random.uniform(*LOOK_EVERY)
            if self._settings['tls.mode'] != 'acme':
                continue
            try:
                while True:
                    wish = self._wishes.pop(0) if self._wishes else Wish()
                    self._look(wish)
                    if not self._wishes:
                        break
            except acme.Busy:
                self._wait = LEAST  # somebody orders by hand
                if wish.request:
                    self._wishes.insert(0, wish)
            except Exception as error:
                _log.exception('certificate not looked after', error)

    def _look(self, wish: Wish) -> None:
        """Order if it is due or wished for."""
        errand = self._errand
        names = errand.names()
        now = int(time.time())
        state = acme.load(errand.directory)
        if not wish.request and acme_schedule.asks(state, now) and acme.held(errand.directory):
            self._run(errand.brief(names, wish, task=ASK))
        when = errand.next(names, now)
        if wish.request:
            due = now if wish.force or wish.trial else errand.due(names, now)
            when = max(due, acme_schedule.allowed(acme.load(errand.directory), now))
            if when > now:
                errand.answer(wish)
        if when <= now:
            self._order(names, wish)
            now = int(time.time())
            when = errand.next(names, now)
        self._wait = min(self._wait, max(when - now, LEAST))

    def _order(self, names: Names, wish: Wish) -> None:
        directory = self._errand.directory
        before = acme.held(directory)
        if names.trouble:
            self._errand.fail(names, wish)
        else:
            status = self._run(self._errand.brief(names, wish, probe=self._errand.probe()))
            if status == BUSY:
                raise acme.Busy
            if status:
                trouble = f'the process that orders ended with status {status}'
                self._errand.fail(names._replace(trouble=trouble), wish, 'process')
        state = acme.load(directory)
        if state.error:
            _log.error('certificate not obtained', cause=state.word, failures=state.failures)
        if acme.held(directory) != before:
            _log.info('certificate obtained')
            self._publish(TOPIC, {})

    def _run(self, brief: Brief) -> int:
        """The exit status."""
        process = self._process = brief.start()
        try:
            deadline = time.monotonic() + ORDER_TIME
            while process.poll() is None and time.monotonic() < deadline:
                gevent.sleep(0.1)
        finally:
            self._end()
        return process.wait()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        deadline = time.monotonic() + END_TIME
        while process.poll() is None and time.monotonic() < deadline:
            gevent.sleep(0.05)
        process.kill()
        process.wait()
