"""/admin/bandwidth: how much the relay has carried."""

from __future__ import annotations

from typing import Any

from madmail.admin import bandwidth
from madmail.admin.relay import Relay
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler


def get(relay: Relay, body: dict[str, Any]) -> Answer:
    """`{"by", "periods": [{"period", "received", "sent", "services"}]}`, newest first.

    `by` is `day` or `month`, `count` how many; with `username` `{"username", "months":
    [{"month", "received", "sent"}]}`, where `accounts.bandwidth` is on.
    """
    username = fields.text(body, 'username', '')
    if username:
        address = relay.address(username)
        months = bandwidth.account(relay, address)
        return Answer(body={'username': address, 'months': months})
    by = fields.text(body, 'by', 'day')
    count = fields.integer(body, 'count', 0, least=0, most=1000)
    return Answer(body={'by': by, 'periods': bandwidth.installation(relay, by, count)})


RESOURCES: dict[str, dict[str, Handler]] = {'/admin/bandwidth': {'GET': get}}
