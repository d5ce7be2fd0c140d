"""What the kernel offers about processes and the standard library does not: prctl and limits."""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, signal_number: int) -> bool:
    """Get `signal_number` when process `parent` ends; False when it has ended already.

    The kernel forgets this when the user id changes, so privileges go first.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), 'prctl')
    return os.getppid() == parent


def name_process(name: str) -> None:
    """The name that ps and top show; 15 octets."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def raise_limits() -> int:
    """As many descriptors as we may have, and no core files (they would hold keys and mail)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return hard
