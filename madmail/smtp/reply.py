"""SMTP replies as values: what is said, why, and whose fault it is.

A refusal is an ordinary result and is returned; only breakage is raised.  The
`cause` and `fault` are for counters and logs and never reach the peer.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Fault(Enum):
    NONE = 'none'
    PEER = 'peer'  # the client or sending server did something wrong
    POLICY = 'policy'  # our rules refuse it
    OURS = 'ours'  # disk, memory, a shard that does not answer


class Reply(NamedTuple):
    """RFC 5321 4.2 with the enhanced code of RFC 3463 ('' = none)."""

    code: int
    enhanced: str
    text: str
    cause: str = ''
    fault: Fault = Fault.NONE

    @property
    def positive(self) -> bool:
        return self.code < 400

    def line(self) -> bytes:
        """The one line as sent, with CRLF."""
        if self.enhanced:
            return b'%d %s %s\r\n' % (self.code, self.enhanced.encode(), self.text.encode())
        return b'%d %s\r\n' % (self.code, self.text.encode())
