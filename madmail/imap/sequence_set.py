"""Sequence sets (RFC 3501 9): the message numbers or UIDs that a command names."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple


class SequenceSet(NamedTuple):
    """RFC 3501 9 sequence-set: message numbers or UIDs, never expanded.

    `ranges` are (low, high) pairs in the order given with low <= high among
    plain numbers; 0 stands for `*` and is always second.  `saved` is `$`
    (RFC 5182), then `ranges` is empty.
    """

    ranges: tuple[tuple[int, int], ...]
    saved: bool = False

    def resolve(self, largest: int) -> list[tuple[int, int]]:
        """Disjoint ascending (low, high) pairs, `*` being `largest`.

        `largest` is the highest number or UID in use, 0 in an empty mailbox.
        Numbers above it stay in: a UID that does not exist is no error.
        """
        pairs = []
        for low, high in self.ranges:
            if high == 0:
                if largest == 0:
                    continue  # nothing is the last message of an empty mailbox
                # RFC 3501 9: 7:* holds the last message even if it is below 7
                low, high = (low, largest) if 0 < low <= largest else (largest, low or largest)
            pairs.append((low, high))
        if len(pairs) < 2:
            return pairs
        pairs.sort()
        merged = [pairs[0]]
        for low, high in pairs[1:]:
            last_low, last_high = merged[-1]
            if low <= last_high + 1:
                if high > last_high:
                    merged[-1] = (last_low, high)
            else:
                merged.append((low, high))
        return merged

    def positions(self, uids: Sequence[int]) -> list[range]:
        """Index ranges into the ascending `uids` that this set of UIDs selects."""
        count = len(uids)
        if count == 0:
            return []
        found = []
        for low, high in self.resolve(uids[count - 1]):
            first = bisect_left(uids, low)
            last = bisect_right(uids, high, first)
            if first < last:
                found.append(range(first, last))
        return found

    @property
    def highest(self) -> int:
        """The highest number named outright; above EXISTS it is BAD (not for UIDs)."""
        return max((max(pair) for pair in self.ranges), default=0)

    @property
    def has_star(self) -> bool:
        """`*` occurs, which names no message in an empty mailbox."""
        return any(high == 0 for _, high in self.ranges)
