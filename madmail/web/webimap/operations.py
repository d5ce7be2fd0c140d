"""What can be asked, over REST and WebSocket alike; each in a session of its own.

All raise Refused with the status of HTTP and the text of the fact sheet's forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent.event import Event

from madmail.smtp import grammar
from madmail.web.services import Services
from madmail.web.webimap import shapes
from madmail.web.webimap.session import Crowded, Denied, Imap, No, Smtp, Trouble, fetched

PAGE = 1000  # summaries of one answer
LONGEST_WAIT = 120.0  # seconds of a long poll
FLAGS = {'add': '+FLAGS', 'remove': '-FLAGS', 'set': 'FLAGS'}
NAME_LIMIT = 200  # characters of a mailbox name
FAILURES = 'limits.admin_failures_per_minute_per_ip'

_FLAG = re.compile(r'\\?[A-Za-z$][A-Za-z0-9$_-]{0,60}')
_LINE_END = re.compile(rb'\r\n|\r|\n')
PIECE = 64 * 1024  # characters of a message converted at a time
UID_MAX = 2**32 - 1


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Person:
    """Who asks: credentials and where from."""

    def __init__(self, services: Services, address: str, password: str, guest: str) -> None:
        if not address:
            raise Refused(401, 'missing X-Email header')
        if not password:
            raise Refused(401, 'missing X-Password header')
        if '@' not in address:
            raise Refused(400, 'invalid email address')
        self.address = address
        self._services = services
        self._who = (services, address, password, guest)

    def prove(self) -> None:
        """Raises Refused for a wrong password."""
        with self.imap():
            pass

    @contextmanager
    def imap(self) -> Iterator[Imap]:
        with self._translated(), Imap(*self._who) as session:
            yield session

    @contextmanager
    def smtp(self) -> Iterator[Smtp]:
        with self._translated(), Smtp(*self._who) as session:
            yield session

    @contextmanager
    def _translated(self) -> Iterator[None]:
        guest = self._who[3]
        if self._services.shut_out(guest):
            raise Refused(429, 'too many attempts, try again later')
        try:
            yield
        except Denied:
            self._services.failed(FAILURES, guest)
            raise Refused(401, 'invalid credentials') from None
        except Crowded:
            raise Refused(429, 'too many sessions of this account') from None
        except Trouble:
            raise Refused(503, 'temporary trouble, try again') from None
        except No as no:
            raise Refused(_status(no), no.text) from None


def mailboxes(session: Imap) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    counts: dict[str, dict[str, int]] = {}
    listed = []
    # RFC 5819: one command for all.
    for one in session.command('LIST "" "*" RETURN (STATUS (MESSAGES UNSEEN) SPECIAL-USE)'):
        if one and one[0] == 'LIST':
            listed.append(one)
        elif one and one[0] == 'STATUS':
            items = one[2]
            counts[shapes.text(one[1])] = dict(zip(items[::2], items[1::2], strict=True))
    for one in listed:
        found.append(shapes.mailbox(one, counts.get(shapes.text(one[3]), {})))
    return found


def select(session: Imap, name: str, *, writes: bool = False) -> None:
    _name(name)
    try:
        session.command('SELECT' if writes else 'EXAMINE', name.encode())
    except No:
        raise Refused(400, 'unknown mailbox') from None


def messages(session: Imap, since: int) -> list[dict[str, Any]]:
    """Of the selected mailbox, with UIDs above `since`, at most PAGE."""
    if since == UID_MAX:
        return []
    found: list[dict[str, Any]] = []
    answers = session.command('UID SEARCH', f'UID {since + 1}:*')
    uids = sorted(uid for one in answers if one and one[0] == 'SEARCH' for uid in one[1:])
    uids = [uid for uid in uids if uid > since][:PAGE]
    if uids:
        chosen = ','.join(map(str, uids))
        for one in session.command(f'UID FETCH {chosen}', shapes.SUMMARY):
            items = fetched(one)
            if items is not None and 'UID' in items and 'ENVELOPE' in items:
                found.append(shapes.summary(items))
    return sorted(found, key=lambda one: int(one['uid']))


def wait(session: Imap, seconds: float, ending: Event) -> bool:
    """Until something comes to the selected mailbox, or the time is over.

    False if that is because of `ending`; the session cannot be used any more then.
    """
    session.command('NOTIFY SET (SELECTED (MessageNew MessageExpunge))')

    def interrupt(_: Event) -> None:
        session.interrupt()

    ending.rawlink(interrupt)
    try:
        with gevent.Timeout(min(seconds, LONGEST_WAIT), False):
            while True:
                one = session.response()
                if len(one) > 2 and one[2] == 'EXISTS':
                    break
    except Trouble:
        if not ending.is_set():
            raise
    finally:
        ending.unlink(interrupt)
    return not ending.is_set()


def message(session: Imap, uid: int) -> dict[str, Any]:
    for one in session.command(f'UID FETCH {uid}', shapes.DETAIL):
        items = fetched(one)
        if items is not None and items.get('UID') == uid and 'BODY[]' in items:
            return shapes.detail(items)
    raise Refused(404, 'message not found')


def change_flags(session: Imap, uid: int, flags: Any, op: Any) -> dict[str, Any]:
    how = FLAGS.get(op) if isinstance(op, str) else None
    if how is None:
        raise Refused(400, 'invalid op: must be add, remove, or set')
    if not isinstance(flags, list) or not all(
        isinstance(flag, str) and _FLAG.fullmatch(flag) for flag in flags
    ):
        raise Refused(400, 'flags must be a list of flags')
    _exists(session, uid)
    try:
        session.command(f'UID STORE {uid} {how}.SILENT ({" ".join(flags)})')
    except No as no:
        raise Refused(400, no.text) from None
    return {'status': 'ok'}


def delete(session: Imap, uid: int) -> dict[str, Any]:
    _exists(session, uid)
    session.command(f'UID STORE {uid} +FLAGS.SILENT (\\Deleted)')
    session.command(f'UID EXPUNGE {uid}')
    return {'status': 'deleted'}


def transfer(session: Imap, uid: int, target: Any, *, move: bool) -> dict[str, Any]:
    _exists(session, uid)
    try:
        session.command(f'UID {"MOVE" if move else "COPY"} {uid}', _name(target).encode())
    except No as no:
        text = 'unknown mailbox' if no.code == 'TRYCREATE' else no.text
        raise Refused(400, text) from None
    return {'status': 'moved' if move else 'copied'}


def search(session: Imap, query: Any) -> list[dict[str, Any]]:
    """Subject, sender, message id and text, as SEARCH has them; newest PAGE."""
    if not isinstance(query, str) or not query.strip():
        raise Refused(400, 'empty query')
    if len(query) > 1000:
        raise Refused(400, 'query too long')
    text = query.strip().encode()
    # No CHARSET: the session speaks UTF-8 (RFC 6855 3).
    answers = session.command(
        'UID SEARCH OR OR OR SUBJECT', text, 'FROM', text, 'TEXT', text, 'HEADER Message-ID', text
    )
    uids = sorted(uid for one in answers if one and one[0] == 'SEARCH' for uid in one[1:])[-PAGE:]
    found = []
    if uids:
        for one in session.command(f'UID FETCH {",".join(map(str, uids))}', shapes.SUMMARY):
            items = fetched(one)
            if items is not None and 'ENVELOPE' in items:
                found.append(shapes.summary(items))
    return found


def create(session: Imap, name: Any) -> dict[str, Any]:
    _folder(session, 'CREATE', name, 'cannot create INBOX')
    return {'status': 'created'}


def remove(session: Imap, name: Any) -> dict[str, Any]:
    _folder(session, 'DELETE', name, 'cannot delete INBOX')
    return {'status': 'deleted'}


def rename(session: Imap, old: Any, new: Any) -> dict[str, Any]:
    _folder(session, 'RENAME', old, 'cannot rename INBOX', new)
    return {'status': 'renamed'}


def send(person: Person, recipients: Any, body: Any) -> dict[str, Any]:
    """By the same rules as any submission: all or nobody."""
    if not isinstance(recipients, list) or not recipients:
        raise Refused(400, 'missing recipients')
    checked = []
    for one in recipients:
        path = grammar.mailbox(one) if isinstance(one, str) else None
        if path is None:
            raise Refused(400, 'invalid recipient')
        checked.append(path.address)
    if not isinstance(body, str) or not body:
        raise Refused(400, 'missing body')
    octets = _lines(body)
    with person.smtp() as session:
        try:
            session.send(checked, octets)
        except No as no:
            raise Refused(_status(no), no.text) from None
    return {'status': 'sent'}


def _lines(body: str) -> bytes:
    """What a browser has are lines, not octets.  Others have their turn in between."""
    octets = bytearray()
    carried = ''
    try:
        for at in range(0, len(body), PIECE):
            part = carried + body[at : at + PIECE]
            # A pair of CR and LF must not be cut.
            carried = '\r' if part.endswith('\r') and at + PIECE < len(body) else ''
            octets += _LINE_END.sub(b'\r\n', part[: len(part) - len(carried)].encode())
            if len(body) > PIECE:
                gevent.sleep(0)
    except UnicodeEncodeError:
        raise Refused(400, 'malformed message') from None
    if not octets.endswith(b'\r\n'):
        octets += b'\r\n'
    return bytes(octets)


def _status(no: No) -> int:
    """The status of HTTP for a refused submission."""
    if no.code.startswith('4'):
        return 429 if 'Too much' in no.text else 503
    if no.code == '552':
        return 413
    if no.code in ('500', '553') and no.text.startswith('5.7.1'):
        return 403  # somebody else's address
    return 400


def _exists(session: Imap, uid: int) -> None:
    answers = session.command(f'UID SEARCH UID {uid}')
    if not any(uid in one[1:] for one in answers if one and one[0] == 'SEARCH'):
        raise Refused(404, 'message not found')


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip():
        raise Refused(400, 'missing mailbox name')
    if len(name) > NAME_LIMIT or any(ord(sign) < 32 or sign == '\x7f' for sign in name):
        raise Refused(400, 'unknown mailbox')
    return name


def _folder(session: Imap, verb: str, name: Any, inbox: str, *more: Any) -> None:
    names = [_name(one) for one in (name, *more)]
    if any(one.upper() == 'INBOX' for one in names):
        raise Refused(400, inbox)
    try:
        session.command(verb, *(one.encode() for one in names))
    except No as no:
        texts = {'ALREADYEXISTS': 'mailbox already exists', 'NONEXISTENT': 'unknown mailbox'}
        raise Refused(400, texts.get(no.code, no.text)) from None


def since(value: Any) -> int:
    """A UID above which messages are asked for, 0 = all."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 11:
        value = int(value)
    if value is None or value == '':
        return 0
    if type(value) is not int or not 0 <= value <= UID_MAX:
        raise Refused(400, 'invalid uid')
    return value


def uid(value: Any) -> int:
    """The UID of a message."""
    found = None if value is None else since(value)
    if found is None:
        raise Refused(400, 'invalid uid')
    if not found:
        raise Refused(404, 'message not found')  # RFC 3501 2.3.1.1: none has 0
    return found
