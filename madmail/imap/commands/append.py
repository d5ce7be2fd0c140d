"""APPEND (RFC 3501 6.3.11) and REPLACE (RFC 8508), with what belongs to them:
MULTIAPPEND (RFC 3502), CATENATE (RFC 4469), BINARY (RFC 3516 4.3), UTF8=ACCEPT (RFC
6855 4), APPENDUID (RFC 4315).

A message literal is not held: it goes in pieces from the wire through the
inspection, which applies the same rules as to any other way in, to a spool.
A message that is put together from others goes the same way, so it is judged
as it would be stored.  Whatever is wrong, the octets the client sends unasked
are consumed before the answer, so that the dialogue stays in step; a client
that waits for leave is refused at once.

NUL octets are never stored, because Delta Chat cannot read a mailbox with
them.  A literal8 may bring some: parts declared binary are stored in base64, and
a message that has NUL elsewhere is refused with UNKNOWN-CTE.  Where encryption
is required, the gate refuses both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from madmail.account.limits import message_size
from madmail.imap import grammar, responses, url
from madmail.imap.commands.registry import capability, command
from madmail.imap.framing import HOPELESS
from madmail.imap.grammar_append import MAX_URL
from madmail.imap.sequence_set import SequenceSet
from madmail.imap.syntax import (
    Append,
    AppendEnd,
    AppendStart,
    Bad,
    Begin,
    Command,
    Octets,
    Step,
    Url,
)
from madmail.message.inspection import Direction, Inspection, Rules
from madmail.message.recoding import without_binary
from madmail.message.structure import Span, Structure
from madmail.shard.wire import Gone, Idle
from madmail.store.interface import (
    Body,
    Mailbox,
    MailboxMissing,
    MessageMissing,
    NewMessage,
    OverQuota,
    StoreFull,
)

if TYPE_CHECKING:
    from madmail.imap.framing import Framer
    from madmail.imap.grammar_append import Messages
    from madmail.imap.session import ImapSession
    from madmail.store.spool import Spool

PIECE = 65536  # octets taken from the wire or a body at once
SILENCE = 300.0  # seconds without an octet inside a literal
MAX_MESSAGES = 64  # in one command
THREAD_SIZE = 256 * 1024  # octets above which a message is parsed in a thread


def size_limit(session: ImapSession) -> int:
    """Octets of the largest message that may be appended; 0 = no limit."""
    shard = session.shard
    return message_size(shard.settings, shard.store, session.account.id)


def _limit_word(session: ImapSession) -> str:
    limit = size_limit(session)
    return f'APPENDLIMIT={limit}' if limit else 'APPENDLIMIT'  # RFC 7889


capability('MULTIAPPEND', 'CATENATE', 'URL-PARTIAL', 'REPLACE', _limit_word)


def receive(session: ImapSession, framer: Framer, start: AppendStart) -> None:
    """The whole command from its first literal on, with its answer; raises Bad."""
    upload = _Upload(session)
    try:
        upload.receive(framer, start)
        status = upload.store()
    finally:
        upload.discard()
    session.finish(upload.tag, status)


@command('APPEND', 'REPLACE')
def append(session: ImapSession, command: Command) -> bytes:
    """Without any literal on the wire: messages made of nothing but URLs."""
    upload = _Upload(session)
    try:
        upload.begin(command)
        assert isinstance(command.arguments, Append)
        upload.take(command.arguments.steps, None)
        upload.finish()
        return upload.store()
    finally:
        upload.discard()


class _Upload:
    """The messages of one command, until they are stored together."""

    def __init__(self, session: ImapSession) -> None:
        self.session = session
        self.tag = b'*'
        self.replaced: tuple[int, int] | None = None  # mailbox id, UID
        self.mailbox: Mailbox | None = None
        self.messages: list[NewMessage] = []
        self.spools: list[Spool] = []
        self._refusal: Bad | None = None
        self._draft: _Draft | None = None  # the message that is being received
        self._text: Messages | None = None

    # -- the dialogue

    def receive(self, framer: Framer, start: AppendStart) -> None:
        """Consume all literals.  Raises Bad for the first refusal."""
        step: Any = start
        while True:
            if isinstance(step, AppendStart):
                try:
                    self._literal(step)
                except Bad as refusal:
                    if refusal.tag != b'*':
                        self.tag = refusal.tag
                    self._refusal = self._refusal or refusal
                    if step.synchronizing:
                        framer.abandon()  # the client has not sent it and now does not
                        raise self._tagged(self._refusal) from None
                    self._swallow(step.size)
            elif isinstance(step, AppendEnd):
                try:
                    if self._refusal is None:
                        assert self._text is not None
                        self.take(self._text.end(step.trailing), None)
                        self.finish()
                except Bad as refusal:
                    self._refusal = refusal
                if self._refusal is not None:
                    raise self._tagged(self._refusal)
                return
            else:
                # A line too long between two literals; the framer has given the command up.
                raise self._tagged(self._refusal or Bad('Command is too long', code=b'TOOBIG'))
            step = self._next(framer)

    def _literal(self, start: AppendStart) -> None:
        """Up to and with one literal; raises Bad if a refusal is clear before its first octet."""
        if self._refusal is not None:
            raise self._refusal
        if start.first:
            command, self._text = grammar.parse_append(start.frame, utf8=self.session.utf8)
            self.tag = command.tag
            self.begin(command)
            assert isinstance(command.arguments, Append)
            steps = command.arguments.steps
        else:
            assert self._text is not None
            steps = self._text.more(start.frame)
        self.take(steps, start)

    def _tagged(self, bad: Bad) -> Bad:
        bad.tag = self.tag
        return bad

    def _leave(self, start: AppendStart) -> None:
        """Tell the client to send the literal, if it waits."""
        if start.synchronizing:
            self.session.wire.write(responses.CONTINUE)

    def _pieces(self, size: int) -> Iterable[bytes]:
        session = self.session
        incoming = session.wire.input
        while size:
            if not incoming:
                self._wait()
                continue
            piece = bytes(incoming[: min(size, PIECE)])
            del incoming[: len(piece)]
            size -= len(piece)
            yield piece
            session.pause()

    def _swallow(self, size: int) -> None:
        if size > HOPELESS:
            self.session.goodbye('Too much input')
            raise Gone
        for _ in self._pieces(size):
            pass

    def _wait(self) -> None:
        """More input; raises Gone when none comes, and then nothing is stored."""
        session = self.session
        try:
            if session.wire.wait(SILENCE):
                return
        except Idle:
            session.goodbye('Disconnected for inactivity')
        raise Gone

    def _next(self, framer: Framer) -> Any:
        while (step := framer.next(self.session.wire.input)) is None:
            self._wait()
        return step

    # -- the messages

    def begin(self, command: Command) -> None:
        """What the command is about; raises Bad."""
        arguments = command.arguments
        assert isinstance(arguments, Append)
        session = self.session
        if arguments.replaced is not None:
            self.replaced = self._chosen(arguments.replaced, by_uid=command.uid)
        self.mailbox = session.shard.store.mailbox(session.account.id, arguments.mailbox)
        if self.mailbox is None:
            raise Bad('Mailbox does not exist', status=b'NO', code=b'TRYCREATE')

    def _chosen(self, number: int, *, by_uid: bool) -> tuple[int, int]:
        """The message to replace: mailbox id and UID (RFC 8508 3.1)."""
        view = self.session.view
        if view is None:
            raise Bad('No mailbox is selected')
        if view.read_only:
            raise Bad('Mailbox is read-only', status=b'NO', code=b'READ-ONLY')
        numbers = SequenceSet(((number, number),))
        uids = view.uids(view.ranges(numbers, by_uid=by_uid, saved=()))
        if not uids:
            raise Bad('Message does not exist', status=b'NO', code=b'NONEXISTENT')
        return view.box.id, uids[0]

    def take(self, steps: Iterable[Step], start: AppendStart | None) -> None:
        """Do the steps; `start` is the literal the last of them is about.  Raises Bad."""
        for step in steps:
            if isinstance(step, Begin):
                self._close()
                self._open(step)
            elif isinstance(step, Url):
                self._insert(step.url)
            else:
                assert start is not None
                self._receive(step, start)

    def finish(self) -> None:
        """Behind the last message; raises Bad."""
        self._close()

    def _open(self, step: Begin) -> None:
        session = self.session
        assert self.mailbox is not None
        if len(self.messages) >= MAX_MESSAGES:
            raise Bad('Too many messages in one command', status=b'NO', code=b'LIMIT')
        keywords = session.shard.boxes.spell(self.mailbox.id, step.flags.keywords)
        if keywords is None:
            raise Bad('Too many keywords in this mailbox', status=b'NO', code=b'LIMIT')
        self._draft = _Draft(session, self.spools)
        self._draft.flags = step.flags.bits
        self._draft.keywords = keywords
        self._draft.date = step.date or 0

    def _receive(self, step: Octets, start: AppendStart) -> None:
        """One literal from the wire."""
        draft = self._draft
        assert draft is not None
        whole = step.kind in ('message', 'utf8')
        if step.kind == 'url':
            if start.size > MAX_URL:
                raise Bad('URL is too long')
            self._leave(start)
            self._insert(b''.join(self._pieces(start.size)))
            return
        if step.kind == 'utf8' and not self.session.utf8:
            raise Bad('UTF8 is not enabled')  # RFC 6855 4
        draft.expect(start.size)
        if whole and not start.size:
            # RFC 3502 6.3.11: a client takes the command back like this
            raise Bad('Message is empty', status=b'NO', code=b'CANNOT')
        self._leave(start)
        draft.binary = draft.binary or start.binary
        draft.raw = start.binary and whole and not draft.size
        for piece in self._pieces(start.size):
            draft.feed(piece)

    def _insert(self, text: bytes) -> None:
        """The octets a URL stands for (RFC 4469 4.1); raises Bad."""
        draft = self._draft
        assert draft is not None
        session = self.session
        wanted = url.parse(text)
        found = self._resolve(wanted) if wanted is not None else None
        if found is None:
            # RFC 4469 4.2: the code repeats the URL; what cannot stand in it is left out
            code = b'BADURL'
            if responses.quotable(text):
                code += b' ' + responses.quoted(text)
            raise Bad('No such message or section', status=b'NO', code=code)
        body, part = found
        if isinstance(part, bytes):
            draft.expect(len(part))
            draft.feed(part)
            return
        draft.expect(part.length)
        at, end = part.offset, part.offset + part.length
        while at < end:
            piece = body.read(at, min(PIECE, end - at))
            if not piece:
                raise Bad('Message cannot be read', status=b'NO', code=b'UNAVAILABLE')
            draft.feed(piece)
            at += len(piece)
            session.check()

    def _resolve(self, wanted: url.MessageUrl) -> tuple[Body, Span | bytes] | None:
        session = self.session
        shard = session.shard
        own = session.account.address
        if wanted.user and wanted.user.lower() not in (own, own.rpartition('@')[0]):
            return None
        if wanted.host and wanted.host not in (shard.domain, shard.hostname):
            return None
        mailbox = shard.store.mailbox(session.account.id, wanted.mailbox)
        if mailbox is None or wanted.uid_validity not in (0, mailbox.uid_validity):
            return None
        row = shard.store.message(mailbox.id, wanted.uid)
        body = shard.store.body(row.body_id) if row is not None else None
        if body is None:
            return None
        structure = Structure(body)
        section = wanted.section
        if section.part and body.size > THREAD_SIZE:
            shard.offload(_parse, structure)
        partial = wanted.partial
        if partial is not None and not partial[1]:
            partial = (partial[0], body.size)
        part = structure.section(section.part, section.text, section.fields, partial)
        return None if part is None else (body, part)

    def _close(self) -> None:
        """The message that was begun is whole; raises Bad."""
        draft, self._draft = self._draft, None
        if draft is not None:
            self.messages.append(draft.message())

    def store(self) -> bytes:
        """All messages or none; the status line behind the tag."""
        session = self.session
        mailbox = self.mailbox
        assert mailbox is not None
        try:
            uids = session.shard.store.append(
                mailbox.id, self.messages, session, replacing=self.replaced
            )
        except MailboxMissing:
            return b'NO [TRYCREATE] Mailbox does not exist'
        except MessageMissing:
            return b'NO [NONEXISTENT] Message is gone'
        except OverQuota:
            return b'NO [OVERQUOTA] Quota exceeded'
        except StoreFull:
            return b'NO [UNAVAILABLE] Storage is full, try again later'
        code = responses.append_uid(mailbox.uid_validity, uids)
        if self.replaced is not None:
            # RFC 8508 3.2: before the EXPUNGE, which comes as news
            session.wire.write(b'* OK [%s] Replacement is stored\r\n' % code)
            return b'OK Replace completed'
        return b'OK [%s] Append completed' % code if code else b'OK Append completed'

    def discard(self) -> None:
        for spool in self.spools:
            spool.discard()


class _Draft:
    """One message on its way through the inspection to its spool."""

    def __init__(self, session: ImapSession, spools: list[Spool]) -> None:
        settings = session.shard.settings
        self.flags = 0
        self.keywords: tuple[str, ...] = ()
        self.date = 0
        self.binary = False  # some of it came as literal8
        self.raw = False  # all of it comes as one literal8: looked at when it is there
        self.size = 0
        self._session = session
        self._spools = spools
        self._limit = size_limit(session)
        self._rules = Rules(
            require_encryption=settings['policy.require_encryption'],
            max_size=self._limit,
            securejoin=settings['policy.securejoin_requests'],
            reports=settings['policy.inbound_reports'],
        )
        self._spool: Spool | None = None
        self._inspection: Inspection | None = None
        self._full = False
        self._nul = False

    def expect(self, size: int) -> None:
        """So many octets are to come; raises Bad where they are too many."""
        if self._limit and self.size + size > self._limit:
            raise Bad('Message is too big', status=b'NO', code=b'TOOBIG')

    def feed(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.raw:
            self._nul = self._nul or b'\0' in piece
            self._keep(piece)
            return
        if self.binary:
            self._nul = self._nul or b'\0' in piece
        if self._inspection is None:
            self._inspection = Inspection(
                Direction.APPEND,
                self._rules,
                reverse_path='',
                recipients=0,
                own=self._session.account.address,
            )
        self._keep(self._inspection.feed(piece))

    def _keep(self, octets: bytes) -> None:
        if self._full:
            return
        if self._spool is None:
            self._spool = self._session.shard.spool()
            self._spools.append(self._spool)
        try:
            if octets:
                self._spool.append(octets)
        except StoreFull:
            self._full = True

    def message(self) -> NewMessage:
        """The message, judged; raises Bad."""
        if not self.size:
            raise Bad('Message is empty', status=b'NO', code=b'CANNOT')
        if self.raw and not self._full:
            self._judge_raw()
        if not self._full:
            assert self._inspection is not None
            verdict = self._inspection.finish()
            self._keep(verdict.rest)
            if verdict.reply is not None:
                raise self._refused(verdict.reply)
        if self._full:
            raise Bad('Storage is full', status=b'NO', code=b'UNAVAILABLE')
        assert self._spool is not None
        return NewMessage(self._spool.finish(), self.flags, self.keywords, self.date)

    def _judge_raw(self) -> None:
        """A literal8 has come: give its octets, or what is stored for them, to the inspection."""
        assert self._spool is not None
        session = self._session
        whole = self._spool
        body = whole.finish()
        self.raw = False
        self._spool = None
        if self._nul:
            if body.size > THREAD_SIZE:
                recoded = without_binary(body)
                while piece := session.shard.offload(next, recoded, b''):
                    self.feed(piece)
                    session.pause()
            else:
                for piece in without_binary(body):
                    self.feed(piece)
        else:
            for start in range(0, body.size, PIECE):
                self.feed(body.read(start, PIECE))
                session.pause()
        whole.discard()

    def _refused(self, reply: Any) -> Bad:
        code = b'TOOBIG' if reply.code == 552 else b'CANNOT'
        if self._nul and code == b'CANNOT':
            code = b'UNKNOWN-CTE'  # RFC 3516 4.3
        text = responses.status_text(reply.text).decode()
        return Bad(text, status=b'NO', code=code)


def _parse(structure: Structure) -> None:
    """Go over the message once, in a thread."""
    _ = structure.root
