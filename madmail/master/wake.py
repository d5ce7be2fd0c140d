"""The pipe in which the numbers of signals arrive, so that they are handled in the loop."""

from __future__ import annotations

import os
import signal

SIGNALS = ('TERM', 'INT', 'HUP', 'QUIT', 'USR1', 'CHLD')


class Wake:
    """Nothing before `catch`."""

    def __init__(self) -> None:
        self._reader = self._writer = -1

    def catch(self) -> None:
        """From now on, signals arrive here."""
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for name in SIGNALS:
            # the interpreter writes the number into the pipe; nothing else happens here
            signal.signal(getattr(signal, f'SIG{name}'), lambda number, frame: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def fileno(self) -> int:
        """What to wait for."""
        return self._reader

    def signals(self) -> bytes:
        """Numbers of the signals that have come."""
        try:
            return os.read(self._reader, 4096)
        except BlockingIOError:
            return b''

    def close(self) -> None:
        """In a child too: they are its master's signals."""
        if self._reader < 0:
            return
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)
        self._reader = self._writer = -1
