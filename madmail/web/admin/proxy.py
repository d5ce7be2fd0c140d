"""/admin/services/shadowsocks: the Shadowsocks proxy and the link for its users."""

from __future__ import annotations

from typing import Any

from madmail.admin import proxy
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler
from madmail.web.admin.invitations import get_code
from madmail.web.admin.settings import word


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"status", "configured", "answers", "port", "cipher", "connections", "unique_ips"}`.

    With `secrets` true also `url`, the `ss://` link that holds the password (empty where there is
    no proxy), and `code`, the link as /admin/code tells it.
    """
    found = proxy.state(relay)
    answer: dict[str, Any] = {'status': word(found['enabled'])}
    for name in ('configured', 'answers', 'port', 'cipher', 'connections', 'unique_ips'):
        answer[name] = found[name]
    if fields.boolean(body, 'secrets', False):
        url = answer['url'] = found['shadowsocks_url']
        answer['code'] = get_code(relay, {'text': url}).body if url else None
    return Answer(body=answer)


def post(relay: Relay, body: dict[str, Any]) -> Answer:
    """`action` is `enable` (a password is made if there is none) or `disable`:
    `{"status", "restart_required": false}`, which is in force.
    """
    on = fields.switch(body)
    proxy.turn(relay, on)
    return Answer(body={'status': word(on), 'restart_required': False})


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/services/shadowsocks': {'GET': get, 'POST': post}
}
