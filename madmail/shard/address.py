"""Unix sockets of the state directory, `run/NAME`.

A socket's path may have 107 octets only (unix(7)), a state directory may be
anywhere.  So the path is always taken relative to an open descriptor of the
directory, through /proc/self/fd.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

RUN_DIRECTORY = 'run'
BACKLOG = 4096


def shard_name(index: int) -> str:
    """The name of a shard's socket."""
    return f'shard-{index}.sock'


def bind(state_dir: Path | str, name: str) -> socket.socket:
    """A listening, non-blocking socket at `run/NAME`, mode 0600; replaces a stale one."""
    directory = Path(state_dir) / RUN_DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            os.unlink(name, dir_fd=descriptor)
        except FileNotFoundError:
            pass
        listener.bind(f'/proc/self/fd/{descriptor}/{name}')
        os.chmod(name, 0o600, dir_fd=descriptor)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(descriptor)
    return listener


def connect(state_dir: Path | str, name: str) -> socket.socket:
    """A connected, non-blocking socket to `run/NAME`.

    Raises BlockingIOError when the backlog is full and OSError when nobody
    listens; connecting to a Unix socket never takes time otherwise.
    """
    descriptor = os.open(Path(state_dir) / RUN_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.setblocking(False)
        stream.connect(f'/proc/self/fd/{descriptor}/{name}')
    except BaseException:
        stream.close()
        raise
    finally:
        os.close(descriptor)
    return stream
