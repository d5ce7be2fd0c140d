"""Chromium without a window, driven over the DevTools protocol through two pipes.

Messages are JSON, each ended by an octet 0 (`--remote-debugging-pipe`).  What a page
complains of (exceptions, errors of the console, violations of its policy) and what it
asks for is kept, so that a test can see that there was nothing.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

ANSWER_TIME = 60.0  # seconds
WAIT_TIME = 30.0
OPTIONS = (
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--hide-scrollbars',
    '--disable-dev-shm-usage',
    '--disable-background-networking',
    '--no-first-run',
    '--ignore-certificate-errors',
    '--remote-debugging-pipe',
)


def program() -> str:
    found = shutil.which('chromium') or shutil.which('chromium-browser')
    if found is None:
        reason = 'chromium is not installed'
        if os.environ.get('CI') == 'true':
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Browser:
    """One program; ended with the context."""

    def __init__(self, profile: Path) -> None:
        to_it, self._out = os.pipe()
        self._in, from_it = os.pipe()
        # The program wants them as descriptors 3 and 4.
        script = 'in=$1 out=$2; shift 2; eval "exec \\"\\$@\\" 3<&$in 4>&$out"'
        self._process = subprocess.Popen(
            [
                *('bash', '-c', script, 'bash', str(to_it), str(from_it), program(), *OPTIONS),
                f'--user-data-dir={profile}',
                'about:blank',
            ],
            pass_fds=(to_it, from_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(from_it)
        self._number = 0
        self._buffer = b''
        self.pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            self.call('Browser.close')
            self._process.wait(20)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, session: str = '', **params: Any) -> dict[str, Any]:
        """One command and its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {'id': number, 'method': method, 'params': params}
        if session:
            message['sessionId'] = session
        os.write(self._out, json.dumps(message).encode() + b'\0')
        end = time.monotonic() + ANSWER_TIME
        while True:
            found = self._next(end)
            assert found is not None, f'{method} was not answered'
            if found.get('id') == number:
                assert 'error' not in found, f'{method}: {found["error"]}'
                result: dict[str, Any] = found['result']
                return result
            self._event(found)

    def listen(self, seconds: float) -> None:
        """Take what events come in a while."""
        end = time.monotonic() + seconds
        while (found := self._next(end)) is not None:
            self._event(found)

    def open(self, url: str, **screen: Any) -> Page:
        """A page of its own storage."""
        context = self.call('Target.createBrowserContext')['browserContextId']
        target = self.call('Target.createTarget', url='about:blank', browserContextId=context)
        session = self.call('Target.attachToTarget', targetId=target['targetId'], flatten=True)
        page = Page(self, session['sessionId'])
        self.pages[page.session] = page
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            page.call(f'{domain}.enable')
        page.screen(**screen)
        page.go(url)
        return page

    def _next(self, end: float) -> dict[str, Any] | None:
        """The next message, None when there is none in time."""
        while b'\0' not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                return None
            data = os.read(self._in, 1 << 20)
            assert data, 'the browser is gone'
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b'\0')
        found: dict[str, Any] = json.loads(message)
        return found

    def _event(self, event: dict[str, Any]) -> None:
        page = self.pages.get(event.get('sessionId', ''))
        if page is not None:
            page.event(event['method'], event['params'])


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self.session = session
        self.complaints: list[str] = []
        self.asked: list[str] = []  # URLs

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self.session, **params)

    def event(self, method: str, params: dict[str, Any]) -> None:
        if method == 'Runtime.exceptionThrown':
            self.complaints.append(json.dumps(params['exceptionDetails'])[:500])
        elif method == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'warning'):
            self.complaints.append(json.dumps(params['args'])[:500])
        elif method == 'Log.entryAdded' and params['entry']['level'] in ('error', 'warning'):
            self.complaints.append(f'{params["entry"]["text"]} {params["entry"].get("url", "")}')
        elif method == 'Network.requestWillBeSent':
            self.asked.append(params['request']['url'])

    def screen(
        self, width: int = 1280, height: int = 900, dark: bool = False, language: str = 'en'
    ) -> None:
        phone = width < 600
        self.call(
            'Emulation.setDeviceMetricsOverride',
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        features = [
            {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'},
            {'name': 'prefers-reduced-motion', 'value': 'reduce'},
        ]
        self.call('Emulation.setEmulatedMedia', features=features)
        agent = self._browser.call('Browser.getVersion')['userAgent']
        self.call('Emulation.setUserAgentOverride', userAgent=agent, acceptLanguage=language)

    def go(self, url: str) -> None:
        self.call('Page.navigate', url=url)
        self.wait('document.readyState === "complete"')

    def run(self, expression: str) -> Any:
        """The value of an expression, which may have to be waited for."""
        found = self.call(
            'Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True
        )
        assert 'exceptionDetails' not in found, found['exceptionDetails']
        return found['result'].get('value')

    def wait(self, expression: str) -> Any:
        """Until the expression is true; its value."""
        end = time.monotonic() + WAIT_TIME
        while True:
            try:
                value = self.run(expression)
            except AssertionError:
                value = None  # between two pages, or not there yet
            if value:
                return value
            if time.monotonic() > end:
                body = self.run('document.body.innerText')
                raise AssertionError(f'{expression} is not so; the page says:\n{body}')
            self._browser.listen(0.05)

    def see(self, text: str) -> None:
        """Wait for a text on the page."""
        self.wait(f'document.body.innerText.includes({json.dumps(text)})')

    def press(self, text: str, within: str = 'body') -> None:
        """Press the button or link that says `text`, with a real click."""
        spot = self.wait(
            f"""(() => {{
                const wanted = {json.dumps(text)}
                const name = (one) => one.getAttribute('aria-label') ?? one.innerText.trim()
                const found = [...document.querySelectorAll({json.dumps(within)})]
                  .flatMap((place) => [...place.querySelectorAll('button, a, summary')])
                  .find((one) => name(one) === wanted && !one.disabled && one.checkVisibility())
                if (!found) return null
                found.scrollIntoView({{ block: 'center' }})
                const box = found.getBoundingClientRect()
                return {{ x: box.x + box.width / 2, y: box.y + box.height / 2 }}
            }})()"""
        )
        for kind in ('mousePressed', 'mouseReleased'):
            self.call('Input.dispatchMouseEvent', type=kind, button='left', clickCount=1, **spot)

    def type(self, selector: str, text: str) -> None:
        """Put a text into a field in place of what is there."""
        self.wait(f'document.querySelector({json.dumps(selector)}) !== null')
        self.run(
            f'(() => {{ const one = document.querySelector({json.dumps(selector)});'
            ' one.focus(); one.select?.() })()'
        )
        self.call('Input.insertText', text=text)

    def key(self, name: str) -> None:
        text = '\r' if name == 'Enter' else ''
        for kind in ('keyDown', 'keyUp'):
            code = {'Enter': 13, 'Escape': 27, 'Tab': 9}[name]
            self.call(
                'Input.dispatchKeyEvent', type=kind, key=name, windowsVirtualKeyCode=code, text=text
            )

    def picture(self, path: Path, whole: bool = False) -> bytes:
        """A PNG, kept at `path`; of the whole page, however long, if wanted."""
        self._browser.listen(0.2)
        found = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=whole)
        data = base64.b64decode(found['data'])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    def wider(self) -> int:
        """Pixels by which the page is wider than the screen."""
        found: int = self.run('document.documentElement.scrollWidth - innerWidth')
        return found
