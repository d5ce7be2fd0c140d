"""Reading a configuration file (YAML) so that every mistake is told with file, line and key.

The file is only composed to nodes, never constructed to objects: nodes know
their line, plain and quoted scalars stay apart, duplicate keys can be seen,
and YAML's own guesses (`off` = false, `1:20` = 80) do not apply.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from madmail.settings.declarations import SECTIONS, SETTINGS, Setting
from madmail.settings.effective import Settings, unknown
from madmail.settings.kinds import SettingError, Wrong

_PATHS = ('state_dir', 'tls.cert_file', 'tls.key_file')
_LARGEST = 1024 * 1024  # octets of a configuration file


def load(path: Path) -> Settings:
    """The settings of `path`.  Raises SettingError: `FILE:LINE: KEY: expected …, found …`."""
    path = path.absolute()
    try:
        with path.open('rb') as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise SettingError(f'{path}: cannot be read: {error.strerror}') from None
    if len(data) > _LARGEST:
        raise SettingError(f'{path}: expected at most {_LARGEST} octets')
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise SettingError(f'{path}:{line}: expected UTF-8 text') from None
    return _Reader(path).read(text)


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.given: dict[str, object] = {}
        self.lines: dict[str, int] = {}

    def fail(self, line: int, problem: str) -> SettingError:
        return SettingError(f'{self.path}:{line}: {problem}')

    def read(self, text: str) -> Settings:
        try:
            root = yaml.compose(text, yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = ', '.join(filter(None, [error.context, error.problem]))
            raise self.fail(mark.line + 1 if mark else 1, f'not YAML: {problem}') from None
        except yaml.YAMLError as error:
            raise self.fail(1, f'not YAML: {str(error).splitlines()[0]}') from None
        except RecursionError:
            raise self.fail(1, 'not YAML: nested too deeply') from None
        if root is not None and not _empty(root):
            self.section('', root)
        settings = self.together()
        settings.origin = self.path
        return settings

    def section(self, section: str, node: yaml.Node) -> None:
        if not isinstance(node, yaml.MappingNode):
            what = section or 'the file'
            raise self.fail(
                _line(node), f'{what}: expected settings as key: value, found {_found(node)}'
            )
        for key_node, value in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise self.fail(_line(key_node), 'expected a plain key')
            name = f'{section}.{key}' if section else key
            if name in self.lines:
                raise self.fail(
                    _line(key_node), f'{name}: given twice, first in line {self.lines[name]}'
                )
            self.lines[name] = _line(key_node)
            if name in SETTINGS:
                self.given[name] = self.value(SETTINGS[name], value)
            elif not section and name in SECTIONS:
                if not _empty(value):
                    self.section(name, value)
            else:
                raise self.fail(_line(key_node), unknown(name))

    def value(self, setting: Setting, node: yaml.Node) -> object:
        kind = setting.kind
        try:
            if kind.many and isinstance(node, yaml.SequenceNode):
                parts = []
                for item in node.value:
                    if not isinstance(item, yaml.ScalarNode) or _empty(item):
                        raise self.wrong(setting, item, kind.expected)
                    kind.parse(item.value)
                    parts.append(item.value)
                return kind.check(parts)
            if kind.bracketed and isinstance(node, yaml.SequenceNode) and len(node.value) == 1:
                node = node.value[0]
            if not isinstance(node, yaml.ScalarNode):
                raise self.wrong(setting, node, kind.expected)
            if _empty(node) or (node.style in ('"', "'") and not kind.quotable):
                raise self.wrong(setting, node, kind.expected)
            text = node.value
            if setting.name in _PATHS and text:
                text = str(self.path.parent / Path(text).expanduser())
            if setting.name == 'log' and '/' in text:
                text = str(self.path.parent / Path(text).expanduser())
            return kind.parse(text)
        except Wrong as wrong:
            raise self.wrong(setting, node, str(wrong)) from None

    def wrong(self, setting: Setting, node: yaml.Node, expected: str) -> SettingError:
        return self.fail(_line(node), f'{setting.name}: expected {expected}, found {_found(node)}')

    def together(self) -> Settings:
        try:
            return Settings(self.given)
        except SettingError as error:
            name = str(error).partition(':')[0]
            line = self.lines.get(name) or self.lines.get(name.partition('.')[0]) or 1
            raise self.fail(line, str(error)) from None


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1


def _empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == 'tag:yaml.org,2002:null'


def _found(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return 'a section'
    if isinstance(node, yaml.SequenceNode):
        return 'a list'
    if _empty(node):
        return 'nothing'
    text = node.value if len(node.value) <= 60 else node.value[:57] + '…'
    return f'the text {text!r}' if node.style in ('"', "'") else repr(text)
