"""Every setting of the relay, each declared once.

The YAML loader, `Settings`, the sample configuration, the reference page and
the CLI all come from this list.  `live` settings apply while the relay runs;
the others are read at start and on reload (SIGHUP), unless marked `restart`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from madmail.settings.kinds import (
    Address,
    Addresses,
    Age,
    Boolean,
    BooleanOrAuto,
    Choice,
    CountOrAuto,
    Domain,
    Duration,
    FilePath,
    Hostname,
    Integer,
    Kind,
    LogTarget,
    MountPath,
    Networks,
    Origins,
    RequiredPath,
    Selector,
    Servers,
    Size,
    Text,
    Transports,
    Url,
)


class Applies(Enum):
    """When a changed value takes effect."""

    LIVE = 'at once'
    RELOAD = 'on reload'
    RESTART = 'at the next start'


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    kind: Kind
    default: object
    doc: str
    applies: Applies
    unit: str  # of the effective value, '' where there is none

    @property
    def section(self) -> str:
        """The part before the dot; '' for the settings at the top of the file."""
        return self.name.rpartition('.')[0]

    @property
    def live(self) -> bool:
        return self.applies is Applies.LIVE

    @property
    def storable(self) -> bool:
        """Whether it may be a row of the control database, which is laid over the file."""
        return self.applies is not Applies.RESTART


SETTINGS: dict[str, Setting] = {}

SECTIONS: dict[str, str] = {
    '': 'The relay',
    'listen': (
        'Listeners. Each is host:port or a list of them; IPv6 goes in quotes and brackets. '
        'When any is given, those left out do not listen.'
    ),
    'tls': 'Certificates',
    'processes': 'Processes',
    'master': 'Supervision of the processes',
    'policy': 'What mail passes',
    'accounts': 'Accounts',
    'imap': 'IMAP',
    'limits': 'Limits; 0 means no limit',
    'retention': 'How long things are kept; off means for ever',
    'federation': 'Exchange of mail with other relays',
    'dkim': 'Signatures under mail to other relays',
    'dns': 'Name servers',
    'queue': 'Mail to other relays',
    'exchanger': 'Mail that other relays fetch, or that goes on from here',
    'relay': 'What clients are told about the relay',
    'site': 'Public pages',
    'webimap': 'Reading mail over HTTP (WebIMAP)',
    'websmtp': 'Sending mail over HTTP (WebSMTP)',
    'web': 'The web server',
    'admin': 'Administration over HTTP',
}

LIVE, RELOAD, RESTART = Applies.LIVE, Applies.RELOAD, Applies.RESTART


def declare(
    name: str, kind: Kind, default: object, doc: str, *, applies: Applies, unit: str = ''
) -> None:
    assert name not in SETTINGS
    SETTINGS[name] = Setting(name, kind, kind.check(default), doc, applies, unit)


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
    'User the processes run as when started as root. Empty: the user madmail if there is one.',
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
    'tls.mode',
    Choice('self_signed', 'acme', 'file'),
    'self_signed',
    'self_signed makes a certificate in the state directory; acme obtains one; file uses '
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
    'database',
    Url('sqlite', 'postgresql', 'postgres'),
    'sqlite',
    'sqlite keeps everything in the state directory; postgresql://user@host/name uses a server.',
    applies=RESTART,
)
declare(
    'bus',
    Url('embedded', 'redis', 'rediss', 'unix'),
    'embedded',
    'embedded carries events between the processes of this host; redis://host between hosts.',
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

declare(
    'policy.require_encryption',
    Boolean(),
    True,
    'Refuse mail that is not end-to-end encrypted. false is for protocol tests only.',
    applies=LIVE,
)
declare(
    'policy.plaintext_login',
    Boolean(),
    False,
    'Allow a login on a connection without TLS, also on the loopback interface.',
    applies=LIVE,
)
declare(
    'policy.inbound_require_tls',
    Boolean(),
    False,
    'Refuse mail from relays that do not use STARTTLS. RFC 3207 forbids this on a public relay.',
    applies=LIVE,
)
declare(
    'policy.securejoin_requests',
    Boolean(),
    True,
    'Let the first, unencrypted message of a contact verification pass.',
    applies=LIVE,
)
declare(
    'policy.inbound_reports',
    Boolean(),
    True,
    'Let delivery reports from other relays pass.',
    applies=LIVE,
)

declare(
    'accounts.jit',
    BooleanOrAuto(),
    'auto',
    'Create an account at its first login, with the password given there. auto: while registration '
    'is open. true: also while it is closed or needs a token.',
    applies=LIVE,
)
declare(
    'accounts.registration',
    Choice('open', 'token', 'closed'),
    'open',
    'Who gets an account on the web page /new: anybody, who has a registration token, or nobody '
    'but those with a token that the operator made all the same.',
    applies=LIVE,
)
declare(
    'accounts.generated_name_length',
    Integer(6, 32),
    9,
    'Length of user names that the relay makes up, within what is allowed.',
    applies=LIVE,
    unit='octets',
)
declare(
    'accounts.generated_password_length',
    Integer(14, 64),
    24,
    'Length of passwords that the relay makes up.',
    applies=LIVE,
    unit='octets',
)
declare(
    'accounts.reservation_time',
    Duration(60),
    86400,
    'An account made with a registration token that is not logged in to within this time is '
    'removed, and the token may be used once more.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'accounts.export_by_api',
    Boolean(),
    True,
    'Give the names and password hashes of all accounts to those who have the admin token.',
    applies=LIVE,
)
declare(
    'accounts.username_min_length',
    Integer(1, 64),
    3,
    'Shortest user name that may be created.',
    applies=LIVE,
    unit='octets',
)
declare(
    'accounts.username_max_length',
    Integer(1, 64),
    64,
    'Longest user name that may be created.',
    applies=LIVE,
    unit='octets',
)
declare(
    'accounts.password_min_length',
    Integer(1, 128),
    8,
    'Shortest password an account may be created with.',
    applies=LIVE,
    unit='octets',
)

declare(
    'limits.send_per_minute',
    Integer(),
    60,
    'Messages an account may send a minute, lasting.',
    applies=LIVE,
)
declare(
    'limits.send_burst',
    Integer(),
    10,
    'Messages an account may send at once, on top of the lasting rate.',
    applies=LIVE,
)
declare(
    'limits.securejoin_per_hour',
    Integer(),
    10,
    'Unencrypted contact verification requests an account may send an hour.',
    applies=LIVE,
)
declare(
    'limits.connections_per_ip',
    Integer(),
    200,
    'Connections from one IP address; the loopback address counts like any other.',
    applies=LIVE,
)
declare('limits.connections', Integer(), 20000, 'Connections of the whole relay.', applies=LIVE)
declare(
    'limits.logins_per_minute_per_ip',
    Integer(),
    300,
    'Attempts to log in from one IP address a minute.',
    applies=LIVE,
)
declare(
    'limits.registrations_per_minute_per_ip',
    Integer(),
    30,
    'Accounts created from one IP address (IPv6: /64) a minute.',
    applies=LIVE,
)
declare(
    'limits.registrations_per_minute_per_network',
    Integer(),
    120,
    'Accounts created from one network (IPv4 /24, IPv6 /48) a minute.',
    applies=LIVE,
)
declare(
    'limits.registrations_per_minute',
    Integer(),
    600,
    'Accounts created a minute, in all.',
    applies=LIVE,
)
declare(
    'limits.accounts',
    Integer(),
    0,
    'With this many accounts new ones are refused; the operator may still create some.',
    applies=LIVE,
)
declare(
    'limits.disk_reserve',
    Size(),
    512 * 1024**2,
    'New accounts are refused while the disk of the state directory has less than this free.',
    applies=LIVE,
    unit='octets',
)
declare(
    'limits.memory_reserve',
    Size(),
    64 * 1024**2,
    'New accounts are refused while less memory than this is available.',
    applies=LIVE,
    unit='octets',
)
declare(
    'limits.load_per_core',
    Integer(),
    10,
    'New accounts are refused while the load of the last minute is above this for each core.',
    applies=LIVE,
)
declare(
    'limits.login_time',
    Duration(0, 3600),
    60,
    'A connection that has not logged in after this time is closed.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'limits.max_message_size',
    Size(),
    30 * 1024**2,
    'Largest message, as it arrives.',
    applies=LIVE,
    unit='octets',
)
declare(
    'limits.max_federation_size',
    Size(),
    70 * 1024**2,
    'Largest message another relay may deliver over HTTP; limits.max_message_size holds as well.',
    applies=LIVE,
    unit='octets',
)
declare(
    'limits.federation_per_minute_per_ip',
    Integer(),
    6000,
    'Deliveries over HTTP from one IP address a minute, and as many at once; for each web worker.',
    applies=LIVE,
)
declare(
    'limits.admin_failures_per_minute_per_ip',
    Integer(),
    10,
    'Requests with a wrong token to the admin API from one IP address a minute, and as many at '
    'once, that are told so; more get status 429. For each web worker. The right token always '
    'passes.',
    applies=LIVE,
)
declare(
    'limits.max_recipients',
    Integer(),
    1000,
    'Recipients of one message.',
    applies=LIVE,
)
declare(
    'limits.sessions_per_account',
    Integer(),
    100,
    'Connections one account may have at a time.',
    applies=LIVE,
)
declare(
    'limits.quota',
    Size(),
    500 * 1024**2,
    'Storage of an account.',
    applies=LIVE,
    unit='octets',
)
declare(
    'limits.quota_trim_percent',
    Integer(0, 100),
    75,
    'When an account holds more than this part of its quota, its oldest messages are removed '
    'down to five points less. 0 removes none: a full account takes no more mail.',
    applies=LIVE,
    unit='percent',
)
declare(
    'retention.messages',
    Age(3600),
    20 * 86400,
    'Messages go this long after they came, from all folders. The shortest time is an hour.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'retention.large',
    Age(3600),
    7 * 86400,
    'Messages above retention.large_size go this long after they came.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'retention.large_size',
    Size(128 * 1024),
    200 * 1024,
    'What counts as a large message.',
    applies=LIVE,
    unit='octets',
)
declare(
    'retention.read',
    Age(3600),
    0,
    'Messages that were read go this long after they came. It should leave all devices of an '
    'account the time to fetch them.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'retention.dormant_accounts',
    Age(86400),
    90 * 86400,
    'Accounts that nobody has logged in to for this long are deleted with all their mail.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'retention.unused_accounts',
    Age(86400),
    0,
    'Accounts that nobody has ever logged in to are deleted this long after they were made.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'imap.compress',
    Boolean(),
    True,
    'Offer compression to IMAP clients (COMPRESS=DEFLATE): a quarter less to transfer, for about '
    '0.1 ms of CPU a message.',
    applies=LIVE,
)
declare(
    'limits.imap_idle',
    Duration(),
    1800,
    'An IMAP connection on which nothing was said for this long is closed.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'limits.smtp_idle',
    Duration(),
    300,
    'An SMTP connection on which nothing was said for this long is closed.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'limits.mailboxes_per_account',
    Integer(),
    200,
    'Mailboxes (folders) of an account.',
    applies=LIVE,
)
declare(
    'limits.command_line',
    Size(),
    65536,
    'Longest command of a logged-in client, small literals included.',
    applies=LIVE,
    unit='octets',
)

declare(
    'federation.enabled',
    Boolean(),
    True,
    'Exchange mail with other relays at all, in both directions. Mail between accounts of this '
    'relay is not touched by it.',
    applies=LIVE,
)
declare(
    'federation.policy',
    Choice('accept', 'reject'),
    'accept',
    'accept exchanges mail with every domain but those that have a rule; reject only with those '
    'that have one.',
    applies=LIVE,
)

declare(
    'federation.dkim',
    Choice('require', 'off'),
    'require',
    'require refuses mail from elsewhere that has no valid DKIM signature of the domain in its '
    'From; mail from relays on an IP address needs none. off accepts forged senders.',
    applies=LIVE,
)
declare(
    'federation.transports',
    Transports(),
    ('https', 'http', 'smtp'),
    'Ways to hand mail to another relay, in the order in which they are tried. http is used for '
    'relays on an IP address only, unless federation.plain_http is on.',
    applies=LIVE,
)
declare(
    'federation.plain_http',
    Boolean(),
    False,
    'Use plain HTTP for named relays too, where HTTPS fails.',
    applies=LIVE,
)
declare(
    'federation.https_port',
    Integer(1, 65535),
    443,
    'Port of other relays for HTTPS.',
    applies=LIVE,
)
declare(
    'federation.http_port',
    Integer(1, 65535),
    80,
    'Port of other relays for HTTP.',
    applies=LIVE,
)
declare(
    'federation.smtp_port',
    Integer(1, 65535),
    25,
    'Port of other servers for SMTP.',
    applies=LIVE,
)
declare(
    'dkim.selector',
    Selector(),
    'madmail',
    'Name of the first signing key in the DNS; keys that follow get a number behind it.',
    applies=RELOAD,
)
declare(
    'dkim.ed25519',
    Boolean(),
    False,
    'Sign with an Ed25519 key as well as with the RSA key. Needs a record of its own in the DNS.',
    applies=RELOAD,
)
declare(
    'dns.servers',
    Servers(),
    (),
    'Recursive name servers as host:port. Empty: those of /etc/resolv.conf.',
    applies=RELOAD,
)
declare(
    'dns.trusted',
    Boolean(),
    False,
    'The name servers check DNSSEC and nobody can change what they answer on the way here. Servers '
    'on the loopback interface are always trusted.',
    applies=RELOAD,
)

declare(
    'queue.lifetime',
    Duration(60),
    172800,
    'Mail another relay did not take for this long goes back to its sender.',
    applies=LIVE,
    unit='seconds',
)

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
    'exchanger.lease',
    Duration(1, 86400),
    120,
    'A relay that has fetched mail and does not say within this time that it is safe can fetch it '
    'again.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'exchanger.wait',
    Duration(0, 50),
    25,
    'How long a relay that fetches mail may wait for some to come, so that it gets it at once; 0 '
    'answers at once that there is none.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'exchanger.held_messages',
    Integer(),
    10000,
    'Messages from elsewhere that each shard keeps for one domain that mail is passed on to; 0 = '
    'any number.',
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
    'accounts.bandwidth',
    Boolean(),
    False,
    'Keep how many octets each account receives and sends in a month, for a year.',
    applies=LIVE,
)
declare(
    'queue.first_retry',
    Duration(1),
    60,
    'Pause after the first failure to reach another relay. It doubles with each failure, up to '
    'an hour.',
    applies=LIVE,
    unit='seconds',
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
