"""Which shard owns an account.

The number of shards is fixed when the state directory is made, so the answer
never changes for an account and needs no table.
"""

from __future__ import annotations

from hashlib import blake2b


def shard_of(address: str, shards: int) -> int:
    """Index of the shard that owns canonical `address`; some shard for any other text."""
    if shards == 1:
        return 0
    digest = blake2b(address.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'big') % shards
