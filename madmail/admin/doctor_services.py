"""Checks of what is offered beside mail: calls, channels, notifications, the proxy.

Clients are offered each only while it answers, so what is wrong here shows as something
that is not there, and only this says why.
"""

from __future__ import annotations

from collections.abc import Iterator

from madmail.admin import iroh as channels
from madmail.admin import ports, status
from madmail.admin import proxy as shadowsocks
from madmail.admin import push as notifications
from madmail.admin import turn as calls
from madmail.admin.finding import BAD, OK, WARN, Check, Finding
from madmail.admin.relay import Relay

BEGINNING = 60  # seconds: several looks at itself; until then silence is no finding


def turn(relay: Relay) -> Iterator[Finding]:
    """Whether calls find a way through this relay."""
    if not relay.settings[calls.ENABLED]:
        return
    found = calls.state(relay)
    if not found['port'] and not found['tls_port']:
        # On by default, so a file that names its listeners has left it out: nothing is broken.
        yield Finding(
            'turn',
            WARN,
            'the TURN server is on and listens nowhere; calls go over servers of others',
            '"madmail port turn enable", or else "madmail turn off"',
        )
        return
    yield from _listening(
        relay, 'turn', 'the TURN server', found['answers'], found['port'] or found['tls_port']
    )
    if not found['host']:
        yield Finding(
            'turn',
            BAD,
            'clients cannot be told where the TURN server is: it has an IPv6 address only',
            'turn.host: a name, or an IPv4 address that leads here',
        )
    elif found['answers']:
        low, high = found['relay_ports']
        yield Finding(
            'turn',
            OK,
            f'the TURN server answers at port {found["port"] or found["tls_port"]}; '
            f'firewalls must let in UDP to it and to {low}-{high}',
        )


def iroh(relay: Relay) -> Iterator[Finding]:
    """Whether apps in chats find each other through this relay."""
    if not relay.settings[channels.ENABLED]:
        return
    if not any(relay.settings[f'listen.{name}'] for name in ('iroh', 'http', 'https')):
        yield Finding(
            'iroh',
            WARN,
            'the iroh relay is on and nothing leads to it; apps in chats use relays of others',
            '"madmail port iroh enable", or else "madmail iroh disable"',
        )
        return
    found = channels.state(relay)
    yield from _silent(relay, 'iroh', 'the iroh relay', found['answers'])
    if found['answers'] and not found['relay_url']:
        yield Finding(
            'iroh',
            BAD,
            'the iroh relay has no address that clients could be told: it answers by HTTPS '
            'alone, with a certificate that they do not trust',
            '"madmail port iroh enable"',
        )
    elif found['answers']:
        yield Finding('iroh', OK, f'the iroh relay answers; clients are told {found["relay_url"]}')


def push(relay: Relay) -> Iterator[Finding]:
    """Whether phones that sleep are told of mail."""
    if not relay.running:
        return
    found = notifications.state(relay)
    url = relay.settings['push.url']
    if found['mode'] == 'off':
        yield Finding('push', OK, 'notifications are off: phones that sleep learn of mail late')
    elif found['paused'] and not found['failures']:
        yield Finding(
            'push',
            WARN,
            f'{url} asks to be left alone for a while; {found["waiting"]} devices wait to be told',
            'it is asked again by itself, within half an hour',
        )
    elif found['paused'] or found['failures'] >= found['threshold']:
        yield Finding(
            'push',
            WARN,
            f'{url} did not answer {found["failures"]} times in a row; '
            f'{found["waiting"]} devices wait to be told',
            'it is asked again by itself; can this host reach it? "madmail push on" asks at once',
        )
    else:
        yield Finding('push', OK, f'{found["waiting"]} devices wait to be told of mail')


def proxy(relay: Relay) -> Iterator[Finding]:
    """Whether the Shadowsocks proxy lets itself be used."""
    if not relay.settings[shadowsocks.ENABLED]:
        return
    found = shadowsocks.state(relay)
    yield from _listening(
        relay, 'proxy', 'the Shadowsocks proxy', found['answers'], found['port'], 'shadowsocks'
    )
    if found['answers']:
        yield Finding(
            'proxy', OK, f'the Shadowsocks proxy answers at port {found["port"]} (from this host)'
        )


def _listening(
    relay: Relay, name: str, what: str, answers: bool | None, port: int | None, service: str = ''
) -> Iterator[Finding]:
    service = service or name
    if port is None:
        yield Finding(
            name, BAD, f'{what} is on and listens nowhere', f'"madmail port {service} enable"'
        )
        return
    yield from _silent(relay, name, what, answers)
    used = ports.state(relay, 'submission-tls')
    if ports.state(relay, service)['mode'] == 'local' and used['mode'] == 'public':
        yield Finding(
            name,
            WARN,
            f'{what} can be reached from this host only',
            f'"madmail port {service} public"',
        )


def _silent(relay: Relay, name: str, what: str, answers: bool | None) -> Iterator[Finding]:
    if answers is not False:
        return
    if status.uptime(status.processes(relay)) < BEGINNING:
        yield Finding(name, WARN, f'{what} has not answered yet', 'look again in a minute')
    else:
        yield Finding(name, BAD, f'{what} does not answer', 'see "madmail status" and the log')


CHECKS: tuple[Check, ...] = (turn, iroh, push, proxy)
