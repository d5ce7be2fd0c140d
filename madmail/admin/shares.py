"""Contact pages: short links on the relay to somebody's Delta Chat invitation.

Who makes one gets a key with which to remove it; the relay keeps its hash only.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import time
from typing import Any

from madmail.account import bearer
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay

# Names of routes now and names that a relay might serve one day.
# fmt: off
RESERVED = frozenset((
    'share', 'qr', 'new', 'madmail', 'mxdeliv', 'index', 'info', 'security', 'deploy',
    'app', 'docs', 'webimap', 'websmtp', 'inv', 'admin', 'api', 'metrics', 'favicon',
    'robots', 'relay', 'ping', 'mail', 'autodiscover', 'autoconfig', 'static', 'style',
    'logo', 'generate204',
))
# fmt: on
SLUG = re.compile(r'[A-Za-z0-9]{3,40}')
PREFIX = 'openpgp4fpr:'
KEPT_FREE = 'reserved'  # what an operator writes for the url of a name nobody may take
MOST = 100_000  # pages
LETTERS = string.ascii_lowercase + string.digits

_LINK = re.compile(
    r'https://i\.delta\.chat/?#([0-9A-Fa-f]{40})((?:&[A-Za-z]{1,10}=[A-Za-z0-9._~%@+:\[\]-]{0,300}){0,12})'
)
_CODE = re.compile(
    r'(?i:openpgp4fpr):([0-9A-Fa-f]{40})(?:#((?:&?[A-Za-z]{1,10}=[A-Za-z0-9._~%@+:\[\]-]{0,300}){0,12}))?'
)


def stored(url: str) -> str:
    """An invitation as it is kept, openpgp4fpr:FINGERPRINT#….  Refused: invalid."""
    url = url.strip()
    if match := _LINK.fullmatch(url):
        rest = match[2].removeprefix('&')
    elif match := _CODE.fullmatch(url):
        rest = (match[2] or '').removeprefix('&')
    else:
        raise Refused('invalid', 'an invitation link begins with https://i.delta.chat/#')
    return f'{PREFIX}{match[1].upper()}{f"#{rest}" if rest else ""}'


def link(kept: str) -> str:
    """The invitation as a link that opens anywhere."""
    fingerprint, _, rest = kept.removeprefix(PREFIX).partition('#')
    return f'https://i.delta.chat/#{fingerprint}{f"&{rest}" if rest else ""}'


def all_(relay: Relay) -> list[dict[str, Any]]:
    """`slug`, `url`, `name`, `created`."""
    return [
        {'slug': slug, 'url': url, 'name': name, 'created': created}
        for slug, url, name, created in relay.control.shares()
    ]


def one(relay: Relay, slug: str) -> dict[str, Any] | None:
    """The page, None if there is none (or the name is only reserved)."""
    found = relay.control.share(slug) if SLUG.fullmatch(slug) else None
    if found is None:
        return None
    return {'slug': found[0], 'url': found[1], 'name': found[2], 'created': found[3]}


def create(relay: Relay, slug: str, url: str, name: str = '') -> tuple[dict[str, Any], str]:
    """A new page and the key that removes it.  Refused: invalid, exists, unavailable."""
    kept = stored(url)
    name = ' '.join(name.split())[:80]
    key = bearer.fresh(18)
    if relay.control.share_count() >= MOST:
        raise Refused('unavailable', 'there are as many contact pages as there may be')
    for _ in range(5):
        chosen = slug or ''.join(secrets.choice(LETTERS) for _ in range(8))
        _check(relay, chosen)
        created = int(time.time())
        if relay.control.add_share(chosen, kept, name, created, _hash(key)):
            return {'slug': chosen, 'url': kept, 'name': name, 'created': created}, key
        if slug:
            break
    raise Refused('exists', 'this short name is taken')


def reserve(relay: Relay, slug: str) -> None:
    """Keep a name from being taken.  Refused: invalid, exists."""
    _check(relay, slug)
    if not relay.control.add_share(slug, '', '', int(time.time()), b''):
        raise Refused('exists', 'this short name is taken')


def edit(relay: Relay, slug: str, url: str, name: str = '') -> dict[str, Any]:
    """The url `reserved` keeps the name free, as `reserve` does.  Refused: invalid, missing."""
    kept = '' if url.strip() == KEPT_FREE else stored(url)
    name = ' '.join(name.split())[:80] if kept else ''
    if not relay.control.change_share(slug, kept, name):
        raise Refused('missing', f'there is no contact page {slug}')
    return {'slug': slug, 'url': kept, 'name': name}


def remove(relay: Relay, slug: str) -> None:
    """By the operator.  Refused: missing."""
    if not relay.control.remove_share(slug, None):
        raise Refused('missing', f'there is no contact page {slug}')


def remove_by_key(relay: Relay, slug: str, key: str) -> None:
    """By who made it.  Refused: missing, with nothing said about which was wrong."""
    if not relay.control.remove_share(slug, _hash(key)):
        raise Refused('missing', 'there is no such page, or the key is not its own')


def _check(relay: Relay, slug: str) -> None:
    if not SLUG.fullmatch(slug):
        raise Refused('invalid', 'a short name has 3 to 40 letters and digits')
    if slug.lower() in RESERVED or f'/{slug}' == relay.settings['panel.path']:
        raise Refused('invalid', 'this short name is not for contacts')


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
