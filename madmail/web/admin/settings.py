"""/admin/settings and /admin/settings/<name>: settings by the names that panels know."""

from __future__ import annotations

from functools import partial
from typing import Any

from madmail.admin import catalogue, federation, panel, proxy, registration, sizes
from madmail.admin.catalogue import Name
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler

TEXT_LIMIT = 4096  # characters


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """All settings as one object: words and, for those with a resource of their own, objects
    of `key`, `value`, `is_set` and `restart_required`.

    `is_set` means changed while the relay runs.  Secrets are masked unless `secrets` is
    true.
    """
    return Answer(body=everything(relay, body))


def everything(relay: Relay, body: dict[str, Any]) -> dict[str, Any]:
    secrets = fields.boolean(body, 'secrets', False)
    rules = registration.status(relay)
    state = federation.state(relay)
    message = sizes.state(relay, sizes.MESSAGE)
    answer: dict[str, Any] = {
        'registration': 'closed' if rules['registration'] == 'closed' else 'open',
        'jit_registration': word(rules['jit_enabled']),
        'registration_token_required': word(rules['token_required']),
        'allow_inbound_remote_rcpt': 'disabled',
        'push_enabled': word(relay.settings['push.mode'] != 'off'),
        'push_mode': relay.settings['push.mode'],
        # It holds the password.
        'shadowsocks_url': proxy.link(relay.settings) if secrets else '',
        'federation_enabled': state['enabled'],
        'federation_policy': state['policy'],
        'message_size_effective': message['effective'],
        'message_size_effective_bytes': message['effective_bytes'],
        'log_disabled': 'true' if relay.settings['log'] == 'off' else 'false',
    }
    limits = sizes.state(relay, sizes.FEDERATION)
    answer['federation_size_effective'] = limits['effective']
    answer['federation_size_effective_bytes'] = limits['effective_bytes']
    for name, switch in catalogue.SERVICES.items():
        member = 'ss_enabled' if name == 'shadowsocks' else f'{name}_enabled'
        answer[member] = word(panel.is_on(relay, switch))
    for name, one in catalogue.LOCAL_ONLY.items():
        local = panel.value(relay, one)['value'] == 'true'
        answer[f'{name.removesuffix("_local_only")}_access'] = 'local' if local else 'public'
    for name, one in catalogue.VALUES.items():
        answer[name] = panel.value(relay, one, secrets=secrets)
    return answer


def word(on: bool) -> str:
    return 'enabled' if on else 'disabled'


def get_one(one: Name, relay: Relay, body: dict[str, Any]) -> Answer:
    """`key`, `value` (in force), `is_set` and `restart_required`; masked as in /admin/settings."""
    return Answer(body=panel.value(relay, one, secrets=fields.boolean(body, 'secrets', False)))


def post_one(one: Name, relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` `set` with `value` (text, number or truth value), or `reset`; answers as GET."""
    if fields.action(body, 'set', 'reset') == 'reset':
        panel.reset(relay, one)
    else:
        panel.set_(relay, one, _text(body))
    return Answer(body=panel.value(relay, one))


def get_token_required(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"status"}`: enabled while accounts are made with registration tokens only."""
    return Answer(body={'status': word(registration.status(relay)['token_required'])})


def post_token_required(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` is `enable`, `disable` (registration is open then), or `set` with `value`."""
    wanted = _switched(body)
    if wanted != registration.status(relay)['token_required']:
        registration.set_registration(relay, 'token' if wanted else 'open')
    return get_token_required(relay, {})


def get_remote_rcpt(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"status": "disabled"}`: strangers never send mail through this relay."""
    return Answer(body={'status': 'disabled'})


def post_remote_rcpt(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` `disable`, or `set` with a false `value`; nothing else."""
    if _switched(body):
        raise Refused('invalid', 'this relay is no open relay, whatever is asked')
    return get_remote_rcpt(relay, {})


def _text(body: dict[str, Any]) -> str:
    value = body.get('value')
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, int | float):
        return str(value)
    return fields.text(body, 'value', limit=TEXT_LIMIT)


def _switched(body: dict[str, Any]) -> bool:
    action = fields.action(body, 'enable', 'disable', 'set')
    if action != 'set':
        return action == 'enable'
    return _text(body).lower() in panel.TRUE


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/settings': {'GET': get},
    '/admin/settings/registration_token_required': {
        'GET': get_token_required,
        'POST': post_token_required,
    },
    '/admin/settings/allow_inbound_remote_rcpt': {
        'GET': get_remote_rcpt,
        'POST': post_remote_rcpt,
    },
    **{
        f'/admin/settings/{name}': {'GET': partial(get_one, one), 'POST': partial(post_one, one)}
        for name, one in {**catalogue.VALUES, **catalogue.LOCAL_ONLY}.items()
    },
}
