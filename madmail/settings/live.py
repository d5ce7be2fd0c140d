"""Changes made while the relay runs, kept as rows of the control database."""

from __future__ import annotations

from collections.abc import Mapping

from madmail.settings.declarations import SETTINGS
from madmail.settings.effective import Settings
from madmail.settings.kinds import SettingError


def overlay(settings: Settings, rows: Mapping[str, str]) -> list[str]:
    """Lay `rows` (name → text) over `settings`; what has no row goes back to file or default.

    The names of rows that cannot be used: unknown here, not live, or of the wrong kind.
    """
    unusable = []
    for name, setting in SETTINGS.items():
        if setting.live and name not in rows and settings.source(name) == 'live':
            settings.change(name, None)
    for name, text in rows.items():
        try:
            settings.change(name, text)
        except SettingError:
            unusable.append(name)
    return unusable
