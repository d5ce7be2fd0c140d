"""The dashboard is served at its path, as it should be, and nothing else is."""

from __future__ import annotations

import gzip
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import falcon.inspect
import pytest

from madmail.admin.refused import Refused
from madmail.admin.settings import change
from madmail.settings import SettingError, Settings
from madmail.settings.declarations import SETTINGS
from madmail.settings.kinds import Wrong
from madmail.web.application import build
from madmail.web.panel import resources
from tests.web.admin.double import FAR, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An operator who has switched it on."""
    desk = Desk(tmp_path, **{'listen.https': ['0.0.0.0:8443']})
    desk.ask('POST', '/admin/services/admin_web', {'action': 'enable'})
    return desk


def get(desk: Desk, path: str, method: str = 'GET', **kinds: Any) -> Any:
    given = {'protocol': 'https', 'remote_addr': FAR, **kinds}
    return desk.client.simulate_request(method, path, **given)


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ''
        self._in = ''
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        self._in = ''

    def handle_data(self, data: str) -> None:
        if self._in in ('script', 'style'):
            self.inline += data.strip()


def scripts(text: str) -> list[str]:
    return re.findall(r'(?:src|href)="(/[^"]*)"', text)


def test_it_is_off_until_it_is_switched_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for path in ('/admin', '/admin/', '/admin/accounts', '/admin/assets/x.js'):
        assert get(desk, path).status_code == 404
    desk.ask('POST', '/admin/services/admin_web', {'action': 'enable'})
    assert get(desk, '/admin/').status_code == 200
    desk.ask('POST', '/admin/services/admin_web', {'action': 'disable'})
    assert get(desk, '/admin/').status_code == 404


def test_the_page_is_never_kept_and_leads_to_files_that_are_kept_for_good(desk: Desk) -> None:
    page = get(desk, '/admin/')
    assert page.headers['Content-Type'].startswith('text/html')
    assert page.headers['Cache-Control'] == 'no-cache, no-store, must-revalidate'
    paths = scripts(page.text)
    assert len(paths) >= 3
    for path in paths:
        assert path.startswith('/admin/assets/')
        asset = get(desk, path)
        assert asset.status_code == 200, path
        assert asset.headers['Cache-Control'] == 'public, max-age=31536000, immutable'
        kind = {'js': 'text/javascript', 'css': 'text/css', 'svg': 'image/svg+xml'}
        assert asset.headers['Content-Type'].startswith(kind[path.rpartition('.')[2]])
        assert asset.content == (resources.DIST / 'assets' / Path(path).name).read_bytes()


def test_nothing_of_the_page_may_run_but_its_own_script(desk: Desk) -> None:
    page = get(desk, '/admin/')
    policy = dict(
        part.strip().split(' ', 1) for part in page.headers['Content-Security-Policy'].split(';')
    )
    assert policy['default-src'] == "'none'"
    for name in ('script-src', 'style-src', 'connect-src', 'img-src'):
        assert policy[name] == "'self'"
    for name in ('frame-ancestors', 'base-uri', 'form-action'):
        assert policy[name] == "'none'"
    assert page.headers['X-Content-Type-Options'] == 'nosniff'
    assert page.headers['Referrer-Policy'] == 'no-referrer'
    assert page.headers['X-Frame-Options'] == 'DENY'
    elements = Elements(page.text)
    assert elements.inline == ''
    for tag, attributes in elements.found:
        assert tag != 'style'
        assert not [name for name in attributes if name.startswith('on') or name == 'style']
        for name in ('src', 'href'):
            assert (attributes.get(name) or '/').startswith('/')


def test_every_answer_has_the_headers(desk: Desk) -> None:
    asset = scripts(get(desk, '/admin/').text)[0]
    for path in ('/admin', '/admin/', asset, '/admin/assets/missing.js', '/admin/x.js'):
        headers = get(desk, path).headers
        for name, value in resources.HEADERS.items():
            assert headers[name] == value, (path, name)


def test_places_within_the_page_are_the_page(desk: Desk) -> None:
    whole = get(desk, '/admin/').text
    for path in ('/admin/accounts', '/admin/accounts/', '/admin/a/b/c'):
        assert get(desk, path).text == whole
    for path in (
        '/admin/favicon.ico',
        '/admin/sources.json',
        '/admin/index.html',
        '/admin/a/b.js',
        '/admin/a.b/c',
    ):
        assert get(desk, path).status_code == 404


def test_without_the_slash_one_is_led_to_it(desk: Desk) -> None:
    answer = get(desk, '/admin')
    assert (answer.status_code, answer.headers['Location']) == (308, '/admin/')
    assert 'no-store' in answer.headers['Cache-Control']


def test_other_verbs(desk: Desk) -> None:
    whole = get(desk, '/admin/')
    head = get(desk, '/admin/', 'HEAD')
    assert head.status_code == 200
    assert head.content == b''
    assert head.headers['Content-Type'] == whole.headers['Content-Type']
    options = get(desk, '/admin/', 'OPTIONS')
    assert options.status_code == 204
    assert 'Access-Control-Allow-Origin' not in options.headers
    for method in ('POST', 'PUT', 'PATCH', 'DELETE'):
        assert get(desk, '/admin/', method).status_code == 405


def test_files_are_packed_for_who_takes_that_and_known_again(desk: Desk) -> None:
    path = next(one for one in scripts(get(desk, '/admin/').text) if one.endswith('.js'))
    plain = get(desk, path)
    packed = get(desk, path, headers={'Accept-Encoding': 'br, gzip;q=0.8'})
    assert packed.headers['Content-Encoding'] == 'gzip'
    assert packed.headers['Vary'] == plain.headers['Vary'] == 'Accept-Encoding'
    assert gzip.decompress(packed.content) == plain.content
    assert len(packed.content) < len(plain.content) / 2
    assert 'Content-Encoding' not in plain.headers
    refused = get(desk, path, headers={'Accept-Encoding': 'gzip;q=0, br'})
    assert 'Content-Encoding' not in refused.headers
    again = get(desk, path, headers={'If-None-Match': plain.headers['ETag']})
    assert (again.status_code, again.content) == (304, b'')


@pytest.mark.parametrize(
    'path',
    [
        '/-/panel', '/-/panel/', '/-/panel/accounts', '/%2D/panel', '/-%2Fpanel/',
        '//-/panel', '///-/panel/', '/Admin/', '/adminx', '/adminx/', '/admin.html', '/x/admin/',
        '/admin/assets/', '/admin/assets', '/admin/assets/../index.html',
        '/admin/assets/%2e%2e/index.html', '/admin/assets/..%2findex.html',
        '/admin/assets/..%5c..%5cresources.py', '/admin/assets//etc/passwd',
        '/admin/assets/%00.js', '/admin/../../resources.py', '/admin/%2e%2e/%2e%2e/setup.py',
    ],
)  # fmt: skip
def test_path_tricks_lead_nowhere(desk: Desk, path: str) -> None:
    answer = get(desk, path)
    assert answer.status_code == 404, answer.text[:200]
    assert 'madmail-api' not in answer.text


def test_the_path_moves_while_the_relay_runs(desk: Desk) -> None:
    resource = '/admin/settings/admin_web_path'
    desk.ask('POST', '/admin/services/admin_web', {'action': 'disable'})
    told = desk.ask('POST', resource, {'action': 'set', 'value': 'office/desk/'})
    assert (told['value'], told['is_set']) == ('/office/desk', True)
    # As panels expect, who says where it is wants it.
    assert desk.ask('GET', '/admin/services/admin_web') == {'status': 'enabled'}
    assert get(desk, '/admin/').status_code == 404
    page = get(desk, '/office/desk/')
    assert page.status_code == 200
    assert all(path.startswith('/office/desk/assets/') for path in scripts(page.text))
    assert get(desk, scripts(page.text)[0]).status_code == 200
    assert desk.ask('POST', resource, {'action': 'reset'})['value'] == '/admin'
    assert get(desk, '/admin/').status_code == 200
    assert get(desk, '/office/desk/').status_code == 404


def test_the_page_tells_where_the_api_is(desk: Desk) -> None:
    assert 'name="madmail-api" content="/api/admin"' in get(desk, '/admin/').text
    desk.ask('POST', '/admin/settings/admin_path', {'action': 'set', 'value': '/elsewhere'})
    assert 'name="madmail-api" content="/elsewhere"' in get(desk, '/admin/').text


def test_an_api_below_the_dashboard_is_still_the_api(desk: Desk) -> None:
    desk.ask('POST', '/admin/settings/admin_path', {'action': 'set', 'value': '/admin/api'})
    answer = desk.post('{"resource": "/admin/status"}', path='/admin/api')
    assert answer.json['status'] == 401
    assert get(desk, '/admin/accounts').status_code == 200


def test_no_route_can_be_hidden(desk: Desk) -> None:
    """Whatever the application has: a path at which the dashboard stood before it is refused."""
    kind = SETTINGS['panel.path'].kind
    app = build(desk.services, desk.relay)
    routes = [one.path for one in falcon.inspect.inspect_routes(app)]
    assert len(routes) > 15
    for route in [*routes, '/style.css', '/logo.svg', '/webimap/ws']:
        parts = [part for part in route.split('/') if part]
        if not parts or '{' in parts[0]:
            continue
        for length in range(1, len(parts) + 1):
            with pytest.raises(Wrong):
                kind.check('/' + '/'.join(parts[:length]))
    for wrong in ('', '/', 'admin', '/a b', '/a/', '//a', '/../a', '/a"><script>', '/a?b', '/é'):
        with pytest.raises(Wrong):
            kind.check(wrong)


def test_the_api_is_not_hidden_either(desk: Desk) -> None:
    text = desk.ask(
        'POST', '/admin/settings/admin_web_path', {'action': 'set', 'value': '/x/y'}, 200
    )
    assert text['value'] == '/x/y'
    for name, value in (('admin_path', '/x/y'), ('admin_web_path', '/api/admin')):
        text = desk.ask('POST', f'/admin/settings/{name}', {'action': 'set', 'value': value}, 400)
        assert 'path' in text
    with pytest.raises(SettingError, match=r'panel\.path: expected another path than admin\.path'):
        Settings.defaults({'panel.enabled': True, 'panel.path': '/q', 'admin.path': '/q'})
    assert Settings.defaults({'panel.path': '/q', 'admin.path': '/q'})['panel.path'] == '/q'
    desk.relay.control.set_setting('admin.path', '/q')
    desk.relay.publish('settings', {})
    with pytest.raises(Refused, match='another path'):
        change(desk.relay, 'panel.path', '/q')


def test_pages_of_the_operator_and_contacts_are_not_hidden(tmp_path: Path) -> None:
    own = tmp_path / 'www'
    own.mkdir()
    (own / 'hello.html').write_text('<p>hello</p>')
    desk = Desk(tmp_path / 'state', **{'site.www_dir': own, 'site.sharing': True})
    url = 'https://i.delta.chat/#' + 'A' * 40
    desk.ask('POST', '/admin/shares', {'slug': 'ann', 'url': url, 'name': 'Ann'}, 201)
    for value in ('/hello', '/ann'):
        given = {'action': 'set', 'value': value}
        text = desk.ask('POST', '/admin/settings/admin_web_path', given, 400)
        assert 'there is a page' in text
    given = {'action': 'set', 'value': '/bureau'}
    desk.ask('POST', '/admin/settings/admin_web_path', given)
    text = desk.ask('POST', '/admin/shares', {'slug': 'bureau', 'url': url}, 400)
    assert 'not for contacts' in text


def test_over_plain_http_from_elsewhere_one_is_led_to_https(desk: Desk) -> None:
    answer = get(desk, '/admin/', protocol='http')
    assert answer.status_code == 307
    assert answer.headers['Location'] == 'https://relay.example:8443/admin/'
    assert get(desk, '/admin/', protocol='http', remote_addr='127.0.0.1').status_code == 200
    asset = scripts(get(desk, '/admin/').text)[0]
    assert get(desk, asset, protocol='http').status_code == 307


def test_over_plain_http_without_https_it_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, **{'panel.enabled': True, 'listen.http': ['0.0.0.0:80']})
    assert get(desk, '/admin/', protocol='http').status_code == 403
    open_desk = Desk(tmp_path / 'open', **{'panel.enabled': True, 'admin.require_tls': False})
    assert get(open_desk, '/admin/', protocol='http').status_code == 200


def test_names_of_files_change_with_what_is_in_them() -> None:
    names = [path.name for path in (resources.DIST / 'assets').iterdir()]
    assert len(names) == len({name.rpartition('-')[2] for name in names})
    for name in names:
        assert re.fullmatch(r'[a-z]+-[A-Za-z0-9_-]{8}\.(js|css|svg|json)', name), name
    tags = {asset.tag for asset in resources.assets().values()}
    digests = {
        hashlib.sha256(path.read_bytes()).hexdigest()[:24]
        for path in (resources.DIST / 'assets').iterdir()
    }
    assert tags == digests
