"""What mail programs ask for when they know an address only (Mozilla's autoconfig 1.1)."""

from __future__ import annotations

from xml.sax.saxutils import escape

from madmail.account import dclogin
from madmail.account.address import mail_domain
from madmail.settings import Settings

SERVERS = (
    ('incomingServer', 'imap', 'imaps', 'SSL'),
    ('incomingServer', 'imap', 'imap', 'STARTTLS'),
    ('outgoingServer', 'smtp', 'submissions', 'SSL'),
    ('outgoingServer', 'smtp', 'submission', 'STARTTLS'),
)


def document(settings: Settings) -> str:
    """The servers that listen, best first."""
    domain = escape(mail_domain(settings['domain']))
    servers = []
    for element, protocol, listener, security in SERVERS:
        for address in settings[f'listen.{listener}'][:1]:
            servers.append(
                f'    <{element} type="{protocol}">\n'
                f'      <hostname>{escape(dclogin.host(settings, address))}</hostname>\n'
                f'      <port>{address.port}</port>\n'
                f'      <socketType>{security}</socketType>\n'
                '      <username>%EMAILADDRESS%</username>\n'
                '      <authentication>password-cleartext</authentication>\n'
                f'    </{element}>\n'
            )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<clientConfig version="1.1">\n'
        f'  <emailProvider id="{domain}">\n'
        f'    <domain>{domain}</domain>\n'
        f'    <displayName>{domain}</displayName>\n'
        f'    <displayShortName>{domain}</displayShortName>\n'
        f'{"".join(servers)}'
        '  </emailProvider>\n'
        '</clientConfig>\n'
    )
