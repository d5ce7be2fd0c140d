"""The routes of the public pages.

`/new` speaks to programs (JSON) and to people (a page), by what they send: a form
of ours says `page=1`.  It is the one that makes accounts; reading a page never
does.  Names that no route has are looked for as static files, own pages, and
contact pages, in this order.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import falcon
import gevent
import jinja2
from markupsafe import Markup

from madmail import log
from madmail.admin import registration, shares
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.delivery import zone
from madmail.tls.certificate import Missing, describe, verifiable
from madmail.web.peers import client
from madmail.web.services import Services
from madmail.web.site import autoconfig, files, guide, pages, words
from madmail.web.upload import Cut, TooSlow, Upload
from madmail.web.webimap import cors

FORM_LIMIT = 16 * 1024  # octets of a form or a JSON body
STATUS = {'invalid': 400, 'forbidden': 403, 'missing': 404, 'exists': 409, 'unavailable': 503}
# Nothing from elsewhere and no scripts; an operator's own pages may have theirs.
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
OWN_POLICY = "default-src 'self' 'unsafe-inline' data:; base-uri 'none'; frame-ancestors 'none'"
KEPT = 'public, max-age=600'  # their addresses are the same in the next version
FRESH = 'no-store'
LONGEST_TOKEN = 200  # characters of a token in an address; ours are far shorter

_log = log.get('site')


class Site:
    """All public pages of a relay; one method a route."""

    def __init__(self, services: Services, relay: Relay) -> None:
        self._services = services
        self._relay = relay
        self._settings = services.settings
        self._pages = pages.Pages(services.settings)

    def add_routes(self, app: falcon.App) -> None:
        for path, name in (
            ('/', 'index'),
            ('/index.html', 'index'),
            ('/new', 'new'),
            ('/cgi-bin/newemail.py', 'new'),
            ('/inv/{token}', 'invite'),
            ('/info', 'info'),
            ('/security', 'security'),
            ('/share', 'share'),
            ('/share/remove', 'share_remove'),
            ('/docs', 'docs'),
            ('/docs/{page}', 'docs'),
            ('/.well-known/autoconfig/mail/config-v1.1.xml', 'autoconfig'),
            ('/mail/config-v1.1.xml', 'autoconfig'),
            ('/.well-known/mta-sts.txt', 'mta_sts'),
            ('/robots.txt', 'robots'),
        ):
            app.add_route(path, self, suffix=name)
        app.add_sink(self.sink, prefix='/')  # type: ignore[arg-type]

    # -- pages

    def on_get_index(self, request: falcon.Request, response: falcon.Response) -> None:
        language = self._language(request)
        link = pages.join_link(self._settings)
        kept = self._settings['retention.messages']
        self._show(
            request,
            response,
            'index.html',
            link=link,
            qr=_code(link) if link else '',
            retention=kept and pages.age(kept, words.texts(language)),
        )

    def on_get_invite(self, request: falcon.Request, response: falcon.Response, token: str) -> None:
        token = token[:LONGEST_TOKEN]
        link = pages.join_link(self._settings, token)
        qr = _code(link) if link else ''
        self._show(request, response, 'invite.html', token=token, link=link, qr=qr)

    def on_get_info(self, request: falcon.Request, response: falcon.Response) -> None:
        t = words.texts(self._language(request))
        self._show(request, response, 'info.html', facts=pages.facts(self._settings, t))

    def on_get_security(self, request: falcon.Request, response: falcon.Response) -> None:
        fingerprint = ''
        if self._settings['tls.mode'] == 'self_signed':
            try:
                digest = describe(self._settings, self._services.state_dir)['sha256']
                fingerprint = bytes.fromhex(digest).hex(':').upper()
            except Missing:
                pass
        self._show(request, response, 'security.html', fingerprint=fingerprint)

    def on_get_docs(
        self, request: falcon.Request, response: falcon.Response, page: str = 'index'
    ) -> None:
        self._enabled()
        language = self._language(request)
        found = guide.find(language, page)
        if found is None:
            raise falcon.HTTPNotFound
        path, code = found
        self._show(
            request,
            response,
            'guide.html',
            heading=guide.title(path),
            body=guide.rendered(path),
            page_lang=code,
            page_dir=words.direction(code),
            pages=guide.pages(language) if page == 'index' else [],
        )

    # -- accounts

    def on_options_new(self, request: falcon.Request, response: falcon.Response) -> None:
        response.status = falcon.HTTP_204
        response.set_header('Allow', 'GET, HEAD, POST, OPTIONS')
        self._share_with_pages(request, response)

    def on_get_new(self, request: falcon.Request, response: falcon.Response) -> None:
        """To the app, where a link is enough; a GET makes no account."""
        self._enabled()
        link = pages.join_link(self._settings, request.get_param('token') or '')
        response.status = falcon.HTTP_302
        response.set_header('Location', link or '/')
        response.set_header('Cache-Control', FRESH)

    def on_post_new(self, request: falcon.Request, response: falcon.Response) -> None:
        self._enabled()
        self._share_with_pages(request, response)
        form = self._form(request)
        token = request.get_param('token') or form.get('token')
        guest = client(request.env, self._settings)
        try:
            made = registration.create_account(
                self._relay, token=token, origin=self._services.guest(guest)
            )
        except Refused as refused:
            self._not_made(request, response, refused, token, people='page' in form)
            return
        if 'page' in form:
            link = made['dclogin_url']
            self._show(
                request,
                response,
                'account.html',
                link=link,
                qr=_code(link),
                address=made['email'],
                password=made['password'],
            )
        else:
            _say(response, 200, dict(made))

    def _share_with_pages(self, request: falcon.Request, response: falcon.Response) -> None:
        """Pages that may use the mail of their visitors may also make accounts for them."""
        response.set_headers(cors.headers(self._settings, request.get_header('Origin')))

    def _not_made(
        self,
        request: falcon.Request,
        response: falcon.Response,
        refused: Refused,
        token: str | None,
        *,
        people: bool,
    ) -> None:
        status = STATUS.get(refused.word, 500)
        if status == 503:
            response.set_header('Retry-After', '60')
        if not people:
            # Delta Chat shows `reason`, older pages read `error`.
            _say(response, status, {'error': refused.text, 'reason': refused.text})
            return
        t = words.texts(self._language(request))
        if status >= 500:
            text = t['retry']
        elif token:
            text = t['token_bad']
        else:
            text = t[
                'closed' if self._settings['accounts.registration'] == 'closed' else 'token_help'
            ]
        self._show(request, response, 'message.html', status, heading=t['trouble'], text=text)

    # -- contact pages

    def on_get_share(self, request: falcon.Request, response: falcon.Response) -> None:
        self._sharing()
        self._show(request, response, 'share.html', problem='', url='', name='', slug='')

    def on_post_share(self, request: falcon.Request, response: falcon.Response) -> None:
        self._sharing()
        form = self._form(request)
        url, name, slug = (form.get(key, '').strip() for key in ('url', 'name', 'slug'))
        wait = self._services.rate(
            'limits.registrations_per_minute_per_ip', client(request.env, self._settings)
        )
        try:
            if wait:
                raise Refused('unavailable', 'too many at once')
            made, key = shares.create(self._relay, slug, url, name)
        except Refused as refused:
            status = STATUS.get(refused.word, 500)
            self._show(
                request,
                response,
                'share.html',
                status,
                problem=self._problem(request, refused, url),
                url=url,
                name=name,
                slug=slug,
            )
            return
        root = pages.origin(self._settings) if pages.public(self._settings) else request.prefix
        removal = f'{root}/share/remove?slug={made["slug"]}&key={key}'
        page = f'{root}/{made["slug"]}'
        self._show(request, response, 'shared.html', 201, page=page, removal=removal)

    def _problem(self, request: falcon.Request, refused: Refused, url: str) -> str:
        """Why there is no page, in the visitor's language."""
        t = words.texts(self._language(request))
        if refused.word == 'exists':
            return t['share_taken']
        if refused.word != 'invalid':
            return t['retry']
        try:
            shares.stored(url)
        except Refused:
            return t['share_bad_url']
        return t['share_bad_slug']

    def on_get_share_remove(self, request: falcon.Request, response: falcon.Response) -> None:
        self._sharing()
        slug, key = ((request.get_param(name) or '')[:100] for name in ('slug', 'key'))
        kept = f'{urlencode({"slug": slug, "key": key})}&'  # in the links to other languages
        self._show(request, response, 'remove.html', slug=slug, key=key, kept=kept)

    def on_post_share_remove(self, request: falcon.Request, response: falcon.Response) -> None:
        self._sharing()
        form = self._form(request)
        t = words.texts(self._language(request))
        try:
            shares.remove_by_key(self._relay, form.get('slug', ''), form.get('key', ''))
        except Refused as refused:
            status = STATUS.get(refused.word, 500)
            text = t['share_gone']
            self._show(request, response, 'message.html', status, heading=t['trouble'], text=text)
            return
        self._show(request, response, 'message.html', heading=t['share_removed'], text='')

    # -- for programs

    def on_get_autoconfig(self, request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = 'application/xml; charset=utf-8'
        response.set_header('Cache-Control', 'public, max-age=3600')
        response.text = autoconfig.document(self._settings)

    def on_get_mta_sts(self, request: falcon.Request, response: falcon.Response) -> None:
        """RFC 8461 3.2; only where a certificate bears it out."""
        settings = self._settings
        if not zone.serves_policy(settings, verifiable(settings, self._services.state_dir)):
            raise falcon.HTTPNotFound
        response.content_type = falcon.MEDIA_TEXT
        response.set_header('Cache-Control', 'public, max-age=3600')
        response.text = zone.sts_policy(self._settings['domain'])

    def on_get_robots(self, request: falcon.Request, response: falcon.Response) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.text = 'User-agent: *\nDisallow: /new\nDisallow: /inv/\nDisallow: /share\n'

    # RFC 9110 9.3.2: HEAD is GET without the content, which the server leaves out.
    on_head_index, on_head_invite, on_head_info = on_get_index, on_get_invite, on_get_info
    on_head_security, on_head_docs, on_head_new = on_get_security, on_get_docs, on_get_new
    on_head_share, on_head_share_remove = on_get_share, on_get_share_remove
    on_head_autoconfig, on_head_mta_sts = on_get_autoconfig, on_get_mta_sts
    on_head_robots = on_get_robots

    # -- everything else

    def sink(self, request: Any, response: Any, **_: Any) -> None:
        if not self._settings['site.enabled']:
            raise falcon.HTTPNotFound
        if request.method not in ('GET', 'HEAD'):
            raise falcon.HTTPNotFound
        name = request.path[1:]
        own = pages.own_directory(self._settings)
        found = files.static(own, name)
        if found is not None:
            path, kind = found
            response.content_type = kind
            response.set_header('X-Content-Type-Options', 'nosniff')
            self._file(request, response, path, 'no-cache' if own else KEPT)
            return
        stem = name.removesuffix('.html')
        if stem in ('info', 'security'):
            getattr(self, f'on_get_{stem}')(request, response)
            return
        if self._pages.own(f'{stem}.html'):
            self._show(request, response, f'{stem}.html')
            return
        contact = shares.one(self._relay, name) if self._settings['site.sharing'] else None
        if contact is not None:
            t = words.texts(self._language(request))
            link = shares.link(contact['url'])
            self._show(
                request,
                response,
                'contact.html',
                name=contact['name'] or t['contact_someone'],
                link=link,
                qr=_code(link),
                Custom={'Slug': contact['slug'], 'URL': link, 'Name': contact['name']},
            )
            return
        t = words.texts(self._language(request))
        self._show(request, response, 'message.html', 404, heading=t['not_found'], text='')

    # -- inside

    def _enabled(self) -> None:
        if not self._settings['site.enabled']:
            raise falcon.HTTPNotFound

    def _sharing(self) -> None:
        self._enabled()
        if not self._settings['site.sharing']:
            raise falcon.HTTPNotFound

    def _language(self, request: falcon.Request) -> str:
        return words.chosen(
            request.get_param('lang'),
            self._settings['site.language'],
            request.get_header('Accept-Language') or '',
        )

    def _show(
        self,
        request: falcon.Request,
        response: falcon.Response,
        template: str,
        status: int = 200,
        **values: Any,
    ) -> None:
        self._enabled()
        try:
            path = request.path if status < 400 else '/'
            text = self._pages.render(template, self._language(request), path, **values)
        except jinja2.TemplateError as error:
            if not self._pages.own(template):
                raise
            _log.error('own page cannot be used', template=template, cause=type(error).__name__)
            raise falcon.HTTPInternalServerError from None
        response.status = status
        response.content_type = falcon.MEDIA_HTML
        own = self._pages.own(template)
        headers = {
            'Content-Security-Policy': OWN_POLICY if own else POLICY,
            'X-Content-Type-Options': 'nosniff',
            'Referrer-Policy': 'no-referrer',
            'Vary': 'Accept-Language',
        }
        if pages.public(self._settings) and request.scheme == 'https':
            headers['Strict-Transport-Security'] = 'max-age=31536000'
        response.set_headers(headers)
        # Pages may hold credentials made for this visitor.
        response.set_header('Cache-Control', FRESH)
        response.text = text

    def _file(
        self, request: falcon.Request, response: falcon.Response, path: Path, kept: str
    ) -> None:
        """The octets, or that they are those the client has (RFC 9110 13.1.2).

        PERF: tagged by what the file system knows, for 16 MB would take 30 ms to hash.
        """
        try:
            with path.open('rb') as file:
                known = os.fstat(file.fileno())
                tag = f'{known.st_mtime_ns:x}-{known.st_ino:x}-{known.st_size:x}'
                response.etag = tag
                response.set_header('Cache-Control', kept)
                if any(one == '*' or one == tag for one in request.if_none_match or ()):
                    response.status = falcon.HTTP_304
                    return
                response.data = file.read(files.LARGEST)
        except OSError:
            raise falcon.HTTPNotFound from None  # it went away, or is not for us

    def _form(self, request: falcon.Request) -> dict[str, str]:
        """The fields of a form or of a JSON body; what cannot be read has none.

        Raises falcon.HTTPError for a body that is too large or too slow.
        """
        kind = (request.content_type or '').partition(';')[0].strip().lower()
        upload = Upload(request.env, first_time=10.0)
        if upload.declared > FORM_LIMIT:
            raise falcon.HTTPContentTooLarge
        data = b''
        try:
            for piece in upload.pieces():
                data += piece
                if len(data) > FORM_LIMIT:
                    raise falcon.HTTPContentTooLarge
        except (TooSlow, Cut):
            raise falcon.HTTPBadRequest from None
        text = data.decode('utf-8', 'replace')
        if kind == 'application/json':
            try:
                given = json.loads(text)
            except (ValueError, RecursionError):
                return {}
            if not isinstance(given, dict):
                return {}
            return {
                key: value.encode('utf-8', 'replace').decode()  # JSON can have half a character
                for key, value in given.items()
                if isinstance(value, str)
            }
        if kind == 'application/x-www-form-urlencoded':
            try:
                fields = parse_qs(text, keep_blank_values=True, max_num_fields=20)
            except ValueError:
                return {}
            return {key: values[0] for key, values in fields.items()}
        return {}


def _code(link: str) -> Markup:
    """Drawn beside the loop, which it would hold up.  PERF: 8 ms a login, 20 ms a contact."""
    draw = pages.code if link.startswith('dclogin:') else _drawn  # passwords are not kept
    drawn: Markup = gevent.get_hub().threadpool.apply(draw, (link,))
    return drawn


_drawn = lru_cache(64)(pages.code)


def _say(response: falcon.Response, status: int, data: dict[str, Any]) -> None:
    response.status = status
    response.content_type = falcon.MEDIA_JSON
    response.set_header('Cache-Control', FRESH)
    response.text = json.dumps(data)
