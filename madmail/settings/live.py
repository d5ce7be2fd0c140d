"""Changes made by the operator, kept as rows of the control database.

Rows of settings that apply on reload are part of a generation: the master lays
them over the file when it starts and reloads, and its children keep what they
were given.
"""

from __future__ import annotations

from collections.abc import Mapping

from madmail.settings.declarations import SETTINGS
from madmail.settings.effective import Settings
from madmail.settings.kinds import SettingError


def overlay(settings: Settings, rows: Mapping[str, str], *, generation: bool = False) -> list[str]:
    """Lay `rows` (name → text) over `settings`; what has no row goes back to file or default.

    Live settings only, or with `generation` those that apply on reload as well.
    The names of rows that cannot be used: unknown here, of the wrong kind, or not
    fit beside the others.
    """
    for name, setting in SETTINGS.items():
        if name not in rows and settings.source(name) == 'live' and (setting.live or generation):
            settings.store(name, None)
    unusable = []
    for name, text in rows.items():
        known = SETTINGS.get(name)
        if known is not None and known.storable and not known.live and not generation:
            continue
        try:
            settings.store(name, text)
        except SettingError:
            unusable.append(name)
    return unusable
