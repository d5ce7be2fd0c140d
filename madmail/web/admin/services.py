"""/admin/services/<name>: what can be switched on and off."""

from __future__ import annotations

from functools import partial
from typing import Any

from madmail.admin import catalogue, panel, push
from madmail.admin.catalogue import Switch
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler
from madmail.web.admin.settings import word


def get(switch: Switch, relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"status": "enabled" or "disabled"}`."""
    return Answer(body={'status': word(panel.is_on(relay, switch))})


def post(switch: Switch, relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` is `enable` or `disable`: `{"status"}`, which is in force; 400 with the reason
    for what this relay does not have.
    """
    panel.turn(relay, switch, fields.switch(body))
    return Answer(body={'status': word(panel.is_on(relay, switch))})


def get_push(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"status", "mode", "successful_notifications", "consecutive_failures",
    "auto_disable_after"}`; `status` is `disabled`, too, while the mode is `auto` and the
    service does not answer.
    """
    state = push.state(relay)
    answer = {
        'status': word(state['running']),
        'mode': state['mode'],
        'successful_notifications': state['sent'],
        'consecutive_failures': state['failures'],
        'auto_disable_after': state['threshold'],
    }
    return Answer(body=answer)


def post_push(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` is `enable` or `on`, `disable` or `off`, or `auto`: `{"status", "mode"}`."""
    action = fields.action(body, 'enable', 'on', 'disable', 'off', 'auto')
    push.switch(relay, {'enable': 'on', 'disable': 'off'}.get(action, action))
    state = push.state(relay)
    return Answer(body={'status': word(state['running']), 'mode': state['mode']})


def get_webmail(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"status", "browser_access_enabled", "webimap_enabled", "websmtp_enabled",
    "cors_origins", "cors_origins_list"}`.
    """
    on = [panel.is_on(relay, catalogue.SERVICES[name]) for name in ('webimap', 'websmtp')]
    origins = panel.value(relay, catalogue.VALUES['webmail_cors_origins'])['value']
    return Answer(
        body={
            'status': word(all(on)),
            'browser_access_enabled': all(on),
            'webimap_enabled': word(on[0]),
            'websmtp_enabled': word(on[1]),
            'cors_origins': origins,
            'cors_origins_list': [one for one in origins.split(',') if one],
        }
    )


def post_webmail(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` is `enable`, `add_origin` (with `origin`) or `disable`; answers as GET, and with
    `origin` where one may be given; `status` is `ok` after `add_origin`.
    """
    action = fields.action(body, 'enable', 'add_origin', 'disable')
    origin = fields.text(body, 'origin', None if action == 'add_origin' else '')
    if origin and action != 'disable':  # first, for it may be refused
        one = catalogue.VALUES['webmail_cors_origins']
        known = panel.value(relay, one)['value']
        panel.set_(relay, one, f'{known},{origin}' if known else origin)
    for name in ('webimap', 'websmtp'):
        if action != 'add_origin':
            panel.turn(relay, catalogue.SERVICES[name], action == 'enable')
    answer = dict(get_webmail(relay, {}).body)
    if action == 'add_origin':
        answer['status'] = 'ok'
    if action != 'disable':
        answer['origin'] = origin
    return Answer(body=answer)


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/services/push': {'GET': get_push, 'POST': post_push},
    '/admin/services/webmail_dev': {'GET': get_webmail, 'POST': post_webmail},
    **{
        f'/admin/services/{name}': {'GET': partial(get, switch), 'POST': partial(post, switch)}
        for name, switch in catalogue.SERVICES.items()
        if name != 'shadowsocks'  # see `proxy`
    },
}
