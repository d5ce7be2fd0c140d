"""A WebSocket: requests of a page, and news of its INBOX.

The news come from an IMAP session that watches INBOX (NOTIFY, RFC 5465), so they
are told when everybody else is.  Each request has a session of its own.  A page at
rest costs two greenlets here and a parked session in its shard.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import gevent
from gevent.lock import Semaphore

from madmail import log
from madmail.web.peers import client
from madmail.web.services import Services
from madmail.web.stream import send_all, stop_reading
from madmail.web.webimap import cors, document, operations, shapes, websocket
from madmail.web.webimap.operations import Person, Refused
from madmail.web.webimap.rest import OFF, body_limit, error, utf8
from madmail.web.webimap.session import Imap, No, Trouble, fetched

PATH = '/webimap/ws'
PING_TIME = 30.0  # seconds between our pings
SILENCE = 60.0  # seconds without a word after which a peer is gone
CLOSING = 2.0  # seconds for its last words
READ = 64 * 1024
TURN = 64  # messages of a page after which others have their turn

_log = log.get('webimap')


def wanted(path: str, headers: list[tuple[str, str]]) -> bool:
    """Whether a request asks for a WebSocket here."""
    return path == PATH and any(
        name == 'UPGRADE' and value.lower() == 'websocket' for name, value in headers
    )


def serve(services: Services, request: Any, stream: Any, host: str) -> None:
    """From the request to the end of the connection.  `request` is gunicorn's."""
    headers = {name: value for name, value in request.headers}
    settings = services.settings
    origin = headers.get('ORIGIN')
    environ = {
        'REMOTE_ADDR': host,
        'HTTP_X_FORWARDED_FOR': headers.get('X-FORWARDED-FOR', ''),
    }
    query = {k: v[0] for k, v in parse_qs(request.query or '').items()}
    accept = websocket.accept(headers.get('SEC-WEBSOCKET-KEY', ''))
    if not settings['webimap.enabled']:
        _refuse(stream, 404, OFF)
    elif headers.get('SEC-WEBSOCKET-VERSION') != '13':
        _refuse(
            stream, 426, 'only version 13', (b'Upgrade: websocket', b'Sec-WebSocket-Version: 13')
        )
    elif request.method != 'GET' or not accept:
        _refuse(stream, 400, 'not a WebSocket of RFC 6455')
    elif origin and not _same(origin, headers) and not cors.allowed(settings, origin):
        _refuse(stream, 403, 'origin not allowed')
    else:
        try:
            since = operations.since(query.get('since_uid'))
            if (query.get('mailbox') or 'INBOX').upper() != 'INBOX':
                raise Refused(400, 'only INBOX can be watched')
            person = Person(
                services,
                query.get('email') or utf8(headers.get('X-EMAIL', '')),
                query.get('password') or utf8(headers.get('X-PASSWORD', '')),
                client(environ, settings),
            )
            with person.imap() as session:
                operations.select(session, 'INBOX')
                stream.sendall(
                    b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n'
                    b'Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n' % accept.encode()
                )
                _Conversation(services, person, session, stream, since).run()
        except Refused as refused:
            _refuse(stream, refused.status, refused.text)


def _same(origin: str, headers: dict[str, str]) -> bool:
    """Whether a page is of this very host."""
    return origin.partition('://')[2] == headers.get('HOST')


def _refuse(stream: Any, status: int, text: str, more: tuple[bytes, ...] = ()) -> None:
    body = error(text).encode()
    lines = (
        b'HTTP/1.1 %d Refused' % status,
        b'Content-Type: application/json',
        b'Connection: close',
        *more,
        b'Content-Length: %d' % len(body),
    )
    stream.sendall(b'\r\n'.join((*lines, b'', body)))


