"""The Falcon app of a web worker: routes, and answers to what no route expects."""

from __future__ import annotations

from typing import Any

import falcon

from madmail import log
from madmail.admin.relay import Relay
from madmail.tls import challenges
from madmail.tls.files import DIRECTORY
from madmail.web import exchanger, metrics
from madmail.web.admin.endpoint import AdminApi, LocalProxy
from madmail.web.admin.path import ApiPath
from madmail.web.federation import MxDeliv
from madmail.web.panel.resources import Panel
from madmail.web.services import Services
from madmail.web.site.resources import Site
from madmail.web.webimap import rest
from madmail.web.webimap.rest import Rest

_log = log.get('web')

ALIVE = '/-/alive'  # only on the probe
ADMIN = '/-/admin'  # where the admin API is mounted; it is reached by `admin.path` only
PANEL = '/-/panel'  # the same of the dashboard and `panel.path`
STEADY = ('/mxdeliv', ALIVE)  # paths that no setting moves


class Alive:
    """The heartbeat of the worker: a request through its whole loop."""

    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        if request.env.get('REMOTE_ADDR'):
            raise falcon.HTTPNotFound
        response.text = 'alive'


class Challenges:
    """What an authority asks before it issues a certificate, see `madmail.tls.challenges`."""

    def __init__(self, services: Services) -> None:
        self._directory = services.state_dir / DIRECTORY

    def on_get(self, request: falcon.Request, response: falcon.Response, token: str) -> None:
        answer = challenges.find(self._directory, token)
        if answer is None:
            raise falcon.HTTPNotFound
        response.content_type = 'application/octet-stream'  # RFC 8555 8.3
        response.data = answer


class Mounts:
    """Takes requests to paths that are settings to what is mounted there now."""

    def __init__(self, services: Services, api: ApiPath) -> None:
        self._services = services
        self._api = api

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        path = request.path
        if path.startswith('//'):  # the router would take it for one, past what is asked here
            path = request.path = '/' + path.lstrip('/')
        env = request.env
        if (env['SERVER_NAME'], env['SERVER_PORT']) in self._services.metrics_at:
            if path not in (metrics.PATH, ALIVE):
                raise falcon.HTTPNotFound
            return
        if path == metrics.PATH:
            raise falcon.HTTPNotFound
        if path in STEADY or path.startswith(challenges.PATH):
            return
        if path in (ADMIN, PANEL) or path.startswith(f'{PANEL}/'):
            raise falcon.HTTPNotFound
        self._services.refresh()
        settings = self._services.settings
        mount = settings['panel.path'] if settings['panel.enabled'] else None
        if path == settings['admin.path'] and settings['admin.enabled']:
            request.path = ADMIN
        elif mount and (path == mount or path.startswith(f'{mount}/')):
            request.path = PANEL + path[len(mount) :]
        elif self._api.serves(path) and settings['admin.enabled']:
            request.path = ADMIN


def build(services: Services, relay: Relay | None = None) -> falcon.App:
    """The WSGI application; `relay` is what administration works on, None = this one."""
    admin = AdminApi(services, relay)
    app = falcon.App(media_type=falcon.MEDIA_TEXT, middleware=[Mounts(services, admin.path)])
    app.req_options.strip_url_path_trailing_slash = True
    app.set_error_serializer(_say)
    app.add_error_handler(Exception, _failed)
    app.add_route(ALIVE, Alive())
    app.add_route('/mxdeliv', MxDeliv(services))
    app.add_route(f'{challenges.PATH}{{token}}', Challenges(services))
    app.add_route(metrics.PATH, metrics.Metrics(services, admin.relay))
    app.add_route(ADMIN, admin)
    app.add_route('/__proxy', LocalProxy(services, admin))
    panel = Panel(services)
    app.add_route(PANEL, panel)
    app.add_route(f'{PANEL}/{{rest:path}}', panel)
    exchanger.add_routes(app, services, admin.relay)
    Site(services, admin.relay).add_routes(app)
    Rest(services).add_routes(app)  # behind the site: the sink that comes last is asked first
    return app


def _say(request: falcon.Request, response: falcon.Response, error: falcon.HTTPError) -> None:
    """The status in words, and nothing of the request."""
    text = error.title or str(error.status)
    if rest.below(request.path):
        response.content_type = falcon.MEDIA_JSON
        response.text = rest.error(text)
        return
    response.content_type = falcon.MEDIA_TEXT
    response.text = text


def _failed(
    request: falcon.Request, response: falcon.Response, error: Exception, params: dict[str, Any]
) -> None:
    """Breakage: counted, logged without what it was about."""
    if isinstance(error, falcon.HTTPError):
        raise error
    _log.exception('request failed', error)
    raise falcon.HTTPInternalServerError
