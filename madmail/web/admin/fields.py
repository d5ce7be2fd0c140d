"""Members of a request's body, checked: nothing else reaches an operation.

All raise Refused('invalid') with a text that names the member.  An empty or
blank text counts as absent, and so does null.
"""

from __future__ import annotations

from typing import Any

from madmail.admin.refused import Refused

LARGEST = 2**53  # what JavaScript can count to
TEXT_LIMIT = 4096  # characters


def text(
    body: dict[str, Any], name: str, default: str | None = None, limit: int = TEXT_LIMIT
) -> str:
    """A text without surrounding blanks; required unless there is a default."""
    value = body.get(name)
    if value is None:
        value = ''
    if not isinstance(value, str):
        raise Refused('invalid', f'{name} must be a text')
    if len(value) > limit:
        raise Refused('invalid', f'{name} is too long')
    if '\0' in value:
        raise Refused('invalid', f'{name} has a character that cannot be stored')
    value = value.strip()
    if value:
        return value
    if default is None:
        raise Refused('invalid', f'{name} is required')
    return default


def integer(
    body: dict[str, Any],
    name: str,
    default: int | None = None,
    *,
    least: int = -LARGEST,
    most: int = LARGEST,
) -> int:
    """A whole number; required unless there is a default."""
    value = body.get(name)
    if value is None:
        if default is None:
            raise Refused('invalid', f'{name} is required')
        return default
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST:
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        span = f' from {least} to {most}' if (least, most) != (-LARGEST, LARGEST) else ''
        raise Refused('invalid', f'{name} must be a whole number{span}')
    return value


def boolean(body: dict[str, Any], name: str, default: bool | None = None) -> bool:
    """true or false; required unless there is a default."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, bool):
        raise Refused('invalid', f'{name} must be true or false')
    return value


def action(body: dict[str, Any], *words: str) -> str:
    """The member `action`, one of `words`, in any case."""
    given = text(body, 'action').lower()
    if given not in words:
        raise Refused('invalid', f'action must be {" or ".join(words)}')
    return given


def switch(body: dict[str, Any]) -> bool:
    """The action of a switch: enable (True) or disable."""
    return action(body, 'enable', 'disable') == 'enable'
