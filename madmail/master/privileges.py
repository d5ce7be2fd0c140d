"""Giving up root.

The master keeps it when it was started with it, because a reload may have to
bind another privileged port; the children, which talk to the world, do not.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from madmail.master.exits import CONFIGURATION, Stop

DEFAULT_USER = 'madmail'
VARIABLE = 'MADMAIL_USER'  # names another default, such as root: who starts us stays who they are


class Identity(NamedTuple):
    """Whom the children run as."""

    name: str
    uid: int
    gid: int

    def assume(self) -> None:
        """Become this user for good."""
        os.initgroups(self.name, self.gid)
        os.setgid(self.gid)
        os.setuid(self.uid)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Be this user for a while, in what concerns files."""
        uid, gid = os.geteuid(), os.getegid()
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(uid)
            os.setegid(gid)

    def give(self, path: Path) -> None:
        """Make the user the owner of `path`."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)


def identity(user: str) -> Identity | None:
    """The user to become for the setting `user`; None = stay who we are.

    Raises Stop when the setting names somebody we cannot become.
    """
    if os.geteuid() != 0:
        if user and user != pwd.getpwuid(os.geteuid()).pw_name:
            raise Stop(CONFIGURATION, f'user: only root can start the relay as {user!r}')
        return None
    user = user or os.environ.get(VARIABLE, '')
    try:
        entry = pwd.getpwnam(user or DEFAULT_USER)
    except KeyError:
        if user:
            raise Stop(CONFIGURATION, f'user: there is no user {user!r}') from None
        return None
    return Identity(entry.pw_name, entry.pw_uid, entry.pw_gid) if entry.pw_uid else None


def owner(path: Path) -> Identity | None:
    """The owner of `path` if we are root and it is somebody else's."""
    status = path.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return None
    try:
        name = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        name = 'root'
    return Identity(name, status.st_uid, status.st_gid)
