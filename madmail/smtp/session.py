"""One SMTP connection inside a shard, from the hand-over to its end.

The gate has greeted, encrypted and, for a submission, authenticated; what
comes here are transactions.  Messages stream: what the wire gives goes through
the dot decoder and the inspection into the spool, so a large one costs its
file and not memory.  Nothing is stored before the message is complete and
found good, and nothing is answered before it is durable.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from madmail import log
from madmail.account.address import smtp_name
from madmail.account.limits import message_size
from madmail.delivery.router import fingerprint
from madmail.message.inspection import Direction, Inspection, Rules
from madmail.shard.turns import share, yield_to_others
from madmail.shard.wire import Gone, Idle
from madmail.smtp import grammar
from madmail.smtp.data import Chunks, Dots
from madmail.smtp.grammar import Chunk
from madmail.smtp.reply import Fault, Reply
from madmail.smtp.verbs import (
    AUTHENTICATED,
    BYE,
    GO_AHEAD,
    VERBS,
    Dialogue,
    Transaction,
)
from madmail.store.interface import StoreFull

if TYPE_CHECKING:
    from madmail.delivery.origin import Origin
    from madmail.shard.services import ShardServices
    from madmail.shard.wire import Wire
    from madmail.store.interface import Account
    from madmail.store.spool import Spool

ERROR_LIMIT = 20  # mistakes of the peer a session
SWALLOW = 1 << 20  # octets read beyond the size limit only to say that it was too much

IDLE = Reply(421, '4.4.2', 'Idle too long', 'idle', Fault.PEER)
TIMEOUT = Reply(421, '4.4.2', 'Timeout while reading data', 'idle', Fault.PEER)
TOO_MANY_ERRORS = Reply(421, '4.7.0', 'Too many errors', 'errors', Fault.PEER)
SHUTDOWN = Reply(421, '4.3.2', 'Service is restarting, try again', 'shutdown', Fault.OURS)
TROUBLE = Reply(451, '4.3.0', 'Temporary trouble, try again later', 'trouble', Fault.OURS)
MALFORMED = Reply(554, '5.6.0', 'Malformed data', 'bare_line_end', Fault.PEER)

_log = log.get('smtp')


class Incoming:
    """A message on its way in: decoder, inspection, origin (from elsewhere), spool."""

    __slots__ = ('_trouble', 'decoder', 'fingerprint', 'inspection', 'origin', 'seen', 'spool')

    def __init__(
        self,
        decoder: Dots | Chunks,
        inspection: Inspection,
        origin: Origin | None,
        spool: Spool,
        fingerprint: blake2b | None,
    ) -> None:
        self.decoder = decoder
        self.fingerprint = fingerprint  # from elsewhere
        self.inspection = inspection
        self.origin = origin
        self.spool = spool
        self.seen = 0  # octets of the message so far
        self._trouble: Reply | None = None

    def feed(self, octets: bytes) -> None:
        """Octets of the message; after a refusal they are only counted."""
        if not octets:
            return
        self.seen += len(octets)
        if self._trouble is not None:
            return
        try:
            kept = self.inspection.feed(octets)
            if self.inspection.refused is not None:
                self.spool.discard()
                self._trouble = self.inspection.refused
                return
            if self.origin is not None:
                self.origin.feed(octets)  # as they came, before anything is scrubbed
            if kept:
                self.keep(kept)
        except StoreFull:
            self._give_up()
        except Exception as error:
            _log.exception('inspection failed', error)
            self._give_up()

    def keep(self, octets: bytes) -> None:
        """The next octets to store.  Raises StoreFull."""
        self.spool.append(octets)
        if self.fingerprint is not None:
            self.fingerprint.update(octets)

    def _give_up(self) -> None:
        self.spool.discard()
        self._trouble = TROUBLE

    @property
    def refusal(self) -> Reply | None:
        return MALFORMED if self.decoder.malformed else self._trouble


class SmtpSession:
    """A session on a wire (see madmail.shard.wire); without account it is port 25."""

    def __init__(
        self, wire: Wire, shard: ShardServices, account: Account | None, handover: dict[str, Any]
    ) -> None:
        self._prepare(wire, shard, account, handover)
        if account is not None:
            wire.write(AUTHENTICATED.line())

    def _prepare(
        self, wire: Wire, shard: ShardServices, account: Account | None, state: dict[str, Any]
    ) -> None:
        self.wire = wire
        self.shard = shard
        self._account_id = account.id if account is not None else 0
        self.dialogue = Dialogue(
            shard.router.policy,
            lambda: smtp_name(shard.hostname),
            account.address if account is not None else '',
            helo=state['helo'],
            tls=state['tls'],
            size_limit=self._size_limit,
        )
        self._errors = 0
        self._reception: Incoming | None = None  # between two chunks of BDAT
        self._running = False
        self._retiring = False
        self._last = time.monotonic()

    # -- what the wire and the process call

    def run(self) -> None:
        self._running = True
        try:
            self._commands()
        finally:
            self._running = False
            self._last = time.monotonic()

    def tick(self, now: float) -> None:
        limit = self.shard.settings['limits.smtp_idle']
        if limit and not self._running and now - self._last > limit:
            self._end(IDLE)

    def retire(self) -> None:
        if self._running:
            self._retiring = True  # at the next command boundary
        else:
            self._end(SHUTDOWN)

    def ended(self) -> None:
        self._drop()

    def freeze(self) -> dict[str, Any] | None:
        """The session as plain values for the next process; None where it cannot move."""
        if self._running or self._reception is not None:
            return None
        return {'protocol': 'smtp', 'errors': self._errors, **self.dialogue.freeze()}

    @classmethod
    def thaw(
        cls, wire: Wire, shard: ShardServices, account: Account | None, state: dict[str, Any]
    ) -> SmtpSession:
        """A session that another process has frozen."""
        session = cls.__new__(cls)
        session._prepare(wire, shard, account, state)
        session._errors = state['errors']
        session.dialogue.thaw(state)
        return session

    # -- commands

    def _commands(self) -> None:
        wire, dialogue = self.wire, self.dialogue
        turn = time.monotonic()
        while True:
            line = grammar.take_line(wire.input)
            if line is None:
                return
            if isinstance(line, Reply):
                self._end(line)
                return
            said = self._say(dialogue, line)
            if said is None:
                return
            wire.write(said)
            if self._errors >= ERROR_LIMIT:
                self._end(TOO_MANY_ERRORS)
                return
            if self._retiring:
                self._end(SHUTDOWN)
                return
            if time.monotonic() - turn > share():
                # A peer that writes and never reads stops here; others go on.
                wire.drain()
                yield_to_others()
                turn = time.monotonic()

    def _say(self, dialogue: Dialogue, line: bytes) -> bytes | None:
        """What a line is answered with; None when the session is over."""
        command = grammar.command(line)
        if isinstance(command, Reply):
            return self._count(command)
        verb = VERBS.get(command.verb)
        if verb is None:
            if command.verb in grammar.FOREIGN:
                self._end(grammar.CROSS_PROTOCOL)
                return None
            return self._count(grammar.UNKNOWN_COMMAND)
        result = verb(dialogue, command.argument)
        if isinstance(result, bytes):
            self._drop()  # EHLO and HELO end a transaction
            return result
        if isinstance(result, Chunk):
            return self._bdat(result)
        if result is GO_AHEAD:
            return self._data()
        if result is BYE:
            self._end(BYE)
            return None
        if command.verb == 'RSET' and dialogue.transaction is None:
            self._drop()
        elif command.verb == 'BDAT':
            # Nobody knows how many octets follow, so nobody knows where commands begin.
            self._end(result)
            return None
        return self._count(result)

    def _count(self, reply: Reply) -> bytes:
        if reply.fault is Fault.PEER:
            self._errors += 1
        return reply.line()

    def _end(self, reply: Reply) -> None:
        """Say a last word and close."""
        self._drop()
        self.wire.write(reply.line())
        self.wire.close()

    def _drop(self) -> None:
        """Forget a message that did not come to its end."""
        reception, self._reception = self._reception, None
        if reception is not None:
            reception.spool.discard()

    # -- messages

    def _begin(self, decoder: Dots | Chunks) -> Incoming:
        dialogue, settings = self.dialogue, self.shard.settings
        transaction = dialogue.transaction
        assert transaction is not None
        own = dialogue.account
        rules = Rules(
            require_encryption=settings['policy.require_encryption'],
            max_size=self._size_limit(),
            securejoin=settings['policy.securejoin_requests'],
            reports=settings['policy.inbound_reports'],
        )
        inspection = Inspection(
            Direction.OUT if own else Direction.IN,
            rules,
            reverse_path=transaction.sender,
            recipients=sum(recipient != own for recipient in transaction.recipients),
            own=own,
        )
        spool = self.shard.spool()
        if own:
            return Incoming(decoder, inspection, None, spool, None)
        digest = fingerprint(list(transaction.recipients))
        return Incoming(decoder, inspection, self.shard.origin(), spool, digest)

    def _data(self) -> bytes | None:
        wire = self.wire
        decoder = Dots()
        reception = self._reception = self._begin(decoder)
        wire.write(GO_AHEAD.line())
        while True:
            reception.feed(decoder.take(wire.input))
            if decoder.done:
                return self._finish()
            if not self._more(reception):
                return None

    def _bdat(self, chunk: Chunk) -> bytes | None:
        wire = self.wire
        refusal = self.dialogue.chunk_refusal()
        if refusal is not None:
            return self._swallow(chunk, refusal)
        reception = self._reception
        if reception is None:
            reception = self._reception = self._begin(Chunks())
        decoder = reception.decoder
        assert isinstance(decoder, Chunks)
        decoder.expect(chunk.size)
        if refusal := self.dialogue.too_big(decoder.size):
            # The announced size is enough to know.
            self._drop()
            self.dialogue.transaction = None
            return self._swallow(chunk, refusal)
        while decoder.left:
            reception.feed(decoder.take(wire.input))
            if decoder.left and not self._more(reception):
                return None
        if chunk.last:
            decoder.finish()
            return self._finish()
        if reception.refusal is not None:
            # RFC 3030 section 2: a chunk that is refused ends the transaction.
            said = self._count(reception.refusal)
            self._drop()
            self.dialogue.transaction = None
            return said
        return b'250 2.0.0 %d octets received\r\n' % chunk.size

    def _swallow(self, chunk: Chunk, refusal: Reply) -> bytes | None:
        """Read a chunk that nobody wants: it is on its way already."""
        wire = self.wire
        limit = self._size_limit() or chunk.size
        if chunk.size > limit + SWALLOW:
            self._end(refusal)
            return None
        left = chunk.size
        while True:
            taken = min(left, len(wire.input))
            del wire.input[:taken]
            left -= taken
            if not left:
                return self._count(refusal)
            if not self._more(None):
                return None

    def _size_limit(self) -> int:
        return message_size(self.shard.settings, self.shard.store, self._account_id)

    def _more(self, reception: Incoming | None) -> bool:
        """Wait for more of a message; False when the session ends here."""
        wire = self.wire
        if wire.input:
            yield_to_others()  # only a part was taken, for the sake of the others
            return True
        limit = self._size_limit()
        if limit and reception is not None and reception.seen > 2 * limit + SWALLOW:
            self._end(reception.refusal or TROUBLE)
            return False
        try:
            if wire.wait(self.shard.settings['limits.smtp_idle'] or 86400):
                return True
        except Idle:
            self._end(TIMEOUT)
            return False
        # RFC 5321 3.8: the end of the stream is not the end of the data.
        self._drop()
        wire.close()
        return False

    def _finish(self) -> bytes:
        """The message is complete: judge it, make it durable, answer."""
        reception, self._reception = self._reception, None
        transaction, self.dialogue.transaction = self.dialogue.transaction, None
        assert reception is not None
        assert transaction is not None
        try:
            reply = self._judge(reception, transaction)
        except Gone:
            raise
        except StoreFull:
            reply = TROUBLE
        except Exception as error:
            # The sender keeps the message and comes again.
            _log.exception('message failed', error)
            reply = TROUBLE
        finally:
            reception.spool.discard()
        if reply.positive:
            self._errors = 0
        else:
            _log.info('message refused', code=reply.code, cause=reply.cause)
        return self._count(reply)

    def _judge(self, reception: Incoming, transaction: Transaction) -> Reply:
        if reception.refusal is not None:
            return reception.refusal
        verdict = reception.inspection.finish()
        if verdict.reply is not None:
            return verdict.reply
        if verdict.rest:
            reception.keep(verdict.rest)
        router = self.shard.router
        recipients = list(transaction.recipients)
        account = self.dialogue.account
        if not account and (refusal := router.policy.inbound_author(verdict.from_address)):
            return refusal
        if reception.origin is not None and (refusal := reception.origin.finish()):
            return refusal
        if account and verdict.kind == 'securejoin':
            refusal = router.policy.securejoin(account, recipients, time.monotonic())
            if refusal is not None:
                return refusal
        body = reception.spool.finish()
        if reception.fingerprint is None:
            return router.submit(account, recipients, body)
        origin = '' if reception.origin is None else verdict.from_address.rpartition('@')[2]
        return router.receive(recipients, body, reception.fingerprint.digest(), origin)
