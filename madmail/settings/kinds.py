"""The kinds of value a setting may have: how each is written, checked and shown.

A kind's `parse` takes the text an operator wrote (a scalar of the YAML file, a
settings row, a word on the command line), `check` takes a Python value.  Both
return the effective value or raise `Wrong` with what was expected instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, NamedTuple


class SettingError(Exception):
    """The configuration cannot be used; the text says where, which key, and why."""


class Wrong(Exception):
    """A value does not fit; the text completes "expected …"."""


class Address(NamedTuple):
    """Where a listener binds.  `str()` gives host:port, IPv6 hosts in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f'[{self.host}]:{self.port}' if ':' in self.host else f'{self.host}:{self.port}'


class Kind:
    """Base of the kinds."""

    name = 'text'
    expected = 'a text'
    quotable = True  # may the YAML scalar stand in quotes
    many = False  # may the YAML value be a list
    bracketed = False  # may `[value]`, which is a list to YAML, stand for itself

    def parse(self, text: str) -> object:
        return self.check(text)

    def check(self, value: object) -> object:
        if not isinstance(value, str):
            raise Wrong(self.expected)
        return value

    def show(self, value: object) -> str:
        """The value as an operator writes it in YAML."""
        text = str(value)
        if text == '' or not re.fullmatch(r'[A-Za-z0-9./][\w./:@+-]*', text):
            return "'" + text.replace("'", "''") + "'"
        return text

    def plain(self, value: object) -> str:
        """The value as `parse` takes it."""
        if value is None or isinstance(value, str):
            return str(value or '')
        if isinstance(value, tuple):
            return ', '.join(map(str, value))
        return self.show(value)


class Text(Kind):
    """One line of text."""

    expected = 'one line of text'

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not value.isprintable():
            raise Wrong(self.expected)
        return value


class Boolean(Kind):
    name = 'boolean'
    expected = 'true or false'
    quotable = False
    WORDS: ClassVar = {
        'true': True,
        'yes': True,
        'on': True,
        'false': False,
        'no': False,
        'off': False,
    }

    def parse(self, text: str) -> object:
        try:
            return self.WORDS[text.lower()]
        except KeyError:
            raise Wrong(self.expected) from None

    def check(self, value: object) -> object:
        if not isinstance(value, bool):
            raise Wrong(self.expected)
        return value

    def show(self, value: object) -> str:
        return 'true' if value else 'false'


class BooleanOrAuto(Boolean):
    """A switch that the operator may leave alone: True, False, or the word 'auto'."""

    name = 'boolean or auto'
    expected = 'true, false or auto'

    def parse(self, text: str) -> object:
        return text.lower() if text.lower() == 'auto' else super().parse(text)

    def check(self, value: object) -> object:
        return value if value == 'auto' else super().check(value)

    def show(self, value: object) -> str:
        return 'auto' if value == 'auto' else super().show(value)


class Integer(Kind):
    name = 'integer'
    quotable = False
    word: str | None = None  # a word that is allowed instead of a number

    def __init__(self, least: int = 0, most: int = 2**53) -> None:
        self.least, self.most = least, most

    @property
    def expected(self) -> str:  # type: ignore[override]
        most = f' to {self.most}' if self.most < 2**53 else ' or more'
        return f'a whole number, {self.least}{most}'

    def parse(self, text: str) -> object:
        if not re.fullmatch(r'-?[0-9]{1,16}', text):
            raise Wrong(self.expected)
        return self.check(int(text))

    def check(self, value: object) -> object:
        if type(value) is not int or not self.least <= value <= self.most:
            raise Wrong(self.expected)
        return value


class CountOrAuto(Integer):
    """A number of processes, or `auto` (kept as 0)."""

    name = 'integer or auto'

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f'a whole number, {self.least} to {self.most}, or auto'

    def parse(self, text: str) -> object:
        return 0 if text == 'auto' else super().parse(text)

    def check(self, value: object) -> object:
        if value == 'auto' or (value == 0 and type(value) is int):
            return 0
        return super().check(value)

    def show(self, value: object) -> str:
        return str(value or 'auto')


