"""With CI=true nothing may be skipped because a package is missing.

Where this machine has a relay, its user is not that of the tests.

No property has a deadline: a machine that is busy is no counterexample.  With
--hypothesis-profile=ci the examples are the same every time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

os.environ['MADMAIL_USER'] = 'root'
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup no shell of a test could trap it

settings.register_profile('relay', deadline=None)
settings.register_profile('ci', deadline=None, derandomize=True, database=None)
settings.load_profile('relay')


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
