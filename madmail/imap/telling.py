"""News to a client that runs no command: in IDLE, or as its NOTIFY asked.

What is at hand is written from inside the store's event, within the same turn of
the loop as the commit; what has to be loaded first, or is much, goes in a greenlet
of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import gevent

from madmail import log
from madmail.imap import news
from madmail.imap.commands.registry import Tell
from madmail.shard.turns import yield_to_others
from madmail.shard.wire import Gone

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

_log = log.get('imap')


def stirred(session: ImapSession) -> None:
    """Something has happened in the mailbox; called from within the store's events."""
    if session.running or (session.idle_tag is None and session.notices is None):
        return
    try:
        tell_now(session)
    except Exception as error:
        # The store's other listeners must not suffer.
        _log.exception('news failed', error)
        session.goodbye('Internal error, please reconnect')


def news_now(session: ImapSession) -> Tell:
    """What may be told outside of commands: in IDLE, or as NOTIFY asked."""
    if session.notices is not None:
        return session.notices.kinds if session.idle_tag is not None else session.notices.at_once
    return Tell.EVERYTHING if session.idle_tag is not None else Tell.NOTHING


def tell_now(session: ImapSession) -> None:
    """Tell a client that runs no command; on the loop, so nothing here may switch."""
    if session.working or session.wire.closing:
        return
    what = news_now(session)
    view = session.view
    if session.notices is not None and session.notices.waiting:
        session.notices.tell()
    if view is not None and what:
        if not news.at_hand(session, view, what):
            session.working = True
            gevent.spawn_raw(tell_at_leisure, session)
            return
        news.write(session, view, what)
    session.spoke = time.monotonic()
    session.wire.flush()


def tell_at_leisure(session: ImapSession) -> None:
    """Much news, or such that needs UIDs not loaded; in its own greenlet."""
    try:
        while (view := session.view) is not None and not session.doomed:
            news.load(session, view, news_now(session))
            # Meanwhile the client may have sent a command; then that tells it all.
            what = news_now(session)
            if not what or session.running or session.wire.closing:
                break
            if view is not session.view:
                continue
            # Until it is sent, for only one greenlet at a time may wait for the wire.
            session.speaking = True
            if news.shows(session, view, what):
                news.tell(session, what)  # what has happened by its end may not be loaded
            else:
                news.write(session, view, what)
            session.spoke = time.monotonic()
            session.wire.drain()
            session.speaking = False
            if news.at_hand(session, view, what):
                news.write(session, view, what)
                session.wire.flush()
                break
            yield_to_others()
    except Gone:
        pass
    except Exception as error:
        _log.exception('news failed', error)
        session.goodbye('Internal error, please reconnect')
    finally:
        session.working = session.speaking = False
        notices = session.notices
        if notices is not None and notices.waiting and not session.running:
            notices.tell()
            session.wire.flush()
        if session.doomed and not session.running:
            session.goodbye(session.doomed)
