"""POST /mxdeliv: mail from other relays over HTTP.

    X-Mail-From   the reverse-path, absent or empty for bounces
    X-Mail-To     recipients; a line each, or several in one, joined by commas
    body          the message as it is, lines ending in CRLF

The answer's text is that of SMTP:

    200  250 OK                  taken, whoever it was for
    400  501, 523, 554, 500 …    sender, recipients or message are wrong: final,
         452 4.5.3               but for too many recipients: send it in parts
    403  554 5.7.1               the federation policy
    405                          not POST
    408                          the peer did not keep up
    413  552 5.3.4               too big
    429  450 4.7.1               too many messages from this address
    503  451                     cannot be stored now: come again
    507  452 4.2.2               all mailboxes it is for are full

All of this is decided before anybody looks whose address a recipient is.
Recipients of other domains (but those for which we are an exchanger), reserved
and unknown ones are dropped like those who get it, so an answer tells nobody
which accounts exist.  The one exception is 507, taken knowingly: otherwise mail
would vanish that its sender thinks delivered, and as mailboxes are trimmed, it
needs a message that is larger than what is left of a whole quota.

The same message for the same recipients is stored once within a day, so a peer
that lost our answer may ask again, here or at port 25.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import falcon
import gevent

from madmail import log
from madmail.delivery.arrival import Arrival, Refusal, Stage, size_limit
from madmail.delivery.router import FULL, TROUBLE
from madmail.smtp import grammar
from madmail.smtp.grammar import Path
from madmail.smtp.reply import Fault, Reply
from madmail.store.interface import StoreFull
from madmail.web.peers import client
from madmail.web.services import Services
from madmail.web.upload import Cut, TooSlow, Upload

OK = Reply(250, '', 'OK')
NO_RECIPIENT = Reply(501, '5.1.3', 'No recipient given', 'recipients', Fault.PEER)
TOO_BIG = Reply(552, '5.3.4', 'Message exceeds maximum size', 'size', Fault.POLICY)
TOO_MANY = Reply(450, '4.7.1', 'Too many messages from this address', 'rate', Fault.POLICY)
SLOW = Reply(451, '4.4.2', 'Timeout while reading data', 'slow', Fault.PEER)
CUT = Reply(451, '4.4.2', 'Message ends before its end', 'cut', Fault.PEER)

_log = log.get('web')

BLANKS = ' \t'
_QUOTE = re.compile(r'\\.|"')  # a quotation mark, or what is none


class Answer(NamedTuple):
    status: str  # of HTTP
    reply: Reply
    counter: str


class Refused(Exception):
    """The answer is known; nothing more of the request is needed."""

    def __init__(self, status: str, reply: Reply, counter: str) -> None:
        super().__init__(reply.cause)
        self.answer = Answer(status, reply, counter)


class MxDeliv:
    """The resource /mxdeliv."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_options(self, request: falcon.Request, response: falcon.Response) -> None:
        raise falcon.HTTPMethodNotAllowed(['POST'])

    def on_post(self, request: falcon.Request, response: falcon.Response) -> None:
        services = self._services
        services.refresh()
        upload = Upload(request.env)
        try:
            answer = self._take(request, upload)
        except Refused as refused:
            answer = refused.answer
        except TooSlow:
            answer = Answer(falcon.HTTP_408, SLOW, 'too_slow')
        except Cut:
            answer = Answer(falcon.HTTP_400, CUT, 'cut_off')
        except StoreFull:
            answer = Answer(falcon.HTTP_503, TROUBLE, 'trouble')
        except Exception as error:
            # The sender keeps the message and comes again.
            _log.exception('message failed', error)
            answer = Answer(falcon.HTTP_503, TROUBLE, 'trouble')
        services.counters.count(answer.counter)
        if answer.reply is not OK:
            _log.info('message refused', code=answer.reply.code, cause=answer.reply.cause)
        text = answer.reply.line().rstrip()
        response.status = answer.status
        response.content_type = falcon.MEDIA_TEXT
        if answer.reply is TOO_MANY:
            response.set_header('Retry-After', '10')
        if upload.abandon():
            response.content_length = len(text)
            response.stream = _answer(text, upload)
        else:
            response.data = text

    # -- in the order in which things are checked

    def _take(self, request: falcon.Request, upload: Upload) -> Answer:
        services, policy = self._services, self._services.policy
        limit = size_limit(services.settings)
        if limit and upload.declared > limit:
            raise Refused(falcon.HTTP_413, TOO_BIG, 'too_big')
        who = client(request.env, services.settings)
        if services.rate('limits.federation_per_minute_per_ip', who):
            raise Refused(falcon.HTTP_429, TOO_MANY, 'rate_limited')
        sender = _sender(request.env.get('HTTP_X_MAIL_FROM', ''))
        if refusal := policy.inbound_sender(sender):
            raise Refused(falcon.HTTP_403, refusal, 'rejected_policy')
        recipients = self._recipients(request.env.get('HTTP_X_MAIL_TO', ''))
        return self._read(upload, sender.address if sender is not None else '', recipients, limit)

    def _recipients(self, field: str) -> list[str]:
        """In the one spelling, each once."""
        policy = self._services.policy
        found: dict[str, None] = {}
        for path in _paths(field):
            recipient = policy.recipient(path)
            if recipient not in found:
                if refusal := policy.one_more(len(found)):
                    raise Refused(falcon.HTTP_400, refusal, 'malformed')
                found[recipient] = None
        if not found:
            raise Refused(falcon.HTTP_400, NO_RECIPIENT, 'malformed')
        return list(found)

    def _read(self, upload: Upload, reverse_path: str, recipients: list[str], limit: int) -> Answer:
        arrival = Arrival(self._services, reverse_path, recipients)
        try:
            for piece in upload.pieces():
                if limit and upload.received > limit:
                    raise Refused(falcon.HTTP_413, TOO_BIG, 'too_big')
                if upload.received > len(piece):
                    gevent.sleep(0)  # a large message holds nobody up
                arrival.feed(piece)
            refusal = arrival.finish()
        finally:
            arrival.discard()
        if refusal is not None:
            raise _refused(refusal)
        return Answer(falcon.HTTP_200, OK, 'delivered')


