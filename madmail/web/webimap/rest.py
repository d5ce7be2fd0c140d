"""The REST routes, /webimap/… and /websmtp/send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import falcon

from madmail.web.peers import client
from madmail.web.services import Services
from madmail.web.upload import Cut, TooSlow, Upload
from madmail.web.webimap import cors, document, operations
from madmail.web.webimap.operations import Person, Refused
from madmail.web.webimap.room import FREE

OFF = 'not found'
TREES = ('/webimap', '/websmtp')


def below(path: str) -> bool:
    """Whether a path is one of these, where every error is JSON."""
    return path in TREES or path.startswith(tuple(f'{tree}/' for tree in TREES))


def error(text: str) -> str:
    return document.write({'error': text}).decode()


class Rest:
    """One method a route; bodies and errors are JSON."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def add_routes(self, app: falcon.App) -> None:
        for path, name in (
            ('/webimap/mailboxes', 'mailboxes'),
            ('/webimap/messages', 'messages'),
            ('/webimap/message/{uid}', 'message'),
            ('/webimap/messages/{mailbox}/{uid}', 'named'),
            ('/webimap/message/flags', 'flags'),
            ('/webimap/send', 'send'),
            ('/websmtp/send', 'send'),
        ):
            app.add_route(path, self, suffix=name)
        for tree in TREES:
            app.add_sink(self.missing, prefix=f'{tree}(?:/|$)')  # type: ignore[arg-type]

    def missing(self, request: Any, response: Any, **_: Any) -> None:
        def work() -> Any:
            raise Refused(404, OFF)

        self._answer(request, response, work)

    # -- reading

    def on_get_mailboxes(self, request: falcon.Request, response: falcon.Response) -> None:
        def work() -> Any:
            with self._person(request).imap() as session:
                return operations.mailboxes(session)

        self._answer(request, response, work)

    def on_get_messages(self, request: falcon.Request, response: falcon.Response) -> None:
        def work() -> Any:
            since = operations.since(request.get_param('since_uid'))
            seconds = _seconds(request.get_param('wait'))
            with self._person(request).imap() as session:
                operations.select(session, _mailbox(request))
                found = operations.messages(session, since)
                ending = self._services.ending
                if not found and seconds and operations.wait(session, seconds, ending):
                    found = operations.messages(session, since)
                return found

        self._answer(request, response, work)

    def on_get_message(self, request: falcon.Request, response: falcon.Response, uid: str) -> None:
        def work() -> Any:
            wanted = operations.uid(uid)
            with self._person(request).imap() as session:
                operations.select(session, _mailbox(request))
                return operations.message(session, wanted)

        self._answer(request, response, work)

    # -- changing

    def on_delete_message(
        self, request: falcon.Request, response: falcon.Response, uid: str
    ) -> None:
        self._answer(request, response, lambda: self._delete(request, _mailbox(request), uid))

    def on_delete_named(
        self, request: falcon.Request, response: falcon.Response, mailbox: str, uid: str
    ) -> None:
        self._answer(request, response, lambda: self._delete(request, mailbox, uid))

    def on_post_flags(self, request: falcon.Request, response: falcon.Response) -> None:
        def work() -> Any:
            person = self._person(request)
            with self._body(request, person, FREE) as body:
                uid = operations.uid(body.get('uid'))
            with person.imap() as session:
                operations.select(session, body.get('mailbox') or 'INBOX', writes=True)
                return operations.change_flags(session, uid, body.get('flags'), body.get('op'))

        self._answer(request, response, work)

    def on_post_send(self, request: falcon.Request, response: falcon.Response) -> None:
        def work() -> Any:
            person = self._person(request)
            with self._body(request, person, body_limit(self._services)) as body:
                return operations.send(person, body.get('to'), body.pop('body', None))

        self._answer(request, response, work, switch='websmtp.enabled')

    # -- preflights (Fetch 3.3.2)

    def _preflight(self, request: falcon.Request, response: falcon.Response, **_: object) -> None:
        found = cors.headers(self._services.settings, request.get_header('Origin'))
        if 'Access-Control-Allow-Origin' not in found:
            raise falcon.HTTPForbidden
        response.status = falcon.HTTP_204
        response.set_headers(found)

    on_options_mailboxes = on_options_messages = on_options_message = _preflight
    on_options_named = on_options_flags = on_options_send = _preflight

    # -- inside

    def _answer(
        self,
        request: falcon.Request,
        response: falcon.Response,
        work: Callable[[], Any],
        switch: str = 'webimap.enabled',
    ) -> None:
        settings = self._services.settings
        response.content_type = falcon.MEDIA_JSON
        response.set_header('Cache-Control', 'no-store')
        response.set_headers(cors.headers(settings, request.get_header('Origin')))
        try:
            if not settings[switch]:
                raise Refused(404, OFF)
            response.data = document.write(work())
        except Refused as refused:
            response.status = refused.status
            response.text = error(refused.text)

    def _person(self, request: falcon.Request) -> Person:
        guest = client(request.env, self._services.settings)
        address = utf8(request.get_header('X-Email') or '')
        password = utf8(request.get_header('X-Password') or '')
        return Person(self._services, address, password, guest)

    def _delete(self, request: falcon.Request, mailbox: str, uid: str) -> Any:
        wanted = operations.uid(uid)
        with self._person(request).imap() as session:
            operations.select(session, mailbox, writes=True)
            return operations.delete(session, wanted)

    @contextmanager
    def _body(
        self, request: falcon.Request, person: Person, limit: int
    ) -> Iterator[dict[str, Any]]:
        upload = Upload(request.env)
        if upload.declared > limit:
            raise Refused(413, 'message too large')
        if upload.chunked or upload.declared > FREE:
            person.prove()  # nobody else has us keep so much
        with self._services.room.place(person.address) as place:
            data = bytearray()
            try:
                for piece in upload.pieces():
                    if len(data) + len(piece) > limit:
                        raise Refused(413, 'message too large')
                    if not place.holds(len(data) + len(piece)):
                        upload.part()
                        raise Refused(503, 'too much at once, try again')
                    data += piece
            except (TooSlow, Cut):
                raise Refused(400, 'the request was cut off') from None
            try:
                given = document.read(data)
            except document.Excessive:
                raise Refused(413, 'message too large') from None
            except document.Malformed:
                raise Refused(400, 'invalid JSON') from None
            del data
            if not isinstance(given, dict):
                raise Refused(400, 'invalid JSON')
            yield given


def body_limit(services: Services) -> int:
    """Octets of a request with a message in JSON, which may escape many of its octets."""
    size = services.settings['limits.max_message_size'] or 64 * 1024 * 1024
    return int(size * 1.4) + 64 * 1024


def _mailbox(request: falcon.Request) -> str:
    return request.get_param('mailbox') or 'INBOX'


def _seconds(text: str | None) -> float:
    if not text:
        return 0.0
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise Refused(400, 'invalid wait')
    return min(float(text), operations.LONGEST_WAIT)


def utf8(text: str) -> str:
    """PEP 3333 gives octets as Latin-1."""
    try:
        return text.encode('latin-1').decode()
    except UnicodeError:
        return text
