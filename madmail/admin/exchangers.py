"""Exchangers: relays with which mail is exchanged in other ways (`delivery.exchanger`)."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from madmail.account import bearer
from madmail.account.address import is_local
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.delivery.destination import parked
from madmail.delivery.exchanger import (
    DOMAINS_LIMIT,
    EVERY,
    INTERVAL,
    LEAST_INTERVAL,
    LIMIT,
    MODES,
    MOST_INTERVAL,
    NAME_LIMIT,
    PROTOCOLS,
    TOKEN_LEAST,
    TOKEN_MOST,
    BadUrl,
    Exchangers,
    place,
    token_key,
)
from madmail.delivery.federation import BadDomain, key, matcher, trusts_names
from madmail.store.exchangers import Exchanger

_NAME = re.compile(rf'[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_LIMIT - 1}}}')
_TOKEN = re.compile(r'[!-~]+')
POLL_TIME = 90.0  # seconds that a poll is waited for
LOOK = 0.1  # seconds between two looks whether it has ended


def entries(relay: Relay) -> list[dict[str, Any]]:
    """In order of name."""
    return [_entry(one) for one in relay.control.exchangers()]


def get(relay: Relay, name: str) -> dict[str, Any]:
    """Refused: missing."""
    return _entry(_row(relay, name))


def add(relay: Relay, name: str, url: str = '', **options: Any) -> dict[str, Any]:
    """A new exchanger, enabled; the entry, with `pull_token` if one was made.

    Options as for `update`.  Without a word about it, mail is fetched where there
    is a URL, in dialect b with a token and in a without.  An exchanger that may fetch
    (mode pull or both, with domains) and was given no token for that gets one, which
    is told once.  Refused: invalid, exists, forbidden.
    """
    name = _named(name)
    if relay.control.exchanger(name) is not None:
        raise Refused('exists', f'there is an exchanger {name} already')
    if len(relay.control.exchangers()) >= LIMIT:
        raise Refused('forbidden', f'there are {LIMIT} exchangers already')
    now = int(time.time())
    given = {option: value for option, value in options.items() if value is not None}
    given.setdefault('polls', bool(url) and not given.get('domains'))
    given.setdefault('protocol', 'b' if given.get('token') else 'a')
    blank = Exchanger(
        name, '', True, False, INTERVAL, 'a', '', (), (), 'push', False, b'', None, now, now
    )
    row, token = _changed(relay, blank, {'url': url, **given})
    return _put(relay, row, token)


def set_(relay: Relay, name: str, url: str, poll_interval: int = INTERVAL) -> dict[str, Any]:
    """New, or URL and interval of the one there is: what older panels expect of POST.

    Refused: invalid.
    """
    if relay.control.exchanger(_named(name)) is None:
        if not url.strip():
            raise Refused('invalid', 'url is required')
        return add(relay, name, url, poll_interval=poll_interval)
    return update(relay, name, url=url, poll_interval=poll_interval)


def update(relay: Relay, name: str, **options: Any) -> dict[str, Any]:
    """Change what is given and not None; the entry, with `pull_token` if one was made.

        url, enabled
        poll_interval   seconds between two polls
        polls           fetch mail there
        protocol        'a' or 'b', in which it is fetched
        token           with which it is fetched; '' = none
        fetches         domains whose mail is fetched; none = ours, '*' = all it has for us
        domains         domains whose mail goes by it, '*' = all others
        mode            'push', 'pull' or 'both': how
        carries         take mail for `domains` from everybody
        pull_token      with which it may fetch; '' = a new one is made
        verify          its certificate; 'auto' = as for any host

    Refused: invalid, missing.
    """
    row = _row(relay, name)
    given = {option: value for option, value in options.items() if value is not None}
    row, token = _changed(relay, row, given)
    return _put(relay, row._replace(updated=int(time.time())), token)


def enable(relay: Relay, name: str, on: bool) -> dict[str, Any]:
    """Refused: missing."""
    return update(relay, name, enabled=on)


def remove(relay: Relay, name: str) -> str:
    """Mail that waited for it goes other ways from now on.  Refused: missing."""
    row = _row(relay, name)
    before = _view(relay)
    relay.control.remove_exchanger(row.name)
    relay.publish('federation', {})
    _release(relay, before)
    return row.name


def poll(relay: Relay, name: str) -> dict[str, Any]:
    """Fetch now and wait for what becomes of it; the entry.

    Refused: missing, invalid (it is not polled), unavailable.
    """
    row = _row(relay, name)
    if not row.polls or not row.enabled:
        raise Refused('invalid', f'{row.name} is not polled, or not enabled')
    if not relay.running:
        raise Refused('unavailable', 'the relay does not run')
    # Times are whole seconds: what begins after this one has been asked for.
    asked = time.time()
    time.sleep(int(asked) + 1 - asked)
    relay.ask_master({'command': 'publish', 'topic': 'exchanger', 'data': {'poll': row.name}})
    deadline = time.monotonic() + POLL_TIME
    while time.monotonic() < deadline:
        row = _row(relay, name)
        if row.last_poll_at > asked:
            return _entry(row)
        time.sleep(LOOK)
    raise Refused('unavailable', 'the poll takes too long; status tells what became of it')


def status(relay: Relay) -> dict[str, Any]:
    """Each exchanger with what waits for it: `exchangers`, and `waiting` in all."""
    rows = relay.control.exchangers()
    view = _view(relay)
    waiting: dict[str, int] = {}
    for domain, count in _present(relay).items():
        way = view.via(domain)
        if way is not None:
            waiting[way.name] = waiting.get(way.name, 0) + count
    found = [{**_entry(row), 'waiting': waiting.get(row.name, 0)} for row in rows]
    return {'exchangers': found, 'waiting': sum(waiting.values())}


# -- inside


def _row(relay: Relay, name: str) -> Exchanger:
    row = relay.control.exchanger(_named(name))
    if row is None:
        raise Refused('missing', f'there is no exchanger {name.strip()}')
    return row


def _named(name: str) -> str:
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise Refused(
            'invalid', f'a name has letters, digits, . _ and -, at most {NAME_LIMIT} of them'
        )
    return name


def _changed(relay: Relay, row: Exchanger, given: dict[str, Any]) -> tuple[Exchanger, str]:
    """The row with what is given, checked, and the token that was made."""
    unknown = given.keys() - set(_READERS) - {'pull_token'}
    if unknown:
        raise Refused('invalid', f'unknown: {", ".join(sorted(unknown))}')
    fields = {name: reader(given[name]) for name, reader in _READERS.items() if name in given}
    row = row._replace(**fields)
    made = ''
    may_fetch = bool(row.domains) and row.mode != 'push'
    if not may_fetch:
        row = row._replace(pull_key=b'')
        if given.get('pull_token'):
            raise Refused('invalid', 'it fetches nothing: that needs domains and mode pull or both')
    elif 'pull_token' in given or not row.pull_key:
        token = given.get('pull_token') or ''
        if not token:
            token = made = bearer.fresh(24)
        row = row._replace(pull_key=token_key(_token(token)))
    _sensible(relay, row)
    return row, made


def _sensible(relay: Relay, row: Exchanger) -> None:
    """Refuse what cannot work, or would do harm."""
    if row.polls and not row.url:
        raise Refused('invalid', 'a URL is required to fetch mail')
    if row.domains and row.mode != 'pull' and not row.url:
        raise Refused('invalid', f'a URL is required for mode {row.mode}')
    if not row.url and not row.domains:
        raise Refused('invalid', 'an exchanger has a URL, domains, or both')
    if row.carries and (not row.domains or EVERY in row.domains):
        raise Refused('invalid', 'mail is taken from everybody for domains that are named only')
    if row.protocol == 'b' and row.polls and not row.token:
        raise Refused('invalid', 'dialect b needs a token')
    if row.protocol == 'a' and row.fetches:
        raise Refused('invalid', 'dialect a fetches whatever there is, not the mail of a domain')
    if any(is_local(domain, relay.domain) for domain in row.domains):
        raise Refused('invalid', 'mail for our own domain stays here')
    for other in relay.control.exchangers():
        if other.name == row.name:
            continue
        if twice := set(other.domains) & set(row.domains):
            raise Refused('exists', f'{min(twice)} goes by {other.name} already')
        if row.pull_key and other.pull_key == row.pull_key:
            raise Refused('exists', 'another exchanger has this token')


def _put(relay: Relay, row: Exchanger, token: str) -> dict[str, Any]:
    before = _view(relay)
    relay.control.set_exchanger(row)
    relay.publish('federation', {})
    _release(relay, before)
    entry = get(relay, row.name)
    return {**entry, 'pull_token': token} if token else entry


def _view(relay: Relay) -> Exchangers:
    return Exchangers(relay.control.exchangers(), matcher)


def _present(relay: Relay) -> dict[str, int]:
    """Messages that wait, by destination."""
    waiting: dict[str, int] = {}
    for shard in range(relay.shards):
        for domain, count in relay.call_shard(shard, 'outbox_count').items():
            if not parked(domain):
                waiting[domain] = waiting.get(domain, 0) + count
    return waiting


def _release(relay: Relay, before: Exchangers) -> None:
    """Send what has waited to be fetched and need not any more."""
    now = _view(relay)
    if not any(row.mode == 'pull' for row in before.rows):
        return
    free = [one for one in _present(relay) if before.waits(one) and not now.waits(one)]
    for domain in free:
        for shard in range(relay.shards):
            relay.call_shard(shard, 'outbox_hasten', domain=domain)
    if free:
        relay.publish('outbox', {})


# -- values


def _url(value: object) -> str:
    if not isinstance(value, str):
        raise Refused('invalid', 'url must be a text')
    text = value.strip()
    if not text:
        return ''
    try:
        place(text)
    except BadUrl as error:
        raise Refused('invalid', str(error)) from None
    return text.rstrip('/')


def _interval(value: object) -> int:
    if type(value) is not int or not LEAST_INTERVAL <= value <= MOST_INTERVAL:
        raise Refused('invalid', f'the interval is {LEAST_INTERVAL} to {MOST_INTERVAL} seconds')
    return value


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise Refused('invalid', 'a switch is true or false')
    return value


def _protocol(value: object) -> str:
    return _choice(value, PROTOCOLS, 'the dialect')


def _mode(value: object) -> str:
    return _choice(value, MODES, 'the mode')


def _choice(value: object, words: Sequence[str], what: str) -> str:
    if not isinstance(value, str) or value.lower() not in words:
        raise Refused('invalid', f'{what} is {" or ".join(words)}')
    return value.lower()


def _own_token(value: object) -> str:
    """A token that another has chosen: whatever can stand in a header."""
    if value == '':
        return ''
    if not isinstance(value, str) or len(value) > TOKEN_MOST or not _TOKEN.fullmatch(value):
        raise Refused('invalid', f'a token is at most {TOKEN_MOST} printable characters')
    return value


def _token(value: object) -> str:
    if not isinstance(value, str) or len(value) < TOKEN_LEAST or '/' in value:
        raise Refused('invalid', f'a token has at least {TOKEN_LEAST} characters and no slash')
    return _own_token(value)


def _domains(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > DOMAINS_LIMIT:
        raise Refused('invalid', f'domains are a list of at most {DOMAINS_LIMIT}')
    found: dict[str, None] = {}
    for one in value:
        if not isinstance(one, str):
            raise Refused('invalid', 'a domain is a text')
        try:
            found[key(one, every=True)] = None
        except BadDomain as error:
            raise Refused('invalid', str(error)) from None
    return tuple(found)


def _fetches(value: object) -> tuple[str, ...]:
    if any(one != EVERY and one.startswith('*') for one in _domains(value)):
        raise Refused('invalid', 'mail is fetched for a domain by its name, or for * all')
    assert isinstance(value, list | tuple)
    # As it is written: other programs find only what is spelled as they have it.
    return tuple(dict.fromkeys(one.strip().lower() for one in value))


def _verify(value: object) -> bool | None:
    if value == 'auto':
        return None
    return _switch(value)


_READERS: dict[str, Any] = {
    'url': _url,
    'enabled': _switch,
    'poll_interval': _interval,
    'polls': _switch,
    'protocol': _protocol,
    'token': _own_token,
    'fetches': _fetches,
    'domains': _domains,
    'mode': _mode,
    'carries': _switch,
    'verify': _verify,
}


def _entry(row: Exchanger) -> dict[str, Any]:
    verify = row.verify
    if verify is None and row.url:
        verify = trusts_names(place(row.url).host)
    return {
        'name': row.name,
        'url': row.url,
        'enabled': row.enabled,
        'poll_interval': row.poll_interval,
        'last_poll_at': row.last_poll_at or None,
        'polls': row.polls,
        'protocol': row.protocol,
        'has_token': bool(row.token),
        'fetches': list(row.fetches),
        'domains': list(row.domains),
        'mode': row.mode,
        'carries': row.carries,
        'may_fetch': bool(row.pull_key),
        'verify': bool(verify),
        'created_at': row.created,
        'updated_at': row.updated,
        'last_success_at': row.last_success_at or None,
        'last_error': row.last_error,
        'failures': row.failures,
        'pulled_total': row.pulled_total,
        'refused_total': row.refused_total,
        'last_given_at': row.last_given_at or None,
        'given_total': row.given_total,
    }
