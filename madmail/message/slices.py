"""Long computations in slices: generators that yield wherever others may run.

What runs on a loop must not hold it; a sort of 100,000 keys does for a tenth of
a second, also in a thread.  So the work is written as a generator, and its
caller looks at the clock at every `yield`; the result is the return value.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
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
    order: Sequence[int], keys: Sequence[int] | Sequence[str], reverse: bool = False
) -> Sliced[array[int]]:
    """The indexes `order` by `keys[index]`; equal ones stay as they stood, reversed or not.

    The items are dealt to buckets by splitters from a sample, then each bucket
    is sorted, so that no step takes long; what equals a splitter has a bucket of
    its own and is sorted already.

    PERF: arrays, because the garbage collector looks at every item of a list: at
    100,000 numbers for 8 ms at a time.
    """
    key = keys.__getitem__
    count = len(order)
    if count <= WHOLE:
        return array('i', sorted(order, key=key, reverse=reverse))
    sample = random.sample(range(count), _SAMPLE)
    splitters = sorted({key(order[position]) for position in sample})
    yield
    buckets = [array('i') for _ in range(2 * len(splitters) + 1)]
    last = len(splitters)
    for start in range(0, count, STEP):
        for index in order[start : start + STEP]:
            value = key(index)
            place = bisect_left(splitters, value)
            if place < last and splitters[place] == value:
                buckets[2 * place + 1].append(index)
            else:
                buckets[2 * place].append(index)
        yield
    result = array('i')
    moved = 0
    for number in range(len(buckets) - 1, -1, -1) if reverse else range(len(buckets)):
        bucket = buckets[number]
        if number % 2 or len(bucket) < 2:
            result.extend(bucket)
        else:
            result.extend(sorted(bucket, key=key, reverse=reverse))
            moved += len(bucket)
            if moved >= STEP:
                moved = 0
                yield
    yield
    return result
