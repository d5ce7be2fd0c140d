"""The dashboard of a running relay with two web processes, without a browser."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from madmail.web.panel.resources import DIST
from tests.web.conftest import WebRelay, answer


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRelay]:
    with WebRelay(tmp_path_factory.mktemp('relay'), {'processes.web': 2}) as relay:
        yield relay


def get(relay: WebRelay, path: str, scheme: str = 'https', **headers: str) -> tuple[int, bytes]:
    client = relay.client(scheme)
    try:
        client.request('GET', path, headers={'Connection': 'close', **headers})
        response = client.getresponse()
        return response.status, response.read()
    finally:
        client.close()


def seen(relay: WebRelay, path: str, status: int) -> None:
    """Every process says so, whichever takes the connection."""
    end = time.monotonic() + 20
    while {get(relay, path)[0] for _ in range(8)} != {status}:
        assert time.monotonic() < end, path


def test_the_command_switches_all_processes(relay: WebRelay) -> None:
    seen(relay, '/admin/', 404)
    told = json.loads(relay.cli('--json', 'admin-web', 'enable').stdout)
    assert told['data'] == {'enabled': True, 'path': '/admin'}
    assert told['command'] == 'admin-web enable'
    seen(relay, '/admin/', 200)
    assert get(relay, '/admin/', 'http')[0] == 200  # from this host
    relay.cli('admin-web', 'path', '/bureau')
    seen(relay, '/bureau/', 200)
    seen(relay, '/admin/', 404)
    relay.cli('admin-web', 'path', '--reset')
    seen(relay, '/admin/', 200)
    relay.cli('admin-web', 'disable')
    seen(relay, '/admin/', 404)
    relay.cli('admin-web', 'enable')
    seen(relay, '/admin/', 200)


def test_the_files_arrive_whole(relay: WebRelay) -> None:
    relay.cli('admin-web', 'enable')
    seen(relay, '/admin/', 200)
    page = get(relay, '/admin/')[1].decode()
    paths = re.findall(r'(?:src|href)="(/admin/assets/[^"]+)"', page)
    assert len(paths) == 3
    client = relay.client('https')
    for path in paths:  # on one connection, as browsers do
        client.request('GET', path, headers={'Accept-Encoding': 'gzip'})
        response = client.getresponse()
        data = response.read()
        assert response.status == 200
        if response.headers['Content-Encoding'] == 'gzip':
            data = gzip.decompress(data)
        assert data == (DIST / 'assets' / Path(path).name).read_bytes()
        client.request('HEAD', path)
        response = client.getresponse()
        assert response.read() == b''
        assert int(response.headers['Content-Length']) == len(data)
    client.close()


@pytest.mark.parametrize(
    'target',
    [
        '/-/panel', '/%2d/panel/', '/-%2fpanel', '//-/panel', '/./-/panel', '/admin/../-/panel',
        '/admin/assets/../../resources.py', '/admin/assets/..%2f..%2fresources.py',
        '/admin/assets/%2e%2e/%2e%2e/__init__.py', '/admin/assets/..%5c..%5cresources.py',
        '/admin/assets/%252e%252e/sources.json', '/admin/sources.json', '/admin/licenses.md',
        '/admin/assets//etc/passwd', '/admin/assets/%00', '/admin/assets/index.js%00.css',
        '///-/panel/', '/admin%2f', '/ADMIN/', 'http://elsewhere.example/-/panel',
    ],
)  # fmt: skip
def test_what_leads_nowhere(relay: WebRelay, target: str) -> None:
    """Sent as it is, which no client library does."""
    relay.cli('admin-web', 'enable')
    with relay.raw('http') as stream:
        stream.sendall(f'GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'.encode())
        text = answer(stream)
    status = int(text.split()[1])
    if target == '/admin%2f':  # the same path in other letters (RFC 3986 6.2.2)
        assert status in (200, 404)
        return
    assert status in (400, 404), text[:300]
    assert b'def ' not in text
    assert b'madmail-api' not in text
    assert b'root:' not in text


def test_other_verbs_do_nothing(relay: WebRelay) -> None:
    relay.cli('admin-web', 'enable')
    for method in ('POST', 'PUT', 'DELETE', 'PATCH', 'TRACE'):
        client: http.client.HTTPConnection = relay.client('https')
        client.request(method, '/admin/', body=b'' if method == 'TRACE' else b'x=1')
        response = client.getresponse()
        assert response.status in (400, 405, 404), method
        assert b'madmail-api' not in response.read()
        client.close()
