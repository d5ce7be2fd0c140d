"""The annotated sample configuration and the reference page, made from the declarations.

`python -m madmail.settings.sample` writes both into the checkout; a test
holds the committed files to be the same.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from madmail.settings.declarations import SECTIONS, SETTINGS, Setting
from madmail.settings.effective import LOCAL_PORTS
from madmail.settings.kinds import Choice, Duration, Size

SAMPLE = Path('conf/madmail.yaml')
REFERENCE = Path('docs/reference/settings.md')

# what the sample says instead of the default, because everybody has to change it
EXAMPLES = {'domain': 'chat.example.org', 'state_dir': '/var/lib/madmail'}


def by_section() -> Iterator[tuple[str, list[Setting]]]:
    for section in SECTIONS:
        yield section, [s for s in SETTINGS.values() if s.section == section]


def sample(given: Mapping[str, object] = EXAMPLES) -> str:
    """A configuration file with every setting: `given` ones set, the others commented out."""
    lines = [
        '# madmail configuration. Made from the declarations of the settings',
        '# (python -m madmail.settings.sample). A line that begins with "#" and a key shows',
        '# the default. Sizes take K, M, G; durations s, m, h, d, w.',
        '',
    ]
    for section, settings in by_section():
        if section:
            lines += [f'## {part}' for part in textwrap.wrap(SECTIONS[section], 94)]
            lines.append(f'{section}:')
        for setting in settings:
            indent = '  ' if section else ''
            key = setting.name.rpartition('.')[2]
            for part in textwrap.wrap(_sentence(setting), 96 - len(indent)):
                lines.append(f'{indent}# {part}')
            if setting.name in given:
                value = setting.kind.check(given[setting.name])
                lines.append(f'{indent}{key}: {setting.kind.show(value)}')
            else:
                lines.append(f'{indent}#{key}: {setting.kind.show(setting.default)}')
            if not section:
                lines.append('')
        if section:
            lines.append('')
    return '\n'.join(lines).rstrip() + '\n'


def _sentence(setting: Setting) -> str:
    text = setting.doc
    if isinstance(setting.kind, Choice):
        text += f' One of: {", ".join(setting.kind.words)}.'
    return text


def reference() -> str:
    """docs/reference/settings.md."""
    lines = [
        '# Settings',
        '',
        'This page is made from the declarations in `madmail/settings/declarations.py`.',
        '',
        'The configuration file is YAML. A name with a dot is a key inside a section:',
        '`limits.send_burst` is',
        '',
        '```yaml',
        'limits:',
        '  send_burst: 10',
        '```',
        '',
        'Sizes are octets and take `K`, `M`, `G` (powers of 1024); durations are seconds and take',
        '`s`, `m`, `h`, `d`, `w`. A relative path is beside the configuration file. Unknown and',
        'repeated keys, and values of the wrong kind, are errors that name file, line and key.',
        '',
        'Without a configuration file the relay serves `localhost` from `./data` and listens on',
        '127.0.0.1: ' + ', '.join(f'{name} {port}' for name, port in LOCAL_PORTS.items()) + '.',
        '',
        '*Applies* says when a changed value takes effect: at once when changed in the running',
        'relay, on reload (`madmail reload`), or at the next start.',
        '',
    ]
    for section, settings in by_section():
        lines += [f'## {section or "Top level"}', '', SECTIONS[section].rstrip('.') + '.', '']
        lines += ['| name | kind | default | applies | |', '|---|---|---|---|---|']
        for setting in settings:
            lines.append(
                f'| `{setting.name}` | {_kind(setting)} | `{setting.kind.show(setting.default)}` '
                f'| {setting.applies.value} | {_cell(setting.doc)} |'
            )
        lines.append('')
    return '\n'.join(lines).rstrip() + '\n'


def _kind(setting: Setting) -> str:
    kind = setting.kind
    if isinstance(kind, Choice):
        return ', '.join(f'`{word}`' for word in kind.words)
    if setting.unit and not isinstance(kind, (Size, Duration)):
        return f'{kind.name} ({setting.unit})'
    return kind.name


def _cell(text: str) -> str:
    text = re.sub(r'(?<![\w`])(\S+@\S+\]|cert_file|key_file)', r'`\1`', text)
    return text.replace('|', '\\|')


def write(checkout: Path) -> None:
    """Write both files below `checkout`."""
    for path, text in ((SAMPLE, sample()), (REFERENCE, reference())):
        target = checkout / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    write(Path(__file__).resolve().parents[2])