class Size(Integer):
    """Octets; K, M and G are powers of 1024."""

    name = 'size'
    UNITS: ClassVar = {'': 1, 'k': 1024, 'm': 1024**2, 'g': 1024**3, 't': 1024**4}

    @property
    def expected(self) -> str:  # type: ignore[override]
        least = f', {self.show(self.least)} or more' if self.least else ''
        return f'a size such as 30M, 500K or a number of octets{least}'

    def parse(self, text: str) -> object:
        match = re.fullmatch(r'([0-9]{1,15}) ?([kmgt]?)(?:i?b)?', text.lower())
        if not match:
            raise Wrong(self.expected)
        return self.check(int(match[1]) * self.UNITS[match[2]])

    def check(self, value: object) -> object:
        return self.parse(value) if isinstance(value, str) else super().check(value)

    def show(self, value: object) -> str:
        number = int(str(value))
        for unit in 'TGMK':
            factor = self.UNITS[unit.lower()]
            if number and number % factor == 0:
                return f'{number // factor}{unit}'
        return str(number)


class Duration(Integer):
    """Seconds; s, m, h, d and w are understood."""

    name = 'duration'
    UNITS: ClassVar = {'': 1, 's': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}

    @property
    def expected(self) -> str:  # type: ignore[override]
        least = f', {self.show(self.least)} or more' if self.least else ''
        most = f', at most {self.show(self.most)}' if self.most < 2**53 else ''
        return f'a duration such as 30s, 5m, 2h, 20d or a number of seconds{least}{most}'

    def parse(self, text: str) -> object:
        match = re.fullmatch(r'([0-9]{1,12}) ?([smhdw]?)', text.lower())
        if not match:
            raise Wrong(self.expected)
        return self.check(int(match[1]) * self.UNITS[match[2]])

    def check(self, value: object) -> object:
        return self.parse(value) if isinstance(value, str) else super().check(value)

    def show(self, value: object) -> str:
        number = int(str(value))
        for unit in 'dhm':
            factor = self.UNITS[unit]
            if number and number % factor == 0:
                return f'{number // factor}{unit}'
        return f'{number}s' if number else '0'


class Age(Duration):
    """Seconds after which something goes; `off` (kept as 0) means never."""

    name = 'duration or off'

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f'{super().expected}, or off'

    def parse(self, text: str) -> object:
        return 0 if text.lower() in ('off', 'never') else super().parse(text)

    def check(self, value: object) -> object:
        # YAML reads off as false.
        if value is False or (type(value) is int and value == 0):
            return 0
        return super().check(value)

    def show(self, value: object) -> str:
        return super().show(value) if value else 'off'


class Choice(Kind):
    name = 'choice'

    def __init__(self, *words: str) -> None:
        self.words = words

    @property
    def expected(self) -> str:  # type: ignore[override]
        return ' or '.join(filter(None, [', '.join(self.words[:-1]), self.words[-1]]))

    def check(self, value: object) -> object:
        if value not in self.words:
            raise Wrong(self.expected)
        return value


class FilePath(Kind):
    """A path, as `Path`; '' is None.  In a file, relative ones are beside that file."""

    name = 'path'
    expected = 'a path'

    def check(self, value: object) -> object:
        if isinstance(value, Path):
            return value
        if not isinstance(value, str) or '\0' in value:
            raise Wrong(self.expected)
        return Path(value).expanduser() if value else None

    def show(self, value: object) -> str:
        return super().show('' if value is None else str(value))


class RequiredPath(FilePath):
    expected = 'the path of a directory'

    def check(self, value: object) -> object:
        path = super().check(value)
        if path is None:
            raise Wrong(self.expected)
        return path


class LogTarget(Kind):
    name = 'log target'
    expected = 'off, stderr or the path of a file'

    def check(self, value: object) -> object:
        if value is False:
            return 'off'
        if not isinstance(value, str) or not value or '\0' in value:
            raise Wrong(self.expected)
        if value.lower() in ('off', 'false', 'no'):
            return 'off'
        if value != 'stderr' and '/' not in value:
            raise Wrong(self.expected)
        return value


class Selector(Kind):
    """A DKIM selector: labels of a DNS name (RFC 6376 3.1)."""

    name = 'selector'
    expected = 'letters, digits, hyphens and dots, at most 50'
    LABELS = re.compile(r'(?=.{1,50}\Z)(?!-)[a-z0-9-]+(?<!-)(?:\.(?!-)[a-z0-9-]+(?<!-))*')

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not self.LABELS.fullmatch(value.lower()):
            raise Wrong(self.expected)
        return value.lower()
