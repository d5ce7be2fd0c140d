"""Settings of calls, WebXDC channels, push notifications and the proxy."""

from __future__ import annotations

from madmail.settings.kinds import Boolean, Choice, Duration, Integer, Size, Text
from madmail.settings.network_kinds import (
    HostAddresses,
    HttpUrl,
    Networks,
    ProxyPassword,
    RelayUrl,
)
from madmail.settings.setting import LIVE, declare

declare(
    'push.mode',
    Choice('auto', 'on', 'off'),
    'auto',
    'Tell the notification service of Delta Chat when there is mail for a phone that asked for it. '
    'The service learns which phone, nothing of the mail. auto leaves the service alone while it '
    'does not answer, on keeps trying, off tells nothing and takes no notice of new mail.',
    applies=LIVE,
)
declare(
    'push.url',
    HttpUrl(),
    'https://notifications.delta.chat/notify',
    'Where notifications are sent. Only the service whose key clients know can read their tokens.',
    applies=LIVE,
)
declare(
    'push.connections',
    Integer(1, 64),
    8,
    'Notifications under way at a time.',
    applies=LIVE,
)
declare(
    'push.timeout',
    Duration(1, 60),
    20,
    'How long the notification service may take for an answer.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'push.lifetime',
    Duration(60, 86400),
    18000,
    'A notification that could not be sent for this long is given up; the mail stays.',
    applies=LIVE,
    unit='seconds',
)
CIPHERS = (
    'chacha20-ietf-poly1305',
    'aes-128-gcm',
    'aes-256-gcm',
    '2022-blake3-aes-128-gcm',
    '2022-blake3-aes-256-gcm',
    '2022-blake3-chacha20-poly1305',
)
declare(
    'shadowsocks.enabled',
    Boolean(),
    False,
    'A Shadowsocks proxy at listen.shadowsocks: a way to the mail and web ports of this relay, and '
    'to nothing else, from networks that block it.',
    applies=LIVE,
)
declare(
    'shadowsocks.cipher',
    Choice(*CIPHERS),
    CIPHERS[0],
    'How it is sealed. The 2022 ones resist recording and replaying best, but need the clocks of '
    'both sides to be right within 30 seconds, and their password is a key in base64.',
    applies=LIVE,
)
declare(
    'shadowsocks.password',
    ProxyPassword(),
    '',
    'What all clients of the proxy know. Empty: made when the proxy is first enabled. With a 2022 '
    'cipher the base64 of a key, 16 octets for aes-128, 32 for the others.',
    applies=LIVE,
)
declare(
    'shadowsocks.connections',
    Integer(0),
    4000,
    'Open connections of the proxy, those of strangers who know no password included. 0: no limit.',
    applies=LIVE,
)
declare(
    'iroh.enabled',
    Boolean(),
    True,
    'A relay (iroh) for the channels of WebXDC apps, for devices that cannot reach each other '
    'directly. Without it clients use public ones of other operators.',
    applies=LIVE,
)
declare(
    'iroh.relay_url',
    RelayUrl(),
    '',
    'The URL of the relay that clients are told, such as https://chat.example.org. Empty: made of '
    'relay.hostname and where it listens; https only with a certificate that browsers trust, for '
    'clients accept no other.',
    applies=LIVE,
)
declare(
    'iroh.connections',
    Integer(0),
    20000,
    'Open connections of the relay of WebXDC channels. 0: no limit.',
    applies=LIVE,
)
declare(
    'iroh.connections_per_ip',
    Integer(0),
    100,
    'The same from one IP address (IPv6: /64). 0: no limit.',
    applies=LIVE,
)
declare(
    'iroh.connects_per_minute_per_ip',
    Integer(0),
    600,
    'New connections from one IP address, half of them at once. 0: no limit.',
    applies=LIVE,
)
declare(
    'iroh.rate',
    Size(),
    '1M',
    'Octets a second that are taken from one connection, 64K at least, two seconds of them at '
    'once; what is more waits. 0: no limit.',
    applies=LIVE,
    unit='octets',
)
declare(
    'iroh.queue',
    Size(65536),
    '2M',
    'What waits for a client that reads slowly; what is more is lost, and clients send it again.',
    applies=LIVE,
    unit='octets',
)
declare(
    'iroh.memory',
    Size(),
    '128M',
    'The same for all clients together, unfinished input included. 0: no limit.',
    applies=LIVE,
    unit='octets',
)
declare(
    'turn.enabled',
    Boolean(),
    True,
    'A TURN server at listen.turn and listen.turns: calls between phones that cannot reach each '
    'other go through it. Without it clients use public ones of other operators.',
    applies=LIVE,
)
declare(
    'turn.host',
    Text(),
    '',
    'The host that clients connect to for it. Empty: relay.hostname or the domain.',
    applies=LIVE,
)
declare('turn.realm', Text(), '', 'The realm of its users. Empty: the domain.', applies=LIVE)
declare(
    'turn.secret',
    Text(),
    '',
    'What passwords are made from (the TURN REST scheme). Empty: made from the secret of the '
    'relay. "madmail turn rotate" puts another one in its place and lets former passwords last out '
    'their time; with one that is set here they count no more.',
    applies=LIVE,
)
declare(
    'turn.former_secret',
    Text(),
    '',
    'A secret whose passwords still count, until their time is over.',
    applies=LIVE,
)
declare(
    'turn.ttl',
    Duration(60, 90 * 86400),
    5 * 86400,
    'How long a password lasts at most; it is half of that or longer. Clients ask for another one '
    'when less than 12 hours are left, so less than a day makes them ask all the time.',
    applies=LIVE,
    unit='seconds',
)
declare(
    'turn.relay_ip',
    HostAddresses(),
    (),
    'The IP address at which others reach relayed ports, one IPv4 and one IPv6 address at most. '
    'Empty: that of the domain or of this host.',
    applies=LIVE,
)
declare(
    'turn.relay_port_min',
    Integer(1024, 65535),
    49152,
    'The first port of relays. All ports up to turn.relay_port_max must be open in the firewall.',
    applies=LIVE,
)
declare('turn.relay_port_max', Integer(1024, 65535), 65535, 'The last one.', applies=LIVE)
declare(
    'turn.share_ports',
    Boolean(),
    False,
    'Let all relays share the ports of the range, so that a range of a few is enough, such as '
    'ten. For calls of WebRTC programs, which Delta Chat makes; others may need ports of '
    'their own.',
    applies=LIVE,
)
declare(
    'turn.allowed_peers',
    Networks(),
    (),
    'Addresses that may be reached through it although they are private, such as those of a '
    'test network. Only public ones may else.',
    applies=LIVE,
)
declare('turn.relays', Integer(0), 10000, 'Relays at a time. 0: no limit.', applies=LIVE)
declare(
    'turn.relays_per_account',
    Integer(0),
    16,
    'The same of one account; a call takes a few. 0: no limit.',
    applies=LIVE,
)
declare(
    'turn.relays_per_ip',
    Integer(0),
    64,
    'The same from one IP address (IPv6: /64). 0: no limit.',
    applies=LIVE,
)
declare(
    'turn.relays_per_minute_per_ip',
    Integer(0),
    120,
    'New relays from one IP address, a sixth of them at once. 0: no limit.',
    applies=LIVE,
)
declare(
    'turn.rate_per_relay',
    Size(),
    '750K',
    'Octets a second through one relay in each direction; what is more is dropped. 0: no limit.',
    applies=LIVE,
    unit='octets',
)
declare(
    'turn.rate_per_account',
    Size(),
    '3M',
    'The same of all relays of an account, both directions together. 0: no limit.',
    applies=LIVE,
    unit='octets',
)
declare(
    'turn.rate',
    Size(),
    0,
    'The same of all relays. 0: no limit.',
    applies=LIVE,
    unit='octets',
)
declare(
    'turn.processes',
    Integer(1, 16),
    1,
    'Processes that relay. One carries 100,000 packets a second, about a hundred video calls.',
    applies=LIVE,
)
