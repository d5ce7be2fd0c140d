"""Which local parts may become accounts.

Names that mean something on the mail network (RFC 2142) stay free, and every
name that contains `mailer-daemon` or `mail-daemon` is refused, because Delta
Chat takes mail from such a sender for a bounce.
"""

from __future__ import annotations

import re

from madmail.settings import Settings

RESERVED = frozenset(
    (
        *('abuse', 'admin', 'administrator', 'autoconfig', 'autodiscover', 'bounce', 'bounces'),
        *('daemon', 'ftp', 'help', 'hostmaster', 'imap', 'info', 'mail', 'mail-daemon'),
        *('mailer-daemon', 'mta-sts', 'news', 'no-reply', 'nobody', 'noc', 'noreply', 'ns', 'pop3'),
        *('postmaster', 'root', 'security', 'smtp', 'ssladmin', 'support', 'sysadmin', 'system'),
        *('usenet', 'uucp', 'webmaster', 'www'),
    )
)

# Creation is stricter than `address._LOCAL`: `+` starts a tag (RFC 5233), so no
# account may contain one.
_CREATABLE = re.compile(r'[a-z0-9](?:[a-z0-9._-]*[a-z0-9_-])?\Z')


def reserved(local: str) -> bool:
    """Whether nobody may own this name."""
    return local in RESERVED or 'mailer-daemon' in local or 'mail-daemon' in local


def creatable(local: str, settings: Settings) -> bool:
    """Whether a new account may have this canonical local part."""
    shortest = settings['accounts.username_min_length']
    longest = settings['accounts.username_max_length']
    return (
        shortest <= len(local) <= longest
        and _CREATABLE.match(local) is not None
        and '..' not in local
        and not reserved(local)
    )
