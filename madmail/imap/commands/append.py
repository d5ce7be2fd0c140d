"""APPEND (RFC 3501 6.3.11) with MULTIAPPEND (RFC 3502) and APPENDUID (RFC 4315).

A message literal is not held: it goes in pieces from the wire through the
inspection, which applies the same rules as to any other way in, to a spool.
Whatever is wrong, the octets the client sends unasked are consumed before the
answer, so that the dialogue stays in step; a client that waits for leave is
refused at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madmail.imap import grammar, responses
from madmail.imap.commands.registry import capability
from madmail.imap.framing import HOPELESS
from madmail.imap.syntax import Append, AppendEnd, AppendStart, Bad
from madmail.message.inspection import Direction, Inspection, Rules
from madmail.shard.wire import Gone, Idle
from madmail.store.interface import Mailbox, MailboxMissing, NewMessage, OverQuota, StoreFull

if TYPE_CHECKING:
    from madmail.imap.framing import Framer
    from madmail.imap.session import ImapSession
    from madmail.store.spool import Spool

PIECE = 65536  # octets taken from the wire at once
SILENCE = 300.0  # seconds without an octet inside a literal
MAX_MESSAGES = 64  # in one command


def _limit_word(shard: Any) -> str:
    limit = shard.settings['limits.max_message_size']
    return f'APPENDLIMIT={limit}' if limit else 'APPENDLIMIT'


capability('MULTIAPPEND', _limit_word)


def receive(session: ImapSession, framer: Framer, start: AppendStart) -> None:
    """The whole command from its first literal on, with its answer; raises Bad."""
    upload = _Upload(session)
    try:
        tag = upload.receive(framer, start)
        status = upload.store()
    finally:
        upload.discard()
    session.finish(tag, status)


class _Upload:
    """The messages of one command, until they are stored together."""

    def __init__(self, session: ImapSession) -> None:
        self.session = session
        self.refusal: Bad | None = None
        self.mailbox: Mailbox | None = None
        self.messages: list[NewMessage] = []
        self.spools: list[Spool] = []

    def receive(self, framer: Framer, start: AppendStart) -> bytes:
        """Consume all literals; the tag.  Raises Bad for the first refusal."""
        tag = b'*'
        step: Any = start
        while True:
            if isinstance(step, AppendStart):
                try:
                    tag, arguments = self._arguments(step, tag)
                    self._literal(step, arguments)
                except Bad as refusal:
                    tag = tag if refusal.tag == b'*' else refusal.tag
                    self.refusal = self.refusal or refusal
                    if step.synchronizing:
                        framer.abandon()  # the client has not sent it and now does not
                        raise _tagged(self.refusal, tag) from None
                    self._swallow(step.size)
            elif isinstance(step, AppendEnd):
                if self.refusal is not None:
                    raise _tagged(self.refusal, tag)
                if step.trailing:
                    raise _tagged(Bad('Unexpected octets behind the message'), tag)
                return tag
            else:
                # A line too long between two literals; the framer has given the command up.
                raise _tagged(self.refusal or Bad('Command is too long', code=b'TOOBIG'), tag)
            step = self._next(framer)

    def _arguments(self, start: AppendStart, tag: bytes) -> tuple[bytes, Any]:
        if start.first:
            command = grammar.parse_append(start.frame)
            arguments = command.arguments
            assert isinstance(arguments, Append)
            tag = command.tag
            session = self.session
            self.mailbox = session.shard.store.mailbox(session.account.id, arguments.mailbox)
            if self.mailbox is None:
                bad = Bad('Mailbox does not exist', status=b'NO', code=b'TRYCREATE')
                raise _tagged(bad, tag)
            return tag, arguments
        return tag, grammar.parse_append_next(start.frame)

    def _literal(self, start: AppendStart, arguments: Any) -> None:
        """Receive one message; raises Bad if that is clear before its first octet."""
        if self.refusal is not None:
            raise self.refusal
        shard = self.session.shard
        limit = shard.settings['limits.max_message_size']
        if start.binary:
            raise Bad('Literal8 is not supported', status=b'NO', code=b'UNKNOWN-CTE')
        if limit and start.size > limit:
            raise Bad('Message is too big', status=b'NO', code=b'TOOBIG')
        if not start.size:
            # RFC 3502 6.3.11: a client takes the command back like this
            raise Bad('Message is empty', status=b'NO', code=b'CANNOT')
        if len(self.messages) >= MAX_MESSAGES:
            raise Bad('Too many messages in one command', status=b'NO', code=b'LIMIT')
        assert self.mailbox is not None
        keywords = shard.boxes.spell(self.mailbox.id, arguments.flags.keywords)
        if keywords is None:
            raise Bad('Too many keywords in this mailbox', status=b'NO', code=b'LIMIT')
        if start.synchronizing:
            self.session.wire.write(responses.CONTINUE)
        settings = shard.settings
        inspection = Inspection(
            Direction.APPEND,
            Rules(
                require_encryption=settings['policy.require_encryption'],
                max_size=limit,
                securejoin=settings['policy.securejoin_requests'],
                reports=settings['policy.inbound_reports'],
            ),
            reverse_path='',
            recipients=0,
            own=self.session.account.address,
        )
        spool = shard.spool()
        self.spools.append(spool)
        full = False
        for piece in self._pieces(start.size):
            kept = inspection.feed(piece)
            if kept and not full:
                try:
                    spool.append(kept)
                except StoreFull:
                    full = True
        verdict = inspection.finish()
        if verdict.rest and not full:
            try:
                spool.append(verdict.rest)
            except StoreFull:
                full = True
        if verdict.reply is not None:
            code = b'TOOBIG' if verdict.reply.code == 552 else b'CANNOT'
            text = responses.status_text(verdict.reply.text).decode()
            self.refusal = Bad(text, status=b'NO', code=code)
        elif full:
            self.refusal = Bad('Storage is full', status=b'NO', code=b'UNAVAILABLE')
        else:
            bits = arguments.flags.bits
            self.messages.append(NewMessage(spool.finish(), bits, keywords, arguments.date or 0))

    def _pieces(self, size: int) -> Any:
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

    def store(self) -> bytes:
        """All messages or none; the status line behind the tag."""
        session = self.session
        mailbox = self.mailbox
        assert mailbox is not None
        try:
            uids = session.shard.store.append(mailbox.id, self.messages, session)
        except MailboxMissing:
            return b'NO [TRYCREATE] Mailbox does not exist'
        except OverQuota:
            return b'NO [OVERQUOTA] Quota exceeded'
        except StoreFull:
            return b'NO [UNAVAILABLE] Storage is full, try again later'
        code = responses.append_uid(mailbox.uid_validity, uids)
        return b'OK [%s] Append completed' % code if code else b'OK Append completed'

    def discard(self) -> None:
        for spool in self.spools:
            spool.discard()


def _tagged(bad: Bad, tag: bytes) -> Bad:
    bad.tag = tag
    return bad
