"""Settings, each declared once: name, kind, default, text, where it may change.

`declarations` lists them, `kinds` checks values, `yaml_file` reads a
configuration file, `effective` holds what is in force, `sample` writes the
annotated sample and the reference page from the declarations, `live` lays stored
changes over what is in force.
"""

from madmail.settings.effective import Settings
from madmail.settings.kinds import Address, SettingError
from madmail.settings.live import overlay
from madmail.settings.yaml_file import load

__all__ = ['Address', 'SettingError', 'Settings', 'load', 'overlay']
