"""With CI=true nothing may be skipped because a package is missing."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest


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
