"""With CI=true nothing may be skipped because a package is missing.

Where this machine has a relay, its user is not that of the tests.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import Any

import pytest

os.environ['MADMAIL_USER'] = 'root'
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup no shell of a test could trap it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Generator[None, Any, Any]:
    report = yield
    if (
        os.environ.get('CI') == 'true'
        and report.skipped
        and 'could not import' in str(report.longrepr)
    ):
        report.outcome = 'failed'
    return report
