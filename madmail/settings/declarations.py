"""Every setting of the relay, each declared once.

The YAML loader, `Settings`, the sample configuration, the reference page and the CLI all come from
this list, which is declared in the modules named here.
"""

from __future__ import annotations

from madmail.settings import (
    declared_exchange,
    declared_host,
    declared_realtime,
    declared_users,
    declared_web,
)
from madmail.settings.declared_host import LISTENERS
from madmail.settings.setting import LIVE, RELOAD, RESTART, SECTIONS, SETTINGS, Applies, Setting

__all__ = ['LISTENERS', 'LIVE', 'RELOAD', 'RESTART', 'SECTIONS', 'SETTINGS', 'Applies', 'Setting']

DECLARED = (declared_host, declared_users, declared_exchange, declared_web, declared_realtime)

# In the order of their sections, in whatever order the modules came to be imported.
_SECTION = {name: index for index, name in enumerate(SECTIONS)}
_ORDERED = sorted(SETTINGS.values(), key=lambda setting: _SECTION[setting.section])
SETTINGS.clear()
SETTINGS.update((setting.name, setting) for setting in _ORDERED)