class _Conversation:
    def __init__(
        self, services: Services, person: Person, session: Imap, stream: Any, since: int
    ) -> None:
        self._services = services
        self._person = person
        self._session = session
        self._stream = stream
        self._since = since
        self._sending = Semaphore()
        self._parted = False  # nothing more is sent
        self._limit = body_limit(services)
        self._taken = 0  # messages and control frames

    def run(self) -> None:
        def leave(_: object) -> None:
            gevent.spawn(self._part, websocket.GOING_AWAY)

        watcher = gevent.spawn(self._watch)
        self._services.ending.rawlink(leave)
        try:
            self._listen()
        except (OSError, gevent.Timeout):
            pass  # it went away
        except Exception as error:
            _log.exception('page failed', error)
            self._close(websocket.TROUBLE)
        finally:
            self._services.ending.unlink(leave)
            watcher.kill()

    # -- from the page

    def _listen(self) -> None:
        decoder = websocket.Decoder(self._limit)
        pinged = False
        with self._services.room.place(self._person.address) as place:
            while True:
                data = None
                with gevent.Timeout(SILENCE - PING_TIME if pinged else PING_TIME, False):
                    data = self._stream.recv(READ)
                if data is None:
                    if pinged:
                        return
                    pinged = True
                    self._send(websocket.frame(websocket.PING, b''))
                    continue
                if not data:
                    return
                pinged = False
                try:
                    if not place.holds(decoder.held + len(data)):
                        raise websocket.Broken(websocket.LATER)
                    for event in decoder.feed(data):
                        if not self._take(event):
                            return
                except websocket.Broken as broken:
                    self._close(broken.code)
                    self._linger()
                    return

    def _take(self, event: websocket.Event) -> bool:
        """Whether the conversation goes on.  Raises Broken."""
        self._taken += 1
        if not self._taken % TURN:
            gevent.sleep(0)
        if event.kind == websocket.PING:
            self._send(websocket.frame(websocket.PONG, event.data))
        elif event.kind == websocket.CLOSE:
            self._close(websocket.closing(event.data))
            return False
        elif event.kind == websocket.BINARY:
            raise websocket.Broken(websocket.NOT_TEXT)
        elif event.kind == websocket.TEXT:
            self._answer(event.data)
        return True

    def _linger(self) -> None:
        """A close with unread input would be a reset, and our last frame lost."""
        with gevent.Timeout(CLOSING, False):
            while self._stream.recv(READ):
                pass

    def _on(self) -> bool:
        """Whether the operator still wants this; a socket may outlive the setting."""
        self._services.refresh()
        return bool(self._services.settings['webimap.enabled'])

    def _answer(self, data: bytes) -> None:
        if not self._on():
            raise websocket.Broken(websocket.POLICY)
        try:
            request = document.read(data)
            if not isinstance(request, dict):
                raise document.Malformed
        except document.Malformed:
            if not websocket.is_text(data):
                raise websocket.Broken(websocket.NO_TEXT) from None  # RFC 6455 8.1
            self._say({'action': 'error', 'data': 'invalid JSON'})
            return
        if request.get('type') == 'ping':
            self._say({'action': 'pong', 'data': {}})
            return
        said: dict[str, Any] = {}
        if isinstance(request.get('req_id'), str):
            said['req_id'] = request['req_id']
        try:
            self._say({**said, 'action': 'result', 'data': self._do(request)})
        except Refused as refused:
            self._say({**said, 'action': 'error', 'data': refused.text})
        except No as no:
            self._say({**said, 'action': 'error', 'data': no.text})

    def _do(self, request: dict[str, Any]) -> Any:
        action, data = request.get('action'), request.get('data')
        data = {} if data is None else data
        if not isinstance(action, str):
            raise Refused(400, 'missing action')
        if not isinstance(data, dict):
            raise Refused(400, f'invalid {action[:40]} payload: an object is expected')
        if action == 'send':
            if not self._services.settings['websmtp.enabled']:
                raise Refused(404, 'send is not enabled')
            return operations.send(self._person, data.get('to'), data.pop('body', None))
        work = _ACTIONS.get(action)
        if work is None:
            raise Refused(400, 'unknown action')
        with self._person.imap() as session:
            return work(session, data)

    # -- to the page

    def _watch(self) -> None:
        """Tell of every message above `since`, once, as long as the session lives."""
        session = self._session
        try:
            while found := operations.messages(session, self._since):
                for one in found:
                    self._push(one)
            session.command(f'NOTIFY SET (SELECTED (MessageNew {shapes.SUMMARY} MessageExpunge))')
            for one in operations.messages(session, self._since):  # came in between
                self._push(one)
            session.idle()
            while True:
                items = fetched(session.response()[1:])
                if items is not None and 'ENVELOPE' in items and items['UID'] > self._since:
                    self._push(shapes.summary(items))
        except (Trouble, No):
            self._part(websocket.GOING_AWAY)  # the page connects again
        except OSError:
            stop_reading(self._stream)  # it does not take what we send
        except Exception as error:
            _log.exception('push failed', error)
            self._part(websocket.TROUBLE)

    def _push(self, summary: dict[str, Any]) -> None:
        if not self._on():
            raise Trouble('switched off')
        self._since = max(self._since, summary['uid'])
        self._say({'action': 'new_message', 'data': summary})

    def _say(self, data: dict[str, Any]) -> None:
        self._send(websocket.frame(websocket.TEXT, document.write(data)))

    def _send(self, frame: bytes) -> None:
        with self._sending:
            if self._parted:
                return  # RFC 6455 5.5.1: nothing behind a Close
            try:
                send_all(self._stream, frame)
            except BaseException:
                self._parted = True  # there may be half a frame
                raise

    def _close(self, code: int) -> None:
        with gevent.Timeout(CLOSING, False):
            try:
                self._send(websocket.close(code))
            except OSError:
                pass
        self._parted = True

    def _part(self, code: int) -> None:
        """Say why, let the page answer that, and end the conversation."""
        self._close(code)
        gevent.sleep(CLOSING)
        stop_reading(self._stream)


