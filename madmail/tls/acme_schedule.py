"""When a certificate is ordered, and when not.

Let's Encrypt allows five failures an hour for a name, and five certificates a week for
the same names.  Failures are followed by a pause that doubles up to six hours, or is as long
as the authority asks; whoever asks, no more than four tries are made in an hour.

What is remembered was written by the clock of its time.  A moment that is further ahead than
any pause is of a clock that was wrong, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from madmail.tls.acme import Held, State

HOUR, DAY = 3600, 86_400
SHORT_LIFE = 10 * DAY  # of certificates that are renewed at half of their life
FIRST_PAUSE, LONGEST_PAUSE = HOUR // 4, 6 * HOUR
HOURLY = 4  # tries an hour, by whomever
LONGEST_WAIT = DAY  # for which an authority may ask to be left alone
REFUSED_TIME = 7 * DAY  # for which a name that was refused is not asked for again
ASK_LEAST, ASK_MOST = HOUR, DAY  # between two questions when to renew
RATE_LIMITED = 'rateLimited'  # RFC 8555 6.7


def renewal(not_before: int, not_after: int, suggested: int = 0) -> int:
    """When to renew: with a third of its life left, a half of a short one.

    `suggested` by the authority (RFC 9773) goes first, but not into the last sixth.
    """
    life = not_after - not_before
    if suggested:
        return min(suggested, not_after - life // 6)
    return not_after - (life // 2 if life <= SHORT_LIFE else life // 3)


def wanted(first: str, others: Iterable[str], state: State, now: int) -> list[str]:
    """The names to order; a name besides the first that was refused lately is left out."""
    refused = left_out(state, now)
    return [first, *(name for name in others if name not in refused)]


def left_out(state: State, now: int) -> list[str]:
    """The names that are not asked for at present."""
    return sorted(name for name, when in state.refused.items() if 0 <= now - when < REFUSED_TIME)


def due(held: Held | None, names: Iterable[str], source: str, state: State, now: int) -> int:
    """When an order for `names` at the directory `source` is due, failures set aside."""
    if held is None or not held.names.issuperset(name.lower() for name in names):
        return now
    if state.source and state.source != source:
        return now  # it came from elsewhere, as from a trial of another authority
    suggested = state.renew_at if state.renew_for == held.digest else 0
    return renewal(held.not_before, held.not_after, suggested)


def next_try(when_due: int, state: State, now: int) -> int:
    """The same with failures and the limit of tries in mind."""
    return max(when_due, repeated(state, now), allowed(state, now))


def repeated(state: State, now: int) -> int:
    """When a failed try may be repeated; 0 = nothing stands against it."""
    return state.next if state.failures and state.next <= now + LONGEST_WAIT + FIRST_PAUSE else 0


def asks(state: State, now: int) -> bool:
    """Whether the authority is to be asked when it wants the certificate to be renewed."""
    return not now < state.ask_at <= now + ASK_MOST


def allowed(state: State, now: int) -> int:
    """When another try may be made, by hand as well."""
    recent = sorted(began for began in state.tries if now - HOUR < began <= now)
    return recent[-HOURLY] + HOUR if len(recent) >= HOURLY else now


def pause(failures: int, word: str, spread: float, asked: float = 0.0) -> int:
    """Seconds from the end of a failed try to the next one; `spread` is drawn from 0 to 1.

    `asked` are the seconds for which the authority asked to be left alone.
    """
    base = min(FIRST_PAUSE * 2 ** min(failures - 1, 16), LONGEST_PAUSE)
    if word == RATE_LIMITED and not asked:
        base = LONGEST_PAUSE
    return int(max(base * (1 + spread / 4), min(asked, LONGEST_WAIT) + spread * FIRST_PAUSE))
