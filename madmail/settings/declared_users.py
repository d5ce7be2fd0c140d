"""Settings for users: what mail passes, accounts, limits, retention, IMAP."""

from __future__ import annotations

from madmail.settings.kinds import Age, Boolean, BooleanOrAuto, Choice, Duration, Integer, Size
from madmail.settings.setting import LIVE, declare

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
    30,
    'Messages an account may send at once, on top of the lasting rate. Delta Chat waits half a '
    'minute or more when told to, so this is as much as people send at once: an album of photos.',
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
    'accounts.bandwidth',
    Boolean(),
    False,
    'Keep how many octets each account receives and sends in a month, for a year.',
    applies=LIVE,
)
