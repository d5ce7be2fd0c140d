"""Changes made by the operator, kept as rows of the control database.

Rows of settings that apply on reload are part of a generation: the master lays
them over the file when it starts and reloads, and its children keep what they
were given.
"""

from __future__ import annotations

from collections.abc import Mapping

from madmail.settings.declarations import SETTINGS
from madmail.settings.effective import Settings, unknown
from madmail.settings.kinds import Wrong


def overlay(
    settings: Settings, rows: Mapping[str, str], *, generation: bool = False
) -> dict[str, str]:
    """Lay `rows` (name → text) over `settings`; what has no row goes back to file or default.

    Live settings only, or with `generation` those that apply on reload as well.
    The names of rows that cannot be used (unknown here, of the wrong kind, not fit
    beside the others), each with the reason, which does not quote the row.
    """
    unusable: dict[str, str] = {}
    live: dict[str, object] = {}
    if not generation:
        live = {name: v for name, v in settings.stored().items() if not SETTINGS[name].live}
    for name, text in rows.items():
        setting = SETTINGS.get(name)
        if setting is None:
            unusable[name] = unknown(name)
        elif not setting.storable:
            unusable[name] = f'{name} is set in the configuration file only'
        elif setting.live or generation:
            try:
                live[name] = setting.kind.parse(text)
            except Wrong as wrong:
                unusable[name] = f'{name}: expected {wrong}'
    return {**unusable, **settings.lay(live)}
