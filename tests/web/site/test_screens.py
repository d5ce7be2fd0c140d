"""The pages in a real browser: nothing overflows, everything is there without scripts.

MADMAIL_SCREENS=DIRECTORY keeps the pictures, to be looked at.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from madmail.web.site import words
from tests.web.conftest import WebRelay

SIZES = {'phone': (390, 844), 'desktop': (1280, 900)}
PAGES = {
    'start': '/',
    'info': '/info',
    'security': '/security',
    'guide': '/docs/',
    'share': '/share',
}


def browser() -> str:
    found = shutil.which('chromium') or shutil.which('chromium-browser')
    if found is None:
        reason = 'chromium is not installed'
        if os.environ.get('CI') == 'true':
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope='module')
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebRelay]:
    browser()
    options = {'site': {'sharing': True}, 'relay': {'comment': 'A relay.', 'admin': 'mailto:a@b.c'}}
    with WebRelay(tmp_path_factory.mktemp('site'), options) as relay:
        yield relay


def run(*arguments: str) -> str:
    command = [browser(), '--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars']
    command += ['--disable-dev-shm-usage', '--disable-background-networking', '--no-first-run']
    done = subprocess.run([*command, *arguments], capture_output=True, timeout=90, check=True)
    return done.stdout.decode('utf-8', 'replace')


def size(png: Path) -> tuple[int, int]:
    data = png.read_bytes()
    assert data.startswith(b'\x89PNG')
    width, height = struct.unpack('>II', data[16:24])
    return width, height


@pytest.mark.parametrize('screen', SIZES)
@pytest.mark.parametrize('language', words.LANGUAGES)
def test_pictures(relay: WebRelay, tmp_path: Path, language: str, screen: str) -> None:
    kept = Path(os.environ.get('MADMAIL_SCREENS') or tmp_path)
    kept.mkdir(parents=True, exist_ok=True)
    width, height = SIZES[screen]
    pages = PAGES if language == 'en' or screen == 'phone' else {'start': '/'}
    for name, path in pages.items():
        picture = kept / f'{name}-{language}-{screen}.png'
        url = f'http://127.0.0.1:{relay.web["http"]}{path}?lang={language}'
        run(
            f'--user-data-dir={tmp_path}/profile',
            f'--window-size={width},{height}',
            f'--screenshot={picture}',
            url,
        )
        assert size(picture) == (width, height)
        # A page that did not come is white and small when packed.
        assert picture.stat().st_size > 12_000


@pytest.mark.parametrize('language', words.LANGUAGES)
def test_nothing_is_wider_than_a_phone(relay: WebRelay, tmp_path: Path, language: str) -> None:
    """A page of ours in a frame of a phone's width, measured by a script around it."""
    import threading
    from functools import partial
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from urllib.request import urlopen

    base = f'http://127.0.0.1:{relay.web["http"]}'

    class Stage(BaseHTTPRequestHandler):
        """Passes pages on without their policy, with a script that measures them."""

        def do_GET(self) -> None:
            with urlopen(base + self.path) as answer:
                data = answer.read()
                kind = answer.headers['Content-Type']
            if 'html' in kind:
                script = (
                    b'<script>onload = () => { document.title = '
                    b'`wide ${document.documentElement.scrollWidth} of ${innerWidth}`;'
                    b'document.body.dataset.wide = document.title }</script></body>'
                )
                data = data.replace(b'</body>', script)
            self.send_response(200)
            self.send_header('Content-Type', kind)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Stage)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path in PAGES.values():
            text = run(
                f'--user-data-dir={tmp_path}/profile',
                '--window-size=500,844',
                '--dump-dom',
                f'http://127.0.0.1:{server.server_port}{path}?lang={language}',
            )
            told = text.partition('data-wide="wide ')[2].partition('"')[0]
            wide, _, inner = told.partition(' of ')
            assert int(wide) <= int(inner), f'{path} in {language}: {told}'
        server.shutdown()
