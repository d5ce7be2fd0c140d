"""Long computations in slices: generators that yield wherever others may run.

What runs on a loop must not hold it; a sort of 100,000 keys does for a tenth of
a second, also in a thread.  So the work is written as a generator, and its
caller looks at the clock at every `yield`; the result is the return value.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Generator, Sequence
from typing import TypeVar

WHOLE = 2000  # items sorted at once
STEP = 1000  # items moved between two yields
_SAMPLE = 1024

Result = TypeVar('Result')
Sliced = Generator[None, None, Result]


def run(work: Sliced[Result]) -> Result:
    """All of it at once, where nobody waits."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def stable_sort(
    order: list[int], keys: Sequence[int] | Sequence[str], reverse: bool = False
) -> Sliced[list[int]]:
    """The indexes `order` by `keys[index]`; equal ones stay as they stood, reversed or not.

    The items are dealt to buckets by splitters from a sample, then each bucket
    is sorted, so that no step takes long.
    """
    key = keys.__getitem__
    if len(order) <= WHOLE:
        return sorted(order, key=key, reverse=reverse)
    splitters = sorted({key(index) for index in random.sample(order, _SAMPLE)})
    yield
    buckets: list[list[int]] = [[] for _ in range(len(splitters) + 1)]
    for start in range(0, len(order), STEP):
        for index in order[start : start + STEP]:
            buckets[bisect_right(splitters, key(index))].append(index)
        yield
    result: list[int] = []
    for bucket in reversed(buckets) if reverse else buckets:
        bucket.sort(key=key, reverse=reverse)
        result += bucket
        yield
    return result
