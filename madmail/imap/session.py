"""One IMAP session after login: the loop over commands, and news to the client.

A session costs no greenlet while it is parked, in IDLE or not.  `run` takes all
complete commands from the wire and answers them; between two runs the store's
events reach `stirred`, which writes to a client in IDLE from inside the event
callback, within the same turn of the loop as the commit.

News (EXISTS, EXPUNGE, flags of other sessions) stands before the status line
of a command, as far as the command allows it (RFC 3501 7.4.1; FETCH allows no
flags, because a client may take them for the data it asked for).

Faults: a refusal is a status line.  When the store fails under a command whose
NO would make clients lose mail (FETCH, SELECT, STORE), the session says BYE and
closes, and the client comes back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import gevent

from madmail import log
from madmail.imap import commands, grammar, news, responses, telling
from madmail.imap.commands import append
from madmail.imap.commands.registry import VERBS, Tell, capabilities
from madmail.imap.framing import Framer
from madmail.imap.notices import Notices
from madmail.imap.syntax import (
    AppendEnd,
    AppendStart,
    Bad,
    Command,
    Continue,
    Frame,
    TooLong,
)
from madmail.imap.view import View
from madmail.shard.services import ShardServices
from madmail.shard.turns import share, yield_to_others
from madmail.shard.wire import CORK_LIMIT, Gone, Stream
from madmail.store.interface import (
    Account,
    MailboxExists,
    MailboxMissing,
    OverQuota,
    StoreFull,
)

MAX_BADS = 10  # in a row, then the connection is closed
PROGRESS = 10.0  # seconds between two signs of life of a long command (RFC 9585 3)
AWAIT = 0.002  # seconds between two looks whether a response is complete
KEEPALIVE = 120.0  # seconds; below the 3 to 5 min after which NATs and clients give up
DEFAULT_LINE = 65536  # octets of a command if limits.command_line is 0

__all__ = ['ImapSession', 'commands']

_log = log.get('imap')


class ImapSession:
    """A client that is logged in to `account`; fulfils wire.Session."""

    __slots__ = (
        '_active',
        '_bads',
        '_framer',
        '_tag',
        '_turn',
        'account',
        'doomed',
        'enabled',
        'greeting',
        'idle_tag',
        'in_literal',
        'notices',
        'running',
        'saved',
        'shard',
        'speaking',
        'spoke',
        'view',
        'wire',
        'working',
    )

    def __init__(
        self, wire: Stream, shard: ShardServices, account: Account, tag: bytes = b''
    ) -> None:
        self.wire = wire
        self.shard = shard
        self.account = account
        self.view: View | None = None
        self.enabled: frozenset[str] = frozenset()  # by ENABLE (RFC 5161), upper case
        self.notices: Notices | None = None  # what NOTIFY asked for
        self.saved: Sequence[int] = ()  # UIDs of the last SEARCH RETURN (SAVE)
        self.in_literal = False  # a literal is begun: nothing else may be written
        self.greeting = tag  # tag of the login command, until it is answered
        self._framer = Framer(shard.settings['limits.command_line'] or DEFAULT_LINE)
        self.idle_tag: bytes | None = None
        self._tag = b''  # of the command that runs, or ran last
        self.running = False
        self.working = False  # a greenlet tells news outside of commands, see telling
        self.speaking = False  # and a run has to wait for it
        self.doomed = ''  # why the session has to end at the next command boundary
        self._bads = 0
        self._active = self.spoke = self._turn = time.monotonic()

    # -- wire.Session

    def run(self) -> None:
        self.running = True
        while self.speaking:
            gevent.sleep(AWAIT)
        self._active = self._turn = time.monotonic()
        try:
            if self.greeting:
                # RFC 3501 6.2.3; the capabilities save the client a round trip.
                self.wire.write(
                    b'%s OK [CAPABILITY %s] Logged in\r\n' % (self.greeting, capabilities(self))
                )
                self.greeting = b''
            while not self.doomed and not self.wire.closing and self._step():
                pass
            if self.doomed:
                self.goodbye(self.doomed)
        finally:
            self.running = False
        self._active = time.monotonic()
        if not self.wire.closing and (self.idle_tag is not None or self.notices is not None):
            telling.tell_now(self)

    def tick(self, now: float) -> None:
        if self.running or self.working:
            return  # it may be in the middle of a response
        if self.idle_tag is not None:
            # Never ended for inactivity: a dead peer shows when nobody takes this line.
            if now - self.spoke >= KEEPALIVE:
                self.spoke = now
                self.wire.write(b'* OK Still here\r\n')
                self.wire.flush()
            return
        limit = self.shard.settings['limits.imap_idle']
        if limit and now - self._active > limit:
            self.goodbye('Disconnected for inactivity')

    def retire(self) -> None:
        self._end('Server is going away, please reconnect')

    def ended(self) -> None:
        self.close_mailbox()
        if self.notices is not None:
            self.notices.leave()

    # -- view.Watcher

    def stirred(self) -> None:
        telling.stirred(self)

    def mailbox_gone(self) -> None:
        self._end('Mailbox was deleted')

    # -- for commands

    @property
    def utf8(self) -> bool:
        """Mailbox names and quoted strings are UTF-8 (RFC 6855 3, RFC 9051 5.1)."""
        return not self.enabled.isdisjoint(_UTF8)

    @property
    def by_uid(self) -> bool:
        """Expunges are told as VANISHED (RFC 7162 3.2.10, RFC 9586 3.2)."""
        return not self.enabled.isdisjoint(_VANISHED)

    def fetch_head(self, view: View, uid: int) -> bytes:
        """The beginning of a FETCH response; `view` is loaded from `uid` on."""
        if 'UIDONLY' in self.enabled:
            return b'* %d UIDFETCH (' % uid  # RFC 9586 3.3
        return b'* %d FETCH (' % view.sequence(uid)

    def progress(self, done: int, goal: int) -> None:
        """Between two responses of a long command: say now and then how far it is."""
        now = time.monotonic()
        if now - max(self._active, self.spoke) > PROGRESS:
            self.spoke = now
            code = responses.in_progress(self._tag, done, goal)
            self.wire.write(b'* OK [%s] Still working\r\n' % code)
            self.wire.flush()

    def pause(self) -> None:
        """Let others run if this greenlet has worked for long; at any point of a command."""
        now = time.monotonic()
        if now - self._turn > share():
            yield_to_others()
            self._turn = time.monotonic()

    def check(self) -> None:
        """Between two parts of a long answer: is the client still to be served?"""
        if self.doomed:
            self.goodbye(self.doomed)
            raise Gone
        wire = self.wire
        if wire.closing:
            raise Gone
        # Small answers stay corked, so that one send takes them all.
        if wire.unsent > CORK_LIMIT:
            wire.drain()
        self.pause()

    def finish(self, tag: bytes, status: bytes, tell: Tell = Tell.EVERYTHING) -> None:
        """The news that a command allows, then its status line."""
        notices = self.notices
        if notices is not None:
            tell = notices.allowed(tell)
            if notices.waiting:
                notices.tell()
        news.tell(self, tell)
        if self.enabled and self.view is not None:
            code = news.highest_modseq(self, self.view)
            if code and status.startswith(b'OK ') and not status.startswith(b'OK ['):
                status = b'OK [%s] %s' % (code, status[3:])
            elif code:
                self.wire.write(b'* OK [%s] Highest\r\n' % code)
        self._say(tag, status)

    def goodbye(self, text: str) -> None:
        """End the session now (RFC 3501 7.1.5)."""
        if self.wire.closing:
            return
        if not self.in_literal:
            self.wire.write(b'* BYE %s\r\n' % text.encode('ascii'))
        self.wire.close()

    def enter_idle(self, tag: bytes) -> None:
        """From now on news are written as they happen, until DONE."""
        self.idle_tag = tag
        self.spoke = time.monotonic()

    def enable(self, *names: str) -> None:
        """Behave as these extensions say from now on; names in upper case."""
        before = self.enabled
        self.enabled |= frozenset(names)
        if 'QRESYNC' in self.enabled:
            self.enabled |= {'CONDSTORE'}  # RFC 7162 3.2.3
        view = self.view
        if view is not None:
            view.adapt(self.enabled)
            if 'CONDSTORE' in self.enabled and 'CONDSTORE' not in before:
                # RFC 7162 3.1.2.1: what a client that selected without it has not been told
                view.told_modseq = view.complete_modseq()
                self.wire.write(b'* OK [HIGHESTMODSEQ %d] Highest\r\n' % view.told_modseq)

    def select(self, view: View) -> None:
        self.view = view
        view.adapt(self.enabled)
        if self.notices is not None:
            self.notices.selected(view.box.id, view.box.name)

    def close_mailbox(self) -> None:
        view, self.view = self.view, None
        self.saved = ()
        if view is not None:
            self.shard.boxes.leave(view)
        if self.notices is not None:
            self.notices.selected(0, '')

    def announce_keywords(self, keywords: Iterable[str]) -> None:
        """Say FLAGS again before a keyword appears that the client was not told of."""
        view = self.view
        assert view is not None
        if view.keywords.issuperset(keywords):
            return
        view.box.learn(keywords)
        self.write_flags()
        view.keywords.update(keywords)  # in whatever spelling, once is enough

    def write_flags(self) -> None:
        """FLAGS and PERMANENTFLAGS (RFC 3501 7.2.6, 7.1)."""
        view = self.view
        assert view is not None
        keywords = tuple(view.box.keywords.values())
        view.keywords.update(keywords)
        self.wire.write(responses.flags(keywords))
        self.wire.write(responses.permanent_flags(keywords, not view.read_only))

    # -- moving to another process

    def freeze(self) -> dict[str, Any] | None:
        """The session at a command boundary as plain values; None if it is elsewhere.

        The session is over afterwards: it has left its mailbox.
        """
        if self.running or self.working or self.doomed or self.greeting:
            return None
        if self.view is not None and self.view.contexts is not None:
            return None  # searches that are kept up to date cannot move
        if not self._framer.idle or self.wire.input:
            return None
        state: dict[str, Any] = {
            'protocol': 'imap',
            'idle': self.idle_tag,
            'view': self.view.freeze() if self.view is not None else None,
            'saved': list(self.saved),
            'enabled': sorted(self.enabled),
            'notify': self.notices.freeze() if self.notices is not None else None,
        }
        self.close_mailbox()
        if self.notices is not None:
            self.notices.leave()
        return state

    @classmethod
    def thaw(
        cls, wire: Stream, shard: ShardServices, account: Account, state: dict[str, Any]
    ) -> ImapSession:
        """The session as it was; what happened meanwhile becomes news."""
        session = cls(wire, shard, account)
        session.running = True  # until it does: nothing may be written before its wire is whole
        session.idle_tag = state['idle']
        session.saved = state['saved']
        session.enabled = frozenset(state.get('enabled', ()))
        if state['view'] is not None:
            frozen = state['view']
            row = shard.store.mailbox_by_id(frozen['mailbox'])
            if row is None:
                session.doomed = 'Mailbox was deleted'
            else:
                view = shard.boxes.select(row, session, read_only=frozen['read_only'])
                session.select(view)
                if not view.thaw(frozen):
                    session.doomed = 'Server was restarted, please reconnect'
        if state.get('notify') is not None:
            session.notices = Notices.thaw(session, state['notify'])
        return session

    # -- the loop

    def _step(self) -> bool:
        """Handle one outcome of the framer; False when more input is needed."""
        wire = self.wire
        if self.idle_tag is not None:
            return self._done()
        outcome = self._framer.next(wire.input)
        if outcome is None:
            return False
        if isinstance(outcome, Frame):
            self._obey(outcome)
        elif isinstance(outcome, Continue):
            wire.write(responses.CONTINUE)
        elif isinstance(outcome, AppendStart):
            self._append(outcome)
        elif isinstance(outcome, TooLong):
            wire.write(b'%s BAD [TOOBIG] Command is too long\r\n' % outcome.tag)
            if outcome.hopeless:
                self.goodbye('Too much input')
            else:
                self._bad()
        elif isinstance(outcome, AppendEnd):
            raise AssertionError('APPEND ended outside of APPEND')
        return True

    def _obey(self, frame: Frame) -> None:
        if not frame.line and not frame.literals:
            return  # an empty line harms nobody
        try:
            command = grammar.parse(frame, utf8=self.utf8)
        except Bad as bad:
            self._refuse(bad)
            return
        self.execute(command)

    def execute(self, command: Command) -> None:
        """Run one command and write its status line, with the news it allows."""
        verb = VERBS.get(command.name)
        self._tag = command.tag
        self._active = time.monotonic()
        try:
            if verb is None:
                # STARTTLS, LOGIN and AUTHENTICATE belong before login (RFC 3501 6.2)
                raise Bad('Command is not possible now')
            view = self.view
            if verb.selected and view is None:
                raise Bad('No mailbox is selected')
            if not command.uid and command.name in _NUMBERED and 'UIDONLY' in self.enabled:
                # RFC 9586 3.1
                raise Bad('Only the UID form is possible now', code=b'UIDREQUIRED')
            if verb.writes and view is not None and view.read_only:
                raise Bad('Mailbox is read-only', status=b'NO', code=b'READ-ONLY')
            status = verb.handler(self, command)
            if status is not None:
                self.finish(command.tag, status, verb.tell)
            self._bads = 0
        except Bad as bad:
            bad.tag = command.tag
            self._refuse(bad)
        except (MailboxMissing, MailboxExists, OverQuota) as refusal:
            if verb is not None and verb.vital:
                self.goodbye('Mailbox was deleted')
            else:
                self._say(command.tag, _REFUSALS[type(refusal)])
        except Gone:
            raise
        except StoreFull:
            if verb is not None and verb.vital:
                self.goodbye('Storage has failed, please reconnect')
            else:
                self._say(command.tag, b'NO [UNAVAILABLE] Storage is full, try again later')
        except Exception:
            self.goodbye('Internal error, please reconnect')
            raise
        self.pause()

    def _say(self, tag: bytes, status: bytes) -> None:
        self.wire.write(b'%s %s\r\n' % (tag, status))

    def _append(self, start: AppendStart) -> None:
        """APPEND, whose literals go through the session (RFC 3501 6.3.11)."""
        try:
            append.receive(self, self._framer, start)
            self._bads = 0
        except Bad as bad:
            self._refuse(bad)
        except Gone:
            raise
        except Exception:
            self.goodbye('Internal error, please reconnect')
            raise
        self.pause()

    def _refuse(self, bad: Bad) -> None:
        self.wire.write(bad.line())
        if bad.status == b'BAD':
            self._bad()

    def _bad(self) -> None:
        self._bads += 1
        if self._bads >= MAX_BADS:
            self.goodbye('Too many invalid commands')

    def _done(self) -> bool:
        """The line that ends IDLE (RFC 2177)."""
        line = self._framer.line(self.wire.input)
        if line is None:
            return False
        tag, self.idle_tag = self.idle_tag, None
        assert tag is not None
        if isinstance(line, bytes) and line.strip(b' ').upper() == b'DONE':
            self.finish(tag, b'OK Idle completed')
            self._bads = 0
        else:
            self._say(tag, b'BAD Expected DONE')
            self._bad()
        return True

    def _end(self, text: str) -> None:
        """End at the next command boundary."""
        if self.running or self.working:
            self.doomed = text
        else:
            self.goodbye(text)


_NUMBERED = frozenset(('FETCH', 'STORE', 'SEARCH', 'COPY', 'MOVE', 'SORT', 'THREAD', 'REPLACE'))
_VANISHED = frozenset(('QRESYNC', 'UIDONLY'))
_UTF8 = frozenset(('UTF8=ACCEPT', 'IMAP4REV2'))
_REFUSALS = {
    MailboxMissing: b'NO [NONEXISTENT] Mailbox does not exist',
    MailboxExists: b'NO [ALREADYEXISTS] Mailbox exists already',
    OverQuota: b'NO [OVERQUOTA] Quota exceeded',
}
