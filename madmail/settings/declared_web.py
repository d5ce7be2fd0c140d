"""Settings of what is told and served over HTTP: pages, WebIMAP, administration."""

from __future__ import annotations

from madmail.settings.kinds import Boolean, Choice, FilePath, Text
from madmail.settings.network_kinds import Hostname, MountPath, Networks, Origins, PagePath
from madmail.settings.setting import LIVE, declare

declare(
    'relay.hostname',
    Hostname(),
    '',
    'Name of this host in greetings and EHLO and in what mail programs are told to connect to. '
    'Empty: the domain.',
    applies=LIVE,
)
declare(
    'relay.comment',
    Text(),
    '',
    'A comment on this relay that clients can read.',
    applies=LIVE,
)
declare(
    'relay.admin',
    Text(),
    '',
    'How to reach the operator, for example mailto:admin@example.org.',
    applies=LIVE,
)
declare(
    'site.enabled',
    Boolean(),
    True,
    'Serve the public pages: start, /new, invitations, information, guide.',
    applies=LIVE,
)
declare(
    'site.language',
    Choice('auto', 'en', 'es', 'ru', 'fa'),
    'auto',
    "Language of the pages; auto is the visitor's.",
    applies=LIVE,
)
declare(
    'site.www_dir',
    FilePath(),
    '',
    'Directory with own pages and files. What it lacks is served as it comes with madmail; '
    '"madmail html-export" writes that to begin with.',
    applies=LIVE,
)
declare(
    'site.sharing',
    Boolean(),
    False,
    'Let everybody make short contact pages on the relay (/share).',
    applies=LIVE,
)
declare(
    'webimap.enabled',
    Boolean(),
    False,
    'Serve mailboxes to programs in browsers, at /webimap/.',
    applies=LIVE,
)
declare(
    'websmtp.enabled',
    Boolean(),
    False,
    'Take mail from programs in browsers, at /webimap/send and /websmtp/send.',
    applies=LIVE,
)
declare(
    'webimap.cors_origins',
    Origins(),
    (),
    "Origins of pages elsewhere that may use both; '*' is everybody.",
    applies=LIVE,
)
declare(
    'web.trusted_proxies',
    Networks(),
    (),
    'Reverse proxies before the web server, as IP addresses or networks. Only what they say in '
    'X-Forwarded-For and X-Forwarded-Proto about their clients is believed.',
    applies=LIVE,
)
declare(
    'admin.enabled',
    Boolean(),
    True,
    'Answer the admin API, to those who have the token (madmail admin-token).',
    applies=LIVE,
)
declare(
    'admin.path',
    MountPath(),
    '/api/admin',
    'Path of the admin API.',
    applies=LIVE,
)
declare(
    'admin.require_tls',
    Boolean(),
    True,
    'Refuse the admin API over plain HTTP, but from this host itself.',
    applies=LIVE,
)
declare(
    'admin.cors_origins',
    Origins(),
    ('https://admin.madmail.chat',),
    'Web pages of other servers that may use the admin API, as origins; * is any. Without the '
    'token it is of no use to them.',
    applies=LIVE,
)
declare(
    'panel.enabled',
    Boolean(),
    False,
    'Serve the dashboard: pages from which the relay is administered over the admin API.',
    applies=LIVE,
)
declare(
    'panel.path',
    PagePath(),
    '/admin',
    'Path of the dashboard.',
    applies=LIVE,
)
