"""Exit codes of `madmail run`, and the exception that carries one."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
CONFIGURATION = 3  # the configuration cannot be used
PORT = 4  # a listener cannot be bound
STATE = 5  # the state directory is unusable, in use, or of a newer version
BOOT = 6  # a child could not start


class Stop(Exception):
    """The relay cannot run; the text is for the operator."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
