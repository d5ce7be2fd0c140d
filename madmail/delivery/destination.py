"""Where an outbox entry goes: another relay, or a shard of this one.

Mail for a shard that does not answer is parked in the outbox of the shard that
accepted it, under the pseudo-domain `shard:<index>:<delivery id in hex>`.  No
address can have such a domain, because of the colons.  The id is that of the
first attempt: if the shard had stored the message and only its answer was
lost, handing it over once more changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

_PREFIX = 'shard:'


class Parked(NamedTuple):
    shard: int
    delivery_id: bytes  # 16 octets

    @property
    def domain(self) -> str:
        """The pseudo-domain."""
        return f'{_PREFIX}{self.shard}:{self.delivery_id.hex()}'


def parked(domain: str) -> Parked | None:
    """What a pseudo-domain says; None for a real domain."""
    if not domain.startswith(_PREFIX):
        return None
    shard, _, delivery_id = domain[len(_PREFIX) :].partition(':')
    return Parked(int(shard), bytes.fromhex(delivery_id))
