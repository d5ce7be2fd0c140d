"""What a handler of the admin API returns, and what a refusal becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from madmail.admin.refused import Word
from madmail.admin.relay import Relay

STATUS: dict[Word, int] = {
    'invalid': 400,
    'forbidden': 403,
    'missing': 404,
    'exists': 409,
    'busy': 409,
    'failed': 500,
    'unavailable': 503,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The logical status and the body of the envelope; None leaves the body out."""

    status: int = 200
    body: Any = None


# The second argument is the body of the request, {} if it had none.
Handler = Callable[[Relay, dict[str, Any]], Answer]
