"""Mail from elsewhere that comes as a whole: by /mxdeliv, or fetched from an exchanger.

One message goes through the inspection and the check of its origin while it is
read, and is stored at its end: for accounts of this relay, and for domains for
which we are an exchanger.  What goes on from here goes on as it came, because
what the inspection keeps has lost its signature.

The same message for the same recipients is stored once within a day, whichever
way it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

import gevent

from madmail.delivery.federation import Federation
from madmail.delivery.policy import Policy
from madmail.delivery.router import TROUBLE, fingerprint
from madmail.message.inspection import Direction, Inspection, Rules
from madmail.settings import Settings
from madmail.shard.calls import ShardUnavailable
from madmail.smtp.data import Chunks
from madmail.smtp.reply import Reply
from madmail.smtp.session import MALFORMED
from madmail.store.interface import Body
from madmail.store.spool import Spool


class Stage(Enum):
    """Where a message was refused."""

    MALFORMED = 'malformed'
    CONTENT = 'content'
    POLICY = 'policy'
    ORIGIN = 'origin'
    STORE = 'store'


class Refusal(NamedTuple):
    stage: Stage
    reply: Reply


class Check(Protocol):
    """Whether a message comes from where it says; fed with it as it came."""

    def feed(self, octets: bytes) -> None: ...

    def finish(self) -> Reply | None:
        """None = it does.  May block its greenlet for DNS."""


class Desk(Protocol):
    """What an arrival needs of its process."""

    @property
    def settings(self) -> Settings: ...

    @property
    def policy(self) -> Policy: ...

    @property
    def federation(self) -> Federation: ...

    @property
    def origin(self) -> Callable[[], Check] | None: ...

    def spool(self) -> Spool: ...

    def receive(
        self, body: Body, recipients: list[str], message_id: bytes, origin: str = ''
    ) -> Reply:
        """To accounts of this relay; returns when it is durable.  Raises ShardUnavailable.

        `origin` is the author's domain, if it was proved.
        """

    def hold(self, sender: str, body: Body, recipients: list[str], message_id: bytes) -> Reply:
        """To go on to other relays; as above."""


def size_limit(settings: Settings) -> int:
    """Octets of a message from elsewhere, 0 = any."""
    limits = (settings['limits.max_message_size'], settings['limits.max_federation_size'])
    return min((limit for limit in limits if limit), default=0)


class Arrival:
    """One message on its way in."""

    def __init__(self, desk: Desk, reverse_path: str, recipients: Sequence[str]) -> None:
        """`recipients` as `Policy.recipient` spells them; those that are not for us are dropped."""
        settings = desk.settings
        self._desk = desk
        self._reverse_path = reverse_path
        rules = Rules(
            require_encryption=settings['policy.require_encryption'],
            max_size=size_limit(settings),
            securejoin=settings['policy.securejoin_requests'],
            reports=settings['policy.inbound_reports'],
        )
        self._inspection = Inspection(
            Direction.IN, rules, reverse_path=reverse_path, recipients=len(recipients)
        )
        self._origin = desk.origin() if desk.origin is not None else None
        self._lines = Chunks()
        self._local = [one for one in recipients if desk.policy.local(one)]
        self._carried = [
            one for one in recipients if desk.federation.carries(one.rpartition('@')[2])
        ]
        self._local_id = fingerprint(self._local)
        self._carried_id = fingerprint(self._carried)
        self._kept = desk.spool()
        self._whole = desk.spool() if self._carried else None

    def feed(self, piece: bytes) -> None:
        """The next octets, as they came."""
        lines, inspection = self._lines, self._inspection
        lines.expect(len(piece))
        buffer = bytearray(piece)
        while buffer:
            octets = lines.take(buffer)
            if lines.malformed or inspection.refused is not None:
                continue  # it is read to its end, and then answered
            if self._origin is not None:
                self._origin.feed(octets)
            if self._whole is not None:
                self._whole.append(octets)
            self._keep(inspection.feed(octets))
            if buffer:
                gevent.sleep(0)  # a large message holds nobody up

    def finish(self) -> Refusal | None:
        """At its end: judge and store it.  None = taken, and durable.  Raises StoreFull."""
        self._lines.finish()
        if self._lines.malformed:
            return Refusal(Stage.MALFORMED, MALFORMED)
        verdict = self._inspection.finish()
        if verdict.reply is not None:
            return Refusal(Stage.CONTENT, verdict.reply)
        self._keep(verdict.rest)
        if refusal := self._desk.policy.inbound_author(verdict.from_address):
            return Refusal(Stage.POLICY, refusal)
        if self._origin is not None and (refusal := self._origin.finish()):
            return Refusal(Stage.ORIGIN, refusal)
        # Who is not shown as the author gets no report either, he may have nothing to do with it.
        domain = verdict.from_address.rpartition('@')[2]
        reply = self._store(
            '' if verdict.null_sender else self._reverse_path,
            '' if self._origin is None else domain,
        )
        return None if reply is None or reply.positive else Refusal(Stage.STORE, reply)

    def discard(self) -> None:
        """Give up what is still kept; in any case, at the end."""
        self._kept.discard()
        if self._whole is not None:
            self._whole.discard()

    # -- inside

    def _keep(self, octets: bytes) -> None:
        self._local_id.update(octets)
        self._carried_id.update(octets)
        self._kept.append(octets)

    def _store(self, sender: str, origin: str) -> Reply | None:
        """The first reply that is not good.  All may be repeated."""
        desk = self._desk
        reply = None
        try:
            if self._whole is not None:
                body = self._whole.finish()
                reply = desk.hold(sender, body, self._carried, self._carried_id.digest())
                if not reply.positive:
                    return reply
            if self._local:
                reply = desk.receive(
                    self._kept.finish(), self._local, self._local_id.digest(), origin
                )
        except ShardUnavailable:
            return TROUBLE
        return reply
