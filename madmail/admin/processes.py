"""The processes of the relay: reload and restart."""

from __future__ import annotations

from madmail.admin.relay import Relay

RELOAD_TIME = 60.0  # seconds that somebody waits for a reload


def reload(relay: Relay, *, wait: bool = True) -> None:
    """Apply the configuration anew, as SIGHUP does; nobody is disconnected.

    Refused: busy (another one waits already), failed (everything stays as it was, and
    the text says why), unavailable.
    """
    request = {'command': 'reload', 'alone': True, 'wait': wait}
    relay.ask_master(request, timeout=RELOAD_TIME)


def restart(relay: Relay) -> None:
    """Stop gracefully and begin again.  Returns when that has begun."""
    relay.ask_master({'command': 'restart'})
