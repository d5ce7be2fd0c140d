"""Waiting for news, and what ends it."""

from __future__ import annotations

from typing import Any, cast

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue

from madmail.web.webimap import operations
from madmail.web.webimap.session import Imap, Trouble


class Session:
    """One that says what it is given."""

    def __init__(self) -> None:
        self.says: Queue[Any] = Queue()

    def command(self, *parts: str | bytes) -> list[Any]:
        return []

    def response(self) -> Any:
        one = self.says.get()
        if one is None:
            raise Trouble('the shard went away')
        return one

    def interrupt(self) -> None:
        self.says.put_nowait(None)


def wait(session: Session, ending: Event, seconds: float = 60.0) -> bool:
    return operations.wait(cast(Imap, session), seconds, ending)


def test_a_message_ends_it() -> None:
    session = Session()
    session.says.put(['*', 3, 'EXPUNGE'])
    session.says.put(['*', 3, 'EXISTS'])
    assert wait(session, Event())


def test_the_time_ends_it() -> None:
    assert wait(Session(), Event(), 0.01)


def test_the_end_of_the_server_ends_it() -> None:
    session, ending = Session(), Event()
    waiting = gevent.spawn(wait, session, ending)
    gevent.sleep(0)
    ending.set()
    assert waiting.get(timeout=30) is False
    assert wait(session, ending) is False, 'it had ended already'


def test_a_shard_that_goes_away_is_trouble() -> None:
    session = Session()
    session.interrupt()
    with pytest.raises(Trouble):
        wait(session, Event())
