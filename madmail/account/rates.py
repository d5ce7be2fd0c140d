"""Rates by the generic cell rate algorithm (GCRA, ITU-T I.371).

One number a key: the theoretical arrival time.  A key that is quiet for the
time of its whole burst is forgotten, so memory is bounded by the number of
senders that are active at once.
"""

from __future__ import annotations

KEYS_LIMIT = 100_000


class Gcra:
    """`burst` at once, then `per_minute` evenly; 0 per minute means no limit."""

    __slots__ = ('_arrival', '_interval', '_tolerance', 'burst', 'per_minute')

    def __init__(self, per_minute: float, burst: int) -> None:
        self._arrival: dict[object, float] = {}
        self.set(per_minute, burst)

    def set(self, per_minute: float, burst: int) -> None:
        """Change the rate; what was used up so far stays used."""
        self.per_minute = per_minute
        self.burst = burst
        self._interval = 60.0 / per_minute if per_minute > 0 else 0.0
        self._tolerance = self._interval * max(burst - 1, 0)

    def allow(self, key: object, now: float) -> float:
        """Take one unit for `key` at monotonic time `now`.

        Returns 0.0 when allowed, else the seconds until it would be; a refusal
        takes nothing.
        """
        if not self._interval:
            return 0.0
        arrival = max(self._arrival.get(key, now), now)
        wait = arrival - now - self._tolerance
        if wait > 1e-9:
            return wait
        if len(self._arrival) >= KEYS_LIMIT:
            self._forget(now)
        self._arrival[key] = arrival + self._interval
        return 0.0

    def _forget(self, now: float) -> None:
        self._arrival = {key: at for key, at in self._arrival.items() if at > now}
        while len(self._arrival) >= KEYS_LIMIT:  # all of them active: the oldest go
            del self._arrival[next(iter(self._arrival))]
