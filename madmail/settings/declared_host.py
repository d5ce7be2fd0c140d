"""Settings of the host: domain, directories, listeners, certificates, processes."""

from __future__ import annotations

from madmail.settings.kinds import (
    Address,
    Choice,
    CountOrAuto,
    Duration,
    FilePath,
    LogTarget,
    RequiredPath,
    Text,
)
from madmail.settings.network_kinds import Addresses, Base64, Directory, Domain, Email, Url
from madmail.settings.setting import LIVE, RELOAD, RESTART, declare

declare(
    'domain',
    Domain(),
    'localhost',
    'The mail domain: the part of the addresses behind the @. An IP address makes addresses of '
    'the form user@[203.0.113.5].',
    applies=RESTART,
)
declare(
    'state_dir',
    RequiredPath(),
    './data',
    'Directory of everything that is kept: databases, large messages, keys. Made at the first '
    'start. A relative path in a configuration file is beside that file.',
    applies=RESTART,
)
declare(
    'user',
    Text(),
    '',
    'User the processes run as when started as root. Empty: the one that MADMAIL_USER in the '
    'environment names, or the user madmail if there is one.',
    applies=RESTART,
)
LISTENERS = {
    'smtp': (25, 'Mail from other relays; STARTTLS.'),
    'submission': (587, 'Mail from users; STARTTLS.'),
    'submissions': (465, 'Mail from users; TLS from the first octet.'),
    'imap': (143, 'Mailboxes; STARTTLS.'),
    'imaps': (993, 'Mailboxes; TLS from the first octet.'),
    'http': (80, 'Web pages, federation, certificate challenges.'),
    'https': (443, 'Web pages and federation over TLS.'),
}
for _name, (_port, _doc) in LISTENERS.items():
    declare(f'listen.{_name}', Addresses(_port), (Address('0.0.0.0', _port),), _doc, applies=RELOAD)
declare(
    'listen.metrics',
    Addresses(9180),
    (),
    'Figures for Prometheus at /metrics, in plain HTTP and without a password: for a loopback or '
    'private address only, such as 127.0.0.1:9180. Empty: nowhere.',
    applies=RELOAD,
)
declare(
    'listen.turn',
    Addresses(3478),
    (Address('0.0.0.0', 3478),),
    'TURN and STUN over UDP and TCP, where turn.enabled is true.',
    applies=RELOAD,
)
declare(
    'listen.turns',
    Addresses(5349),
    (Address('0.0.0.0', 5349),),
    'TURN over TLS.',
    applies=RELOAD,
)
declare(
    'listen.shadowsocks',
    Addresses(8388),
    (Address('0.0.0.0', 8388),),
    'The Shadowsocks proxy, where shadowsocks.enabled is true.',
    applies=RELOAD,
)
declare(
    'listen.iroh',
    Addresses(3340),
    (Address('0.0.0.0', 3340),),
    'The relay of WebXDC channels in plain HTTP, where iroh.enabled is true. It is reached through '
    'listen.https and listen.http as well.',
    applies=RELOAD,
)
declare(
    'tls.mode',
    Choice('self_signed', 'acme', 'file'),
    'self_signed',
    'self_signed makes a certificate in the state directory; acme obtains one from an authority, '
    "Let's Encrypt unless another is given, whose terms are agreed to thereby; file uses "
    'cert_file and key_file.',
    applies=RELOAD,
)
declare(
    'tls.cert_file',
    FilePath(),
    '',
    'PEM file with the certificate and its chain (mode file).',
    applies=RELOAD,
)
declare(
    'tls.key_file', FilePath(), '', 'PEM file with the private key (mode file).', applies=RELOAD
)
declare(
    'tls.acme_email',
    Email(),
    '',
    'Where the authority can write to, if anywhere (mode acme).',
    applies=RELOAD,
)
declare(
    'tls.acme_directory',
    Directory(),
    'letsencrypt',
    "The authority: letsencrypt, staging (Let's Encrypt for trials, trusted by nobody), or the URL "
    'of the ACME directory of another one.',
    applies=RELOAD,
)
declare(
    'tls.acme_ca_file',
    FilePath(),
    '',
    "PEM file with the root of the authority's own server, for one that browsers do not trust.",
    applies=RELOAD,
)
declare(
    'tls.acme_eab_id',
    Text(),
    '',
    'Key identifier of an account made with the authority before, where it wants one (external '
    'account binding).',
    applies=RELOAD,
)
declare(
    'tls.acme_eab_secret',
    Base64(),
    '',
    'The key that belongs to acme_eab_id, in base64url as the authority shows it.',
    applies=RELOAD,
)
declare(
    'database',
    Url('sqlite', 'postgresql', 'postgres'),
    'sqlite',
    'Where accounts and mail are. sqlite: in the state directory. This version has nothing else; '
    'the URL of a database server is refused at the start.',
    applies=RESTART,
)
declare(
    'bus',
    Url('embedded', 'redis', 'rediss', 'unix'),
    'embedded',
    'What carries events between processes. embedded: the relay itself, on this host. This version '
    'has nothing else; the URL of a server is refused at the start.',
    applies=RESTART,
)
declare(
    'processes.gates',
    CountOrAuto(1, 16),
    'auto',
    'Processes that hold the connections (TLS, login). auto: one a core, at most 8.',
    applies=RELOAD,
)
declare(
    'processes.shards',
    CountOrAuto(1, 64),
    'auto',
    'Processes that hold the accounts. auto: one for every core but one, at least one, at most '
    '8. Fixed once the state directory exists.',
    applies=RESTART,
)
declare(
    'processes.web',
    CountOrAuto(1, 32),
    'auto',
    'Web workers. auto: one; above two cores one for every two, at most 4.',
    applies=RELOAD,
)
declare(
    'master.heartbeat',
    Duration(2, 3600),
    20,
    'A process that does no work for this long is killed and replaced.',
    applies=RELOAD,
    unit='seconds',
)
declare(
    'master.grace',
    Duration(0, 3600),
    10,
    'How long a stopping relay waits for its processes to finish.',
    applies=RELOAD,
    unit='seconds',
)
declare(
    'log',
    LogTarget(),
    'off',
    'off, stderr or a file. The log never holds addresses, IP addresses, subjects or message ids.',
    applies=LIVE,
)
declare(
    'log_level',
    Choice('error', 'warning', 'info', 'debug'),
    'info',
    'The least important events that are logged.',
    applies=LIVE,
)
