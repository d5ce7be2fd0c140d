"""What gunicorn logs, through the relay's log and by its rules.

gunicorn's texts carry addresses, paths and header fields as arguments.  Only
the text before they are filled in is kept, and of an exception its class and
place.  There is no access log.
"""

from __future__ import annotations

import sys
from typing import Any

from gunicorn.glogging import Logger

from madmail import log

_log = log.get('gunicorn')


class GunicornLog(Logger):
    """gunicorn's `logger_class`."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS['info']
        self.error_log.disabled = self.access_log.disabled = True
        self._access_log_enabled = False

    def critical(self, msg: object, *args: object, **kwargs: object) -> None:
        _log.error(_event(msg))

    def error(self, msg: object, *args: object, **kwargs: object) -> None:
        _log.error(_event(msg))

    def warning(self, msg: object, *args: object, **kwargs: object) -> None:
        _log.warning(_event(msg))

    def info(self, msg: object, *args: object, **kwargs: object) -> None:
        _log.debug(_event(msg))

    def debug(self, msg: object, *args: object, **kwargs: object) -> None:
        pass

    def exception(self, msg: object, *args: object, **kwargs: object) -> None:
        _log.exception(_event(msg), sys.exc_info()[1])

    def log(self, lvl: object, msg: object, *args: object, **kwargs: object) -> None:
        _log.debug(_event(msg))

    def access(self, *args: object, **kwargs: object) -> None:
        pass

    def reopen_files(self) -> None:
        self.reopen()

    reopen = staticmethod(lambda: None)  # what SIGUSR1 does, given by `server`

    def close_on_exec(self) -> None:
        pass


def _event(msg: object) -> str:
    """The first line of a text as it stands in the program."""
    return str(msg).partition('\n')[0][:100]
