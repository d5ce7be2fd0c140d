"""What each SMTP verb does between the hand-over and the octets of a message.

A `Dialogue` is the state of one session: greeting, transaction, errors.  Its
methods are named as on the wire, take the argument and return what to say; the
octets themselves and all I/O are the session's.

In a submission, a wrong reverse-path and too much mail are found at MAIL but
answered at each RCPT: that is where clients and their tests look for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from madmail.delivery.policy import TOO_BIG, Policy
from madmail.smtp import grammar
from madmail.smtp.grammar import Chunk
from madmail.smtp.reply import Fault, Reply

OK = Reply(250, '2.0.0', 'Ok')
SENDER_OK = Reply(250, '2.1.0', 'Ok')
RECIPIENT_OK = Reply(250, '2.1.5', 'Ok')
GO_AHEAD = Reply(354, '', 'End data with <CR><LF>.<CR><LF>')
BYE = Reply(221, '2.0.0', 'Bye')
AUTHENTICATED = Reply(235, '2.7.0', 'Authentication successful')
VRFY_NO = Reply(252, '2.0.0', 'Cannot verify, send some mail and see')
HELPFUL = Reply(214, '2.0.0', 'See RFC 5321')


def _disorder(text: str, code: int = 503) -> Reply:
    return Reply(code, '5.5.1', text, 'order', Fault.PEER)


NESTED_MAIL = _disorder('Sender already given')
NEED_MAIL = _disorder('Need MAIL first')
NEED_RCPT = _disorder('No valid recipients', 554)
MIXED_DATA = _disorder('BDAT has begun, DATA cannot follow')
NO_AUTH = _disorder('Authentication is over or not offered here')
NO_TLS = _disorder('STARTTLS is over or not offered here')


@dataclass(slots=True)
class Transaction:
    """From MAIL to the end of data."""

    sender: str  # '' = null reverse-path
    utf8: bool
    refusal: Reply | None = None  # found at MAIL, answered at RCPT
    recipients: dict[str, None] = field(default_factory=dict)  # a set that keeps its order
    chunked: bool = False  # BDAT has begun


class Dialogue:
    """One session's state; `account` is the login, '' on port 25."""

    __slots__ = ('account', 'helo', 'hostname', 'policy', 'size_limit', 'tls', 'transaction')

    def __init__(
        self,
        policy: Policy,
        hostname: Callable[[], str],
        account: str,
        *,
        helo: bytes,
        tls: bool,
        size_limit: Callable[[], int],
    ) -> None:
        self.policy = policy
        self.hostname = hostname
        self.account = account
        self.helo = helo
        self.tls = tls
        self.size_limit = size_limit
        self.transaction: Transaction | None = None

    # -- greeting

    def EHLO(self, argument: bytes) -> Reply | bytes:
        said = self._greet(argument)
        if isinstance(said, Reply):
            return said
        # RFC 5321 4.1.1.1; a size of 0 says that there is no fixed limit (RFC 1870)
        return (
            b'250-%s\r\n250-PIPELINING\r\n250-SIZE %d\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n'
            b'250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n'
        ) % (self.hostname().encode(), self.size_limit())

    def HELO(self, argument: bytes) -> Reply | bytes:
        said = self._greet(argument)
        return said if isinstance(said, Reply) else b'250 %s\r\n' % self.hostname().encode()

    def _greet(self, argument: bytes) -> bytes | Reply:
        said = grammar.helo(argument, strict=False)
        if isinstance(said, bytes):
            self.helo = said
            self.transaction = None  # RFC 5321 4.1.4
        return said

    # -- transaction

    def MAIL(self, argument: bytes) -> Reply:
        if self.transaction is not None:
            return NESTED_MAIL
        policy = self.policy
        if not self.account and (refusal := policy.inbound_plaintext(self.tls)):
            return refusal
        said = grammar.mail_from(argument)
        if isinstance(said, Reply):
            return said
        if refusal := self.too_big(said.size):
            return refusal
        if not self.account:
            if refusal := policy.inbound_sender(said.path):
                return refusal
            sender = said.path.address if said.path else ''
            self.transaction = Transaction(sender, said.utf8)
            return SENDER_OK
        refusal = policy.sender(said.path, self.account)
        if refusal is None:
            refusal = policy.sending_rate(self.account, time.monotonic())
        self.transaction = Transaction(self.account, said.utf8, refusal)
        return SENDER_OK

    def RCPT(self, argument: bytes) -> Reply:
        transaction = self.transaction
        if transaction is None:
            return NEED_MAIL
        if transaction.chunked:
            return MIXED_DATA
        path = grammar.rcpt_to(argument, transaction.utf8)
        if isinstance(path, Reply):
            return path
        if transaction.refusal is not None:
            return transaction.refusal
        policy = self.policy
        recipient = policy.recipient(path)
        if self.account:
            refusal = policy.outbound_recipient(recipient)
        else:
            refusal = policy.inbound_recipient(recipient)
        if refusal is not None:
            return refusal
        if recipient not in transaction.recipients:
            if refusal := policy.one_more(len(transaction.recipients)):
                return refusal
            transaction.recipients[recipient] = None
        return RECIPIENT_OK

    def DATA(self, argument: bytes) -> Reply:
        if argument:
            return grammar.NO_ARGUMENT_ALLOWED
        if self.transaction is not None and self.transaction.chunked:
            return MIXED_DATA  # RFC 3030 section 2
        return self._may_begin() or GO_AHEAD

    def BDAT(self, argument: bytes) -> Reply | Chunk:
        """A Chunk: its octets follow in any case, wanted (see `chunk_refusal`) or not."""
        return grammar.bdat(argument)

    def chunk_refusal(self) -> Reply | None:
        """Why the chunk that was announced is not wanted; else the transaction is chunked."""
        refusal = self._may_begin()
        if refusal is None and self.transaction is not None:
            self.transaction.chunked = True
        return refusal

    def too_big(self, octets: int) -> Reply | None:
        """Why a message of so many octets is not taken."""
        limit = self.size_limit()
        return TOO_BIG if limit and octets > limit else None

    def _may_begin(self) -> Reply | None:
        if self.transaction is None:
            return NEED_MAIL
        return None if self.transaction.recipients else NEED_RCPT

    # -- the rest

    def RSET(self, argument: bytes) -> Reply:
        if argument:
            return grammar.NO_ARGUMENT_ALLOWED
        self.transaction = None
        return OK

    def NOOP(self, argument: bytes) -> Reply:
        return OK

    def VRFY(self, argument: bytes) -> Reply:
        """The same for everybody, so that nobody can look for accounts."""
        return VRFY_NO if argument else grammar.BAD_ARGUMENT

    def HELP(self, argument: bytes) -> Reply:
        return HELPFUL

    def QUIT(self, argument: bytes) -> Reply:
        return grammar.NO_ARGUMENT_ALLOWED if argument else BYE

    def STARTTLS(self, argument: bytes) -> Reply:
        return NO_TLS

    def AUTH(self, argument: bytes) -> Reply:
        return NO_AUTH

    # -- a life in another process

    def freeze(self) -> dict[str, Any]:
        """All of it as plain values, for `thaw`."""
        state: dict[str, Any] = {'helo': self.helo, 'tls': self.tls}
        transaction = self.transaction
        if transaction is not None:
            state['transaction'] = {
                'sender': transaction.sender,
                'utf8': transaction.utf8,
                'recipients': list(transaction.recipients),
            }
            if transaction.refusal is not None:
                code, enhanced, text, cause, fault = transaction.refusal
                state['transaction']['refusal'] = [code, enhanced, text, cause, fault.value]
        return state

    def thaw(self, state: dict[str, Any]) -> None:
        """Continue where a `freeze` left off."""
        saved = state.get('transaction')
        if saved is None:
            return
        refusal = None
        if saved.get('refusal') is not None:
            code, enhanced, text, cause, fault = saved['refusal']
            refusal = Reply(code, enhanced, text, cause, Fault(fault))
        self.transaction = Transaction(
            saved['sender'], saved['utf8'], refusal, dict.fromkeys(saved['recipients'])
        )


VERBS: dict[str, Callable[[Dialogue, bytes], Reply | bytes | Chunk]] = {
    'EHLO': Dialogue.EHLO,
    'HELO': Dialogue.HELO,
    'MAIL': Dialogue.MAIL,
    'RCPT': Dialogue.RCPT,
    'DATA': Dialogue.DATA,
    'BDAT': Dialogue.BDAT,
    'RSET': Dialogue.RSET,
    'NOOP': Dialogue.NOOP,
    'VRFY': Dialogue.VRFY,
    'HELP': Dialogue.HELP,
    'QUIT': Dialogue.QUIT,
    'STARTTLS': Dialogue.STARTTLS,
    'AUTH': Dialogue.AUTH,
}
