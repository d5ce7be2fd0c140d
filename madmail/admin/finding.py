"""What a look at the relay finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from madmail.admin.relay import Relay

OK, WARN, BAD = 'ok', 'warn', 'bad'


class Finding(NamedTuple):
    name: str  # of the check
    level: str  # OK, WARN or BAD
    seen: str  # one sentence
    advice: str = ''  # what to do, '' where nothing is to be done


Check = Callable[[Relay], Iterator[Finding]]
