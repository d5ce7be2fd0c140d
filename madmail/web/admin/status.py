"""/admin/status, /admin/overview and /admin/storage: how the relay is doing."""

from __future__ import annotations

from typing import Any

from gevent import get_hub

from madmail.admin import proxy, push, status, turn
from madmail.admin.relay import Relay
from madmail.web.admin import settings, times
from madmail.web.admin.answer import Answer, Handler

DAY = 86400  # seconds


def get_status(relay: Relay, body: dict[str, Any]) -> Answer:
    """Figures of the services, users, messages and other relays, counts only.

    `sent_messages`, `outbound_messages` and `received_messages` are numbers of messages
    since the relay exists; `email_servers` and `federation_traffic` are there when mail
    was ever exchanged.
    """
    return Answer(body=_status(relay))


def get_overview(relay: Relay, body: dict[str, Any]) -> Answer:
    """All of /admin/status, and `disk`, `tokens` and `settings` (as /admin/settings)."""
    return Answer(
        body={
            **_status(relay),
            'disk': status.disk(relay.state_dir),
            'tokens': {'total': status.tokens(relay)},
            'settings': settings.everything(relay, body),
        }
    )


def get_storage(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"disk", "state_dir": {path, size_bytes}, "database": {driver, size_bytes}}`."""
    size = get_hub().threadpool.apply(status.size_of, (relay.state_dir,))
    return Answer(
        body={
            'disk': status.disk(relay.state_dir),
            'state_dir': {'path': str(relay.state_dir), 'size_bytes': size},
            'database': {
                'driver': 'sqlite3',
                'size_bytes': status.databases(relay.state_dir),
            },
        }
    )


def _status(relay: Relay) -> dict[str, Any]:
    told = status.processes(relay)
    messages = status.traffic(relay, told)
    peers = status.peers(relay)
    answer: dict[str, Any] = {
        'version': status.version(),
        'imap': {
            'connections': told['imap_connections'],
            'unique_ips': told['imap_unique_ips'],
        },
        'turn': turn.usage(told),
        'shadowsocks': proxy.usage(told),
        'users': {'registered': status.users(told)},
        'uptime': {
            'boot_time': times.text(told['boot_time']),
            'duration': times.duration(status.uptime(told)),
        },
        'sent_messages': messages['sent'],
        'outbound_messages': peers['outbound'],
        'received_messages': messages['received'],
        'message_retention': _retention(relay),
        'push': _push(relay, told),
    }
    if peers['served']:
        answer['email_servers'] = {
            'connections': peers['served'],
            'connection_ips': peers['served'],
            'domain_servers': peers['served'] - peers['ip_servers'],
            'ip_servers': peers['ip_servers'],
        }
    if peers['known']:
        answer['federation_traffic'] = {
            'inbound': messages['received'],
            'outbound': peers['outbound'],
            'queued': peers['queued'],
            'expired': peers['failed'],
            'mean_latency_ms': peers['mean_latency_ms'],
            'health': peers['health'],
        }
    return answer


def _push(relay: Relay, told: dict[str, Any]) -> dict[str, Any]:
    state = push.state(relay, told)
    return {
        'enabled': state['running'],
        'mode': state['mode'],
        'successful_notifications': state['sent'],
        'consecutive_failures': state['failures'],
        'auto_disable_after': state['threshold'],
    }


def _retention(relay: Relay) -> dict[str, Any]:
    age: int = relay.settings['retention.messages']
    days = age // DAY or 30
    return {'enabled': age > 0, 'days': days, 'retention': f'{days}d'}


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/status': {'GET': get_status},
    '/admin/overview': {'GET': get_overview},
    '/admin/storage': {'GET': get_storage},
}