def _refused(refusal: Refusal) -> Refused:
    """A refusal as an answer."""
    stage, reply = refusal
    if stage is Stage.STORE:
        if reply.code == FULL.code and reply.enhanced == FULL.enhanced:
            return Refused(falcon.HTTP_507, reply, 'over_quota')
        return Refused(falcon.HTTP_503, reply, 'trouble')
    if stage is Stage.ORIGIN:
        status = falcon.HTTP_400 if reply.code >= 500 else falcon.HTTP_503
        return Refused(status, reply, 'rejected_origin')
    if stage is Stage.POLICY:
        return Refused(falcon.HTTP_403, reply, 'rejected_policy')
    if stage is Stage.CONTENT:
        return Refused(falcon.HTTP_400, reply, 'rejected_content')
    return Refused(falcon.HTTP_400, reply, 'malformed')


def _answer(text: bytes, upload: Upload) -> Iterator[bytes]:
    """An answer to a request whose body nobody reads."""
    yield text
    yield from upload.linger()


def _sender(field: str) -> Path | None:
    """The reverse-path; None for the null one."""
    text = _text(field, grammar.BAD_SENDER)
    if not text or text == '<>':
        return None
    path = grammar.mailbox(_bare(text))
    if path is None:
        raise Refused(falcon.HTTP_400, grammar.BAD_SENDER, 'malformed')
    return path


def _paths(field: str) -> Iterator[Path]:
    """The recipients of all X-Mail-To lines, which WSGI joins by commas."""
    for item in _split(_text(field, grammar.BAD_RECIPIENT)):
        text = item.strip(BLANKS)
        if not text:
            continue
        path = grammar.mailbox(_bare(text))
        if path is None:
            raise Refused(falcon.HTTP_400, grammar.BAD_RECIPIENT, 'malformed')
        yield path


def _text(field: str, refusal: Reply) -> str:
    """PEP 3333 gives octets as Latin-1; addresses are UTF-8 (RFC 6532)."""
    try:
        return field.encode('latin-1').decode().strip(BLANKS)
    except UnicodeError:
        raise Refused(falcon.HTTP_400, refusal, 'malformed') from None


def _bare(text: str) -> str:
    return text[1:-1] if text[0] == '<' and text[-1] == '>' else text


def _split(field: str) -> list[str]:
    """At commas, but not inside a quoted local part (RFC 5322 3.2.4)."""
    parts = field.split(',')
    if '"' not in field:
        return parts
    items: list[str] = []
    together: list[str] = []
    quoted = False
    for part in parts:
        together.append(part)
        if sum(mark == '"' for mark in _QUOTE.findall(part)) % 2:
            quoted = not quoted
        if not quoted:
            items.append(','.join(together))
            together = []
    if together:
        items.append(','.join(together))
    return items
