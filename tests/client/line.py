"""A line between a core and its relay that can be cut while something is on it."""

from __future__ import annotations

import contextlib
import socket
import threading


class Line:
    """Passes connections on to a port of this host; `port` is where it takes them."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._left: dict[bool, int] = {}
        self.cut = threading.Event()  # what was ordered is done
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, octets: int, *, up: bool) -> None:
        """Cut the connection that carries the last of them, once; `up` is towards the relay."""
        with self._lock:
            self._left = {up: octets}
            self.cut.clear()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(('127.0.0.1', self._to), 10)
            except OSError:
                near.close()
                continue
            for source, sink, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._copy, args=(source, sink, up), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._broken(len(data), up):
                    break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _broken(self, octets: int, up: bool) -> bool:
        with self._lock:
            if up not in self._left:
                return False
            self._left[up] -= octets
            if self._left[up] > 0:
                return False
            self._left = {}
            self.cut.set()
            return True
