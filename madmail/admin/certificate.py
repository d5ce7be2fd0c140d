"""The relay's certificate: what it is, getting another one, and having it renewed."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from madmail.admin import settings as settings_of
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.tls import acme, acme_schedule
from madmail.tls.brief import BUSY, ORDER_TIME, TOPIC, Wish
from madmail.tls.certificate import Missing, describe
from madmail.tls.files import DIRECTORY

DAY = 86_400
NOTICED = 60.0  # seconds in which a running relay begins; name servers may be slow
TURN = 0.2  # seconds between two looks at how far it is
TASK = ('renew-certificate', 'renew-cert', 'certificate-renew', 'cert-renew')


def status(relay: Relay) -> dict[str, Any]:
    """The certificate in use.

    `present` False where it cannot be read, with `reason`; in mode acme also `renewal`,
    see `renewal`.
    """
    data: dict[str, Any] = {'domain': relay.settings['domain']}
    try:
        told = describe(relay.settings, relay.state_dir)
    except Missing as missing:
        data |= {
            'present': False,
            'tls_management': relay.settings['tls.mode'],
            'reason': str(missing),
        }
    else:
        left = told['not_after'] - int(time.time())
        data |= {
            **told,
            'present': True,
            'days_remaining': left // DAY,
            'status': 'valid' if left > 0 else 'expired',
        }
    if relay.settings['tls.mode'] == 'acme':
        data['renewal'] = renewal(relay)
    return data


def renewal(relay: Relay) -> dict[str, Any]:
    """What is known of orders: times in Unix seconds, None where there is none.

    `issued` says whether there is a certificate of an authority; until then the relay
    serves its own.  `renew_at` is when it is due, `next_try` when a failed try is repeated.
    """
    return {'directory': relay.settings['tls.acme_directory'], **orders(relay.state_dir)}


def orders(state_dir: Path) -> dict[str, Any]:
    """`renewal` of the relay with this state directory, without the authority."""
    directory = state_dir / DIRECTORY
    state, held = acme.load(directory), acme.held(directory)
    renew_at = None
    if held is not None:
        suggested = state.renew_at if state.renew_for == held.digest else 0
        renew_at = acme_schedule.renewal(held.not_before, held.not_after, suggested)
    return {
        'issued': held is not None,
        'last_try': state.began or None,
        'last_success': state.obtained or None,
        'renew_at': renew_at,
        'next_try': acme_schedule.repeated(state, int(time.time())) or None,
        'failures': state.failures,
        'error': state.error or None,
        'error_type': state.word or None,
        'left_out': acme_schedule.left_out(state, int(time.time())),
    }


def get(
    relay: Relay,
    *,
    force: bool = False,
    new_key: bool = False,
    trial: bool = False,
    listeners: Callable[[], Sequence[socket.socket]] = tuple,
    patience: float = ORDER_TIME,
) -> dict[str, Any]:
    """Have a certificate issued, if it is due or with `force`; waits for the outcome.

    `action` is issued, kept (none is due), tested (a `trial`: the certificate is thrown
    away) or started (not done within `patience` seconds).  A relay that does not run gets
    it on `listeners`.  Refused: invalid (another mode), busy, failed (with the reason).
    """
    if relay.settings['tls.mode'] != 'acme':
        raise Refused(
            'invalid',
            f'tls.mode is {relay.settings["tls.mode"]}: no authority is asked; '
            'see "madmail certificate autocert enable"',
        )
    directory = relay.state_dir / DIRECTORY
    data = {'domain': relay.settings['domain']}
    now = int(time.time())
    before, held = acme.load(directory), acme.held(directory)
    if not force and not trial:
        # What a look at the names would add, the relay does by itself.
        suggested = before.renew_at if held and before.renew_for == held.digest else 0
        if held and now < acme_schedule.renewal(held.not_before, held.not_after, suggested):
            return {**data, 'action': 'kept'}
    if (when := acme_schedule.allowed(before, now)) > now:
        raise Refused(
            'busy',
            f'there were {acme_schedule.HOURLY} tries within an hour, and authorities lock out '
            f'who asks too often; the next may be made in {(when - now) // 60 + 1} minutes',
        )
    wish = Wish(secrets.token_hex(8), force=force, new_key=new_key, trial=trial)
    done = _ask(relay, wish, patience) if relay.running else _order(relay, wish, listeners)
    if not done:
        return {**data, 'action': 'started'}
    state = acme.load(directory)
    if state.error:
        raise Refused('failed', state.error)
    if trial:
        return {**data, 'action': 'tested'}
    return {**data, 'action': 'kept' if acme.held(directory) == held else 'issued'}


def _ask(relay: Relay, wish: Wish, patience: float) -> bool:
    """Let the running relay order; False if that takes longer."""
    directory = relay.state_dir / DIRECTORY
    deadline = time.monotonic() + patience
    noticed = time.monotonic() + NOTICED
    relay.publish(TOPIC, wish._asdict())
    while time.monotonic() < deadline:
        state = acme.load(directory)
        if state.request == wish.request:
            if state.ended:
                return True
        elif time.monotonic() > noticed and not _under_way(relay):
            raise Refused('unavailable', 'the relay does not order; see its log')
        time.sleep(TURN)
    return False


def _under_way(relay: Relay) -> bool:
    try:
        with acme.lock(relay.state_dir / DIRECTORY):
            return False
    except acme.Busy:
        return True


def load() -> None:
    """Load what an order needs where no relay runs.

    That takes a while, and few commands need it; and who gives up the rights of root does
    it before, for it may not be able to read it later.
    """
    import madmail.tls.renewal  # noqa: F401


def _order(relay: Relay, wish: Wish, listeners: Callable[[], Sequence[socket.socket]]) -> bool:
    """Order in place of a relay that does not run."""
    from madmail.delivery.dns import Resolver
    from madmail.tls.renewal import Errand

    resolver = Resolver.configured(relay.settings)
    errand = Errand(relay.settings, relay.state_dir, resolver)
    names = errand.names()
    if names.trouble:
        raise Refused('failed', names.trouble)
    process = errand.brief(names, wish).start(listeners())
    try:
        exit_status = process.wait(ORDER_TIME)
    except subprocess.TimeoutExpired:
        process.terminate()
        exit_status = process.wait()
    if exit_status == BUSY:
        raise Refused('busy', 'another order is under way')
    if exit_status:
        raise Refused('failed', f'the process that orders ended with status {exit_status}')
    return True


def enable(relay: Relay, email: str = '', *, staging: bool = False) -> None:
    """Have certificates issued from now on.  Refused: invalid, failed, busy."""
    found = relay.settings
    if email and email != found['tls.acme_email']:
        settings_of.write(relay, 'tls.acme_email', email)
    chosen = found['tls.acme_directory']
    if staging != (chosen == 'staging') and (staging or chosen == 'staging'):
        settings_of.write(relay, 'tls.acme_directory', 'staging' if staging else 'letsencrypt')
    if found['tls.mode'] != 'acme':
        settings_of.write(relay, 'tls.mode', 'acme')


def autocert(relay: Relay) -> dict[str, Any]:
    """Whether certificates are issued and renewed, and how that goes."""
    mode = relay.settings['tls.mode']
    if mode != 'acme':
        return {'enabled': False, 'tls_mode': mode}
    told = status(relay)
    data = {
        'enabled': True,
        'domain': told['domain'],
        'acme_email': relay.settings['tls.acme_email'],
        'present': told['renewal']['issued'],
        **told['renewal'],
    }
    if told['renewal']['issued']:
        left = told['not_after'] - told['renewal']['renew_at']
        data |= {
            'issuer': told['issuer'],
            'not_after': told['not_after'],
            'days_remaining': told['days_remaining'],
            'renew_within_days': left // DAY,
        }
    return data


def run_task(
    relay: Relay, *, dry_run: bool = False, patience: float | None = None
) -> dict[str, Any]:
    """The task `renew-certificate`: renew if it is due.  Refused as in `get`."""
    data: dict[str, Any] = {'task': TASK[0], 'skipped': False, 'renewed': False, 'detail': ''}
    if relay.settings['tls.mode'] != 'acme':
        return {**data, 'skipped': True, 'detail': f'tls.mode: {relay.settings["tls.mode"]}'}
    if dry_run:
        at = renewal(relay)['renew_at']
        due = at is None or at <= time.time()
        return {**data, 'skipped': True, 'detail': 'due' if due else 'not due yet'}
    action = get(relay, patience=ORDER_TIME if patience is None else patience)['action']
    detail = {'kept': 'not due yet', 'started': 'under way', 'issued': 'renewed'}[action]
    return {**data, 'renewed': action == 'issued', 'detail': detail}
