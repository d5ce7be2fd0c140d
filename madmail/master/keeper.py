"""The keeper: `scripts/run` starts the master again should it be killed.

It puts its process id into MADMAIL_KEEPER; a master so started ends
gracefully when its keeper is gone, because nobody could stop it any more.
"""

from __future__ import annotations

import os
import signal

from madmail.master.exits import FAILED, Stop
from madmail.master.process import die_with_parent

VARIABLE = 'MADMAIL_KEEPER'


def die_with_keeper() -> None:
    """Ask for SIGTERM when the keeper ends, if there is one.  Raises Stop if it has ended."""
    keeper = os.environ.get(VARIABLE, '')
    if keeper.isdigit() and not die_with_parent(int(keeper), signal.SIGTERM):
        raise Stop(FAILED, 'the process that keeps the relay running is gone')
