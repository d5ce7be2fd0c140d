"""Rendering: templates, what they may use, and codes to scan.

Templates are Jinja2 with every value escaped, in a sandbox because an operator may
bring his own (`site.www_dir`); he finds there also the names that pages made for
other relays of this kind use (`MailDomain` and so on).
"""

from __future__ import annotations

import io
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import segno
from jinja2 import BaseLoader, Environment, TemplateNotFound
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from madmail import __version__
from madmail.account import dclogin
from madmail.account.address import ip_literal, mail_domain
from madmail.account.admission import by_login
from madmail.admin import sizes
from madmail.settings import Settings
from madmail.tls.certificate import verifiable
from madmail.web.site import files, words

PORTS = {
    'ImapPortTLS': 'imaps',
    'ImapPortStartTLS': 'imap',
    'SmtpPortTLS': 'submissions',
    'SmtpPortStartTLS': 'submission',
}

LOOK = 30.0  # seconds between two looks at the certificate


class _Loader(BaseLoader):
    """Own templates first; one that changes is read anew."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Any]:
        path = self._find(template)
        if path is None:
            raise TemplateNotFound(template)
        changed = path.stat().st_mtime_ns

        def current() -> bool:
            return self._find(template) == path and path.stat().st_mtime_ns == changed

        return path.read_text('utf-8'), str(path), current

    def _find(self, template: str) -> Path | None:
        own = own_directory(self._settings)
        return (own and files.below(own, template)) or files.below(files.TEMPLATES, template)


def own_directory(settings: Settings) -> Path | None:
    found: Path | None = settings['site.www_dir']
    return found


class Pages:
    """Renders pages of one relay."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environment = ImmutableSandboxedEnvironment(
            loader=_Loader(settings), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        self._environment.filters['clean_domain'] = lambda text: str(text).strip('[]')
        self._environment.filters['format_bytes'] = lambda number: sizes.show(int(number))

    def own(self, template: str) -> bool:
        """Whether the operator brought this one."""
        directory = own_directory(self._settings)
        return directory is not None and files.below(directory, template) is not None

    def render(self, template: str, language: str, path: str, **values: Any) -> str:
        """Raises jinja2.TemplateError for what is wrong in an own template."""
        return self._environment.get_template(template).render(
            {**self._common(language, path), **values}
        )

    def _common(self, language: str, path: str) -> dict[str, Any]:
        settings = self._settings
        domain = mail_domain(settings['domain'])
        fixed = settings['site.language']
        ports = {
            name: str(settings[f'listen.{ours}'][0].port) if settings[f'listen.{ours}'] else ''
            for name, ours in PORTS.items()
        }
        t = words.texts(language)
        return {
            't': t,
            'lang': language,
            'dir': words.direction(language),
            # Never //, which would be another host.
            'path': '/' + path.lstrip('/'),
            'query': '' if language == fixed else f'?lang={language}',
            'languages': [(code, words.texts(code)['language']) for code in words.LANGUAGES],
            'domain': domain.strip('[]'),
            'comment': settings['relay.comment'],
            'operator': contact(settings['relay.admin']),
            'sharing': settings['site.sharing'],
            'encrypted_only': settings['policy.require_encryption'],
            'signed_only': settings['federation.dkim'] == 'require',
            'registration': settings['accounts.registration'],
            # for pages made for other relays
            'MailDomain': domain,
            'MXDomain': settings['domain'],
            'WebDomain': settings['domain'],
            'ClientHost': settings['domain'],
            'PublicIP': settings['domain'] if ip_literal(settings['domain']) else '',
            'Version': __version__,
            'RegistrationOpen': settings['accounts.registration'] == 'open',
            'JitRegistrationEnabled': by_login(settings),
            'Language': language,
            'DefaultQuota': settings['limits.quota'],
            'DcloginImapSecurity': 'ssl',
            'DcloginSmtpSecurity': 'ssl',
            'SSURL': '',
            'MessageRetentionLine': age(settings['retention.messages'], t),
            'Custom': None,
            **ports,
        }


def contact(text: str) -> str:
    """A link to the operator, '' if what is set is none."""
    return text if text.startswith(('mailto:', 'https://', 'http://', 'openpgp4fpr:')) else ''


def age(seconds: int, t: dict[str, str]) -> str:
    """A time in words."""
    if not seconds:
        return t['forever']
    if seconds == 86400:
        return t['day']
    if seconds % 86400 == 0 or seconds > 3 * 86400:
        return t['days'].format(count=seconds // 86400)
    return t['hours'].format(count=max(seconds // 3600, 1))


def facts(settings: Settings, t: dict[str, str]) -> list[tuple[str, str]]:
    """What /info tells, name and value."""

    def size(name: str) -> str:
        return megabytes(settings[name]) if settings[name] else t['no_limit']

    pace = settings['limits.send_per_minute']
    found = [
        (t['messages_kept'], age(settings['retention.messages'], t)),
        (t['unused_kept'], age(settings['retention.dormant_accounts'], t)),
        (t['storage'], size('limits.quota')),
        (t['largest'], size('limits.max_message_size')),
        (t['pace'], t['pace_value'].format(count=pace) if pace else t['no_limit']),
        (t['registration'], t[f'registration_{settings["accounts.registration"]}']),
    ]
    if settings['retention.large']:
        found.insert(1, (t['large_kept'], age(settings['retention.large'], t)))
    if settings['retention.read']:
        found.insert(1, (t['read_kept'], age(settings['retention.read'], t)))
    return found


def megabytes(octets: int) -> str:
    """A size for people."""
    if octets >= 1024**3 and octets % 1024**3 == 0:
        return f'{octets // 1024**3} GB'
    return f'{max(round(octets / 1024**2), 1)} MB'


def code(text: str) -> Markup:
    """A code to scan, as an SVG that stands in the page."""
    out = io.BytesIO()
    segno.make(text, error='l', micro=False).save(
        out, kind='svg', border=2, xmldecl=False, svgns=True, nl=False, omitsize=True
    )
    return Markup(out.getvalue().decode())


def public(settings: Settings) -> bool:
    """Whether strangers can verify our certificate, as `dcaccount:` needs."""
    return (
        settings['tls.mode'] != 'self_signed'
        and bool(settings['listen.https'])
        and ip_literal(settings['domain']) is None
        and (settings['tls.mode'] != 'acme' or _issued(settings, int(time.monotonic() // LOOK)))
    )


@lru_cache(1)
def _issued(settings: Settings, now: int) -> bool:
    """Whether an authority has given us what we asked it for; looked at once in a while."""
    return verifiable(settings, settings['state_dir'].absolute())


def origin(settings: Settings) -> str:
    """https://domain, with the port where it is not the usual one."""
    listeners = settings['listen.https']
    port = f':{listeners[0].port}' if listeners and listeners[0].port not in (0, 443) else ''
    domain = settings['domain']
    return f'https://{f"[{domain}]" if ":" in domain else domain}{port}'


def join_link(settings: Settings, token: str = '') -> str:
    """What a new user scans, where that alone makes an account; else ''."""
    if public(settings) and settings['accounts.registration'] in ('open', 'token'):
        if token:
            return f'dcaccount:{origin(settings)}/new?token={quote(token, safe="")}'
        if settings['accounts.registration'] == 'open':
            return f'dcaccount:{origin(settings)}/new'
    elif not token and by_login(settings):
        return dclogin.fresh(settings)[2]
    return ''
