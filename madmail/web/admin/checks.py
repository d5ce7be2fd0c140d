"""/admin/doctor and /admin/zone: what is wrong, and what the DNS should say."""

from __future__ import annotations

from typing import Any

from gevent.pool import Pool

from madmail.account.address import mail_domain
from madmail.admin import doctor, records
from madmail.admin.refused import Refused
from madmail.admin.relay import Relay
from madmail.delivery import zone
from madmail.delivery.dkim import Damaged, Keys
from madmail.delivery.zone import Look, Record
from madmail.web.admin import fields
from madmail.web.admin.answer import Answer, Handler

AT_ONCE = 8  # questions to name servers
LOOK_TIME = 20.0  # seconds for all of them


def get_doctor(relay: Relay, body: dict[str, Any]) -> Answer:
    """Look for what is wrong: `{"healthy", "bad", "warnings", "checks": [{"name", "level",
    "seen", "advice"}]}`; a level is ok, warn or bad.
    """
    return Answer(body=doctor.as_data(doctor.examine(relay)))


def get_zone(relay: Relay, body: dict[str, Any]) -> Answer:
    """DNS records the relay needs: `{"domain", "records", "zone", "warnings"}`; none on an IP
    address.

    A record has `name`, `type`, `ttl`, `expected`, `need` (required or recommended), `note`
    and `line`; `zone` is all of them as lines of a zone file. With `check` true name servers
    are asked, and it also has `seen` and `verdict`: ok, missing, different or unknown.
    """
    settings = relay.settings
    keys = Keys(relay.state_dir, mail_domain(settings['domain']), settings)
    try:
        wanted = records.wanted(settings, relay.state_dir, keys)
    except (Damaged, OSError) as error:
        raise Refused('failed', str(error)) from None
    if fields.boolean(body, 'check', False):
        found = zone.check(wanted, _looked(wanted, records.look(settings)))
        shown = [records.found_as_data(one) for one in found]
    else:
        shown = [records.as_data(one) for one in wanted]
    return Answer(
        body={
            'domain': settings['domain'],
            'records': shown,
            'zone': zone.text(wanted),
            'warnings': records.warnings(settings, relay.state_dir) if wanted else [],
        }
    )


def _looked(wanted: list[Record], look: Look) -> Look:
    """What a check will ask for, asked beforehand and side by side."""
    questions = {(one.name, one.kind) for one in wanted}
    for one in wanted:
        if one.kind == 'CNAME':
            questions |= {(name, kind) for name in _ends(one) for kind in ('A', 'AAAA')}
    answers: dict[tuple[str, str], tuple[str, ...] | None] = {}

    def ask(question: tuple[str, str]) -> None:
        answers[question] = look(*question)

    pool = Pool(AT_ONCE)
    for question in questions:
        pool.spawn(ask, question)
    pool.join(timeout=LOOK_TIME)
    pool.kill()
    return lambda name, kind: answers.get((name, kind))


def _ends(record: Record) -> tuple[str, str]:
    return record.name, record.data.rstrip('.')


RESOURCES: dict[str, dict[str, Handler]] = {
    '/admin/doctor': {'GET': get_doctor},
    '/admin/zone': {'GET': get_zone},
}
