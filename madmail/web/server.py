"""The server: gunicorn with the relay's settings, a process of its own.

`python -m madmail.web.server` is started by `process` and by nobody else.  It
ends with its parent, and its workers end with it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from madmail import log
from madmail.master.process import die_with_parent, name_process
from madmail.settings import Settings, overlay
from madmail.store.control import Control
from madmail.tls.self_signed import Files
from madmail.web import gunicorn_settings
from madmail.web.brief import Brief, load
from madmail.web.gunicorn_log import GunicornLog

OWN_SETTINGS = 'gunicorn.py'  # beside the configuration file
_log = log.get('web')
RESERVED = ('bind', 'workers', 'worker_class', 'logger_class', 'preload_app')


class Server(BaseApplication):
    """gunicorn's application object; `services` is there in the workers."""

    def __init__(self, brief: Brief) -> None:
        self.brief = brief
        self.settings = Settings(brief.given, brief.origin)
        self.settings.lay(brief.stored)
        self.services: Any = None
        self.spare: Files | None = None
        if brief.pem:
            descriptor = os.memfd_create('madmail-pem', os.MFD_CLOEXEC)
            os.write(descriptor, brief.pem)
            file = Path(f'/proc/self/fd/{descriptor}')
            self.spare = Files(file, file)
        super().__init__()

    def load_config(self) -> None:
        brief = self.brief
        self._apply(vars(gunicorn_settings))
        own = (brief.origin.parent / OWN_SETTINGS) if brief.origin else None
        if own is not None and own.is_file():
            given = runpy.run_path(str(own))
            self._apply({name: given[name] for name in given if name not in RESERVED})
        self.cfg.set('bind', [f'fd://{descriptor}' for descriptor in brief.listeners])
        self.cfg.set('workers', brief.workers)
        self.cfg.set('post_fork', _forked)
        if Path('/dev/shm').is_dir():
            self.cfg.set('worker_tmp_dir', '/dev/shm')

    def _apply(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        """In a worker: open what it works with."""
        from madmail.account.address import mail_domain
        from madmail.admin import access_token
        from madmail.delivery.origin import Origins
        from madmail.web.application import build
        from madmail.web.counters import Counters
        from madmail.web.services import Services

        brief = self.brief
        access_token.load(brief.state_dir)
        self.services = Services(
            self.settings,
            brief.state_dir,
            shards=brief.shards,
            slot=brief.slot,
            counters=Counters(brief.counters, self.row),
            peer_key=brief.peer_key,
            origin=Origins(self.settings, mail_domain(self.settings['domain'])),
        )
        return build(self.services)

    def follow_log(self) -> None:
        """Log as the settings say now.  On failure the log stays as it was."""
        try:
            control = Control(self.brief.state_dir)
            try:
                overlay(self.settings, control.settings())
            finally:
                control.close()
            log.configure(self.settings['log'], self.settings['log_level'])
        except (OSError, sqlite3.Error) as error:
            _log.error('log not opened', cause=type(error).__name__)

    row = 0  # of this worker in the counters


def _forked(arbiter: Any, worker: Any) -> None:
    """In a new worker."""
    worker.app.row = worker.age
    if not die_with_parent(arbiter.pid, signal.SIGKILL):
        os._exit(0)


def main() -> int:
    brief = load()
    name_process('madmail-http')
    if not die_with_parent(brief.parent, signal.SIGKILL):
        return 1
    server = Server(brief)
    server.follow_log()
    GunicornLog.reopen = staticmethod(server.follow_log)
    server.run()
    return 0


if __name__ == '__main__':
    sys.exit(main())