def _selected(session: Imap, data: dict[str, Any], *, writes: bool = False) -> int:
    """The mailbox of a request is selected; its UID."""
    uid = operations.uid(data.get('uid'))
    operations.select(session, data.get('mailbox') or 'INBOX', writes=writes)
    return uid


def _fetch(session: Imap, data: dict[str, Any]) -> Any:
    return operations.message(session, _selected(session, data))


def _list_messages(session: Imap, data: dict[str, Any]) -> Any:
    if 'since_uid' not in data:
        raise Refused(400, 'invalid list_messages payload: since_uid is required')
    operations.select(session, data.get('mailbox') or 'INBOX')
    return operations.messages(session, operations.since(data['since_uid']))


def _flags(session: Imap, data: dict[str, Any]) -> Any:
    uid = _selected(session, data, writes=True)
    return operations.change_flags(session, uid, data.get('flags'), data.get('op'))


def _delete(session: Imap, data: dict[str, Any]) -> Any:
    return operations.delete(session, _selected(session, data, writes=True))


def _search(session: Imap, data: dict[str, Any]) -> Any:
    operations.select(session, data.get('mailbox') or 'INBOX')
    return operations.search(session, data.get('query'))


def _rename(session: Imap, data: dict[str, Any]) -> Any:
    old = data.get('old_name') or data.get('oldName')
    return operations.rename(session, old, data.get('new_name') or data.get('newName'))


def _target(data: dict[str, Any]) -> Any:
    return data.get('dest_mailbox') or data.get('destination')


_ACTIONS: dict[str, Any] = {
    'fetch': _fetch,
    'list_mailboxes': lambda session, data: operations.mailboxes(session),
    'list_messages': _list_messages,
    'flags': _flags,
    'delete': _delete,
    'search': _search,
    'create_mailbox': lambda session, data: operations.create(session, data.get('name')),
    'delete_mailbox': lambda session, data: operations.remove(session, data.get('name')),
    'rename_mailbox': _rename,
    'copy': lambda session, data: operations.transfer(
        session, _selected(session, data), _target(data), move=False
    ),
    'move': lambda session, data: operations.transfer(
        session, _selected(session, data, writes=True), _target(data), move=True
    ),
}
