"""Settings of the exchange with other relays: federation, signatures, DNS, queue, exchangers."""

from __future__ import annotations

from madmail.settings.kinds import Boolean, Choice, Duration, Integer, Selector
from madmail.settings.network_kinds import Servers, Transports
from madmail.settings.setting import LIVE, RELOAD, declare

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
    'queue.tries',
    Integer(0, 1000),
    0,
    'How often a message to another relay is tried before it goes back to its sender; 0 = any '
    'number of times within queue.lifetime. Messages that wait together for a relay that is down '
    'count the tries that were theirs.',
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
    'queue.first_retry',
    Duration(1),
    60,
    'Pause after the first failure to reach another relay. It doubles with each failure, up to '
    'an hour.',
    applies=LIVE,
    unit='seconds',
)
