"""The bus of a relay on one host: events go to the master, which tells all other children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from madmail import log

Callback = Callable[[dict[str, Any]], None]

_log = log.get('bus')


class Bus:
    """One process's end.

    Callbacks run on the loop and must not block; one that raises is counted
    and does not keep the others from being called.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._subscribers: dict[str, list[Callback]] = {}

    def subscribe(self, topic: str, callback: Callback) -> None:
        """Call `callback(data)` for each event of `topic`, our own included."""
        self._subscribers.setdefault(topic, []).append(callback)

    def unsubscribe(self, topic: str, callback: Callback) -> None:
        """Raises ValueError if it was not subscribed."""
        self._subscribers.get(topic, []).remove(callback)

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        """Tell our own subscribers at once and the other processes soon; never blocks."""
        self.arrived(topic, data)
        self._send({'kind': 'event', 'topic': topic, 'data': data})

    def arrived(self, topic: str, data: dict[str, Any]) -> None:
        """An event of another process is here."""
        for callback in tuple(self._subscribers.get(topic, ())):
            try:
                callback(data)
            except Exception as error:
                _log.exception('subscriber failed', error, topic=topic)
