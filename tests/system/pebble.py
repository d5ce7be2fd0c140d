"""Pebble, the ACME server for tests, on ports of its own; ended by process id."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import requests

from tests.system.relay import free_ports
from tests.tls.authority import Authority

PROGRAM = shutil.which('pebble')


class Pebble:
    """One server: `url` of its directory, `root` that vouches for the server itself.

    It resolves names at `name_server` and looks for challenges at `http_port`.  With
    `accounts` only those may register, by id and key (external account binding).  What it
    issues lasts `life` seconds, 0 = years.
    """

    def __init__(
        self,
        directory: Path,
        name_server: str,
        http_port: int,
        *,
        environment: dict[str, str] | None = None,
        accounts: dict[str, str] | None = None,
        life: int = 0,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.port, self.management = free_ports(2)
        authority = Authority(directory)
        self.root = authority.root
        files = authority.issue('127.0.0.1')
        self.url = f'https://127.0.0.1:{self.port}/dir'
        told: dict[str, Any] = {
            'listenAddress': f'127.0.0.1:{self.port}',
            'managementListenAddress': f'127.0.0.1:{self.management}',
            'certificate': str(files.certificate),
            'privateKey': str(files.key),
            'httpPort': http_port,
            'tlsPort': 1,
            'ocspResponderURL': '',
            'externalAccountBindingRequired': accounts is not None,
            'externalAccountMACKeys': accounts or {},
        }
        if life:
            told['certificateValidityPeriod'] = life
        (directory / 'pebble.json').write_text(json.dumps({'pebble': told}))
        self._command = [
            str(PROGRAM),
            '-strict',
            '-config',
            str(directory / 'pebble.json'),
            '-dnsserver',
            name_server,
        ]
        self._environment = {
            **os.environ,
            'PEBBLE_VA_NOSLEEP': '1',
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Pebble:
        with (self._directory / 'output.txt').open('ab') as output:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=output, stderr=output
            )
        end = time.monotonic() + 20
        while True:
            try:
                requests.get(self.url, verify=str(self.root), timeout=2)
                return self
            except requests.RequestException:
                if time.monotonic() > end or self._process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Pebble:
        return self if self._process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def issuer(self) -> bytes:
        """The root of what it issues."""
        answer = requests.get(
            f'https://127.0.0.1:{self.management}/roots/0', verify=str(self.root), timeout=5
        )
        return answer.content

    def output(self) -> str:
        return (self._directory / 'output.txt').read_text()
