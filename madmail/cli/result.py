"""What commands return and raise, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from madmail.admin.refused import Refused, Word


class Failure(Refused):
    """The command could not be done; the text is for the operator.  Exit code 1."""

    def __init__(self, text: str, word: Word = 'failed') -> None:
        super().__init__(word, text)


class Declined(Exception):
    """The operator answered no.  Exit code 1."""


@dataclass
class Result:
    """`data` is the JSON form, `text` what people read ('' = nothing).

    `exit_code` is not 0 where the command was done and what it found is not good.
    """

    data: dict[str, Any] = field(default_factory=dict)
    text: str = ''
    message: str = ''
    exit_code: int = 0

    def as_json(self, command: str) -> str:
        answer: dict[str, Any] = {'ok': True, 'command': command}
        if self.message:
            answer['message'] = self.message
        answer['data'] = self.data
        return _line(answer)


def _line(answer: dict[str, Any]) -> str:
    return json.dumps(answer, ensure_ascii=False, separators=(',', ':'))


def failure_as_json(reason: str) -> str:
    return _line({'ok': False, 'error': reason})


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns; numbers to the right."""
    lines = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    numeric = [
        len(lines) > 1 and all(line[i].isdigit() for line in lines[1:]) for i in range(len(head))
    ]
    return '\n'.join(
        '  '.join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def counted(number: int, noun: str) -> str:
    """With the noun in its number: 1 rule, 2 rules."""
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def size(octets: int) -> str:
    """A size for people: 1.5 MB."""
    amount = float(octets)
    for unit in ('B', 'KB', 'MB', 'GB'):
        if amount < 1024:
            return f'{amount:.0f} {unit}' if unit == 'B' else f'{amount:.1f} {unit}'
        amount /= 1024
    return f'{amount:.1f} TB'


def duration(seconds: int) -> str:
    """A duration for people: 3d 4h."""
    parts: list[str] = []
    for unit, length in (('d', 86400), ('h', 3600), ('m', 60), ('s', 1)):
        if seconds >= length or (unit == 's' and not parts):
            parts.append(f'{seconds // length}{unit}')
            seconds %= length
    return ' '.join(parts[:2])
