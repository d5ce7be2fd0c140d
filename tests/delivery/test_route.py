"""Where mail for a domain goes, and in which order."""

from __future__ import annotations

from typing import Any

from madmail.delivery.dns import Answer, Status
from madmail.delivery.federation import Override, target
from madmail.delivery.route import HOSTS_LIMIT, NO_DNS, NO_DOMAIN, NO_HOST, NULL_MX, Hop, Router
from madmail.settings import Settings
from madmail.smtp.reply import Reply


class Exchangers:
    """A resolver that knows the mail exchangers of every domain."""

    def __init__(self, *values: tuple[int, str], status: Status = Status.FOUND) -> None:
        self.answer: Answer[tuple[int, str]] = Answer(status, tuple(sorted(values)), 60, True)

        self.own = Status.FOUND  # of the domain's own address

    def mx(self, domain: str) -> Answer[tuple[int, str]]:
        return self.answer

    def addresses(self, host: str) -> Answer[str]:
        assert host == 'two.example'
        return Answer(self.own, ('192.0.2.1',) if self.own is Status.FOUND else (), 60, True)


def hops(
    names: Any, domain: str = 'two.example', override: Override | None = None, **settings: Any
) -> list[Hop]:
    router = Router(names, lambda domain: override, Settings.defaults(**settings))
    found = router.hops(domain)
    assert not isinstance(found, Reply)
    return list(found)


def hosts(names: Any) -> list[str]:
    return [hop.host for hop in hops(names, federation__transports=['smtp'])]


def test_exchangers_come_in_order_of_preference() -> None:
    assert hosts(Exchangers((30, 'c.example'), (10, 'b.example'), (20, 'a.example'))) == [
        'b.example',
        'a.example',
        'c.example',
    ]


def test_exchangers_of_one_preference_share_the_load() -> None:
    names = Exchangers((10, 'a.example'), (10, 'b.example'), (10, 'c.example'), (20, 'd.example'))
    seen = [hosts(names) for _ in range(500)]
    assert {one[0] for one in seen} == {'a.example', 'b.example', 'c.example'}
    assert {one[3] for one in seen} == {'d.example'}


def test_a_domain_without_exchangers_is_its_own() -> None:
    assert hosts(Exchangers(status=Status.NO_DATA)) == ['two.example']


def test_many_exchangers_are_not_all_tried() -> None:
    names = Exchangers(*((n, f'h{n}.example') for n in range(20)))
    assert hosts(names) == [f'h{n}.example' for n in range(HOSTS_LIMIT)]


def _without_host(own: Status) -> Exchangers:
    names = Exchangers(status=Status.NO_DATA)
    names.own = own
    return names


def test_why_there_is_no_way() -> None:
    for names, reply in (
        (Exchangers((0, '')), NULL_MX),
        (Exchangers(status=Status.NO_NAME), NO_DOMAIN),
        (Exchangers(status=Status.FAILED), NO_DNS),
        (_without_host(Status.NO_DATA), NO_HOST),
        (_without_host(Status.FAILED), NO_DNS),
    ):
        router = Router(names, lambda domain: None, Settings.defaults())  # type: ignore[arg-type]
        assert router.hops('two.example') == reply


def test_a_null_exchanger_among_others_means_nothing() -> None:
    assert hosts(Exchangers((0, ''), (10, 'a.example'))) == ['a.example']


def test_an_endpoint_of_the_operator_is_no_matter_of_the_domain() -> None:
    [hop] = hops(Exchangers(), override=target('smtp://smart.example:587'))
    assert (hop.host, hop.port, hop.relay, hop.insist) == ('smart.example', 587, '', True)
    [hop] = hops(Exchangers(), override=target('smtp://smart.example', verify=False))
    assert not hop.insist
    [hop] = hops(Exchangers(), override=target('smtp://192.0.2.1', verify=True))
    assert hop.insist
    bare = hops(Exchangers(), override=target('smart.example'))
    assert [hop.transport for hop in bare] == ['https', 'http', 'smtp']
    assert not any(hop.relay or hop.insist for hop in bare)
    assert {hop.relay for hop in hops(Exchangers((10, 'a.example')))} == {'two.example'}
