"""All resources of the admin API: resource → method → handler.

A family is a module with `RESOURCES`; a new one is added to FAMILIES.  Names
are exact; a family with many of one kind makes its dictionary from them.
After a change `python -m madmail.web.admin.reference` writes the reference
page, which has the first paragraph of each handler's docstring.
"""

from __future__ import annotations

from types import ModuleType

from madmail.web.admin import (
    accounts,
    bandwidth,
    blocklist,
    checks,
    configuration,
    endpoints,
    exchangers,
    federation,
    invitations,
    outbox,
    processes,
    proxy,
    registration,
    services,
    settings,
    shares,
    sizes,
    status,
    upkeep,
)
from madmail.web.admin.answer import Handler

FAMILIES: tuple[ModuleType, ...] = (
    accounts,
    bandwidth,
    blocklist,
    checks,
    configuration,
    endpoints,
    exchangers,
    federation,
    invitations,
    outbox,
    processes,
    proxy,
    registration,
    services,
    settings,
    shares,
    sizes,
    status,
    upkeep,
)


def resources(families: tuple[ModuleType, ...] = FAMILIES) -> dict[str, dict[str, Handler]]:
    """By name; two families never share a method of one."""
    found: dict[str, dict[str, Handler]] = {}
    for family in families:
        for name, methods in family.RESOURCES.items():
            known = found.setdefault(name, {})
            twice = known.keys() & methods.keys()
            assert not twice, f'{name} has two handlers for {twice}'
            known.update(methods)
    return found
