"""The zone a relay needs: as lines to paste, and compared with what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dns.rdatatype
import dns.zone
import pytest

from madmail.delivery.dkim import Keys
from madmail.delivery.zone import Need, Record, Verdict, check, quoted, text, zone
from madmail.settings import Settings

DOMAIN = 'relay.example'
FOUR, SIX = '192.0.2.1', '2001:db8::1'


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path, DOMAIN, Settings.defaults())


def records(keys: Keys, *addresses: str, verifiable: bool = False, **settings: Any) -> list[Record]:
    return zone(Settings.defaults(**settings), keys, addresses, verifiable=verifiable)


def kinds(found: list[Record], need: Need) -> set[tuple[str, str]]:
    return {(one.name.removesuffix(DOMAIN), one.kind) for one in found if one.need is need}


def test_what_is_required_and_what_recommended(keys: Keys) -> None:
    found = records(keys, FOUR, SIX)
    assert kinds(found, Need.REQUIRED) == {
        ('', 'A'),
        ('', 'AAAA'),
        ('', 'MX'),
        ('madmail._domainkey.', 'TXT'),
    }
    assert {
        ('', 'TXT'),
        ('_dmarc.', 'TXT'),
        ('_submissions._tcp.', 'SRV'),
        ('_imaps._tcp.', 'SRV'),
    } < kinds(found, Need.RECOMMENDED)


def test_the_text_is_a_zone_file(keys: Keys) -> None:
    found = records(keys, FOUR, SIX, verifiable=True)
    soa = '@ 3600 IN SOA ns.x. h.x. 1 1 1 1 1\n@ 3600 IN NS ns.x.\n'
    parsed = dns.zone.from_text(soa + text(found), DOMAIN, relativize=False)
    for one in found:
        if one.kind == 'PTR':
            continue
        rdataset = parsed.get_rdataset(f'{one.name}.', one.kind)
        assert rdataset is not None
        if one.kind == 'TXT':
            values = {b''.join(value.strings).decode() for value in rdataset}
            assert all(len(string) <= 255 for value in rdataset for string in value.strings)
        else:
            values = {value.to_text() for value in rdataset}
        assert one.data in values
    key = parsed.get_rdataset(f'madmail._domainkey.{DOMAIN}.', 'TXT')
    assert len(key[0].strings) == 2


def test_addresses_that_nobody_knows_are_for_the_operator(keys: Keys) -> None:
    lines = text(records(keys)).splitlines()
    assert f'; {DOMAIN}. 3600 IN A <IPv4 address>' in lines
    assert f'; {DOMAIN}. 3600 IN AAAA <IPv6 address>' in lines
    assert '192.0.2.1' in text(records(keys, FOUR))
    assert '<IPv4' not in text(records(keys, FOUR))


def test_a_reverse_name_belongs_to_the_provider(keys: Keys) -> None:
    assert '; 1.2.0.192.in-addr.arpa. 3600 IN PTR relay.example.' in text(records(keys, FOUR))


def test_a_policy_of_certificates_only_with_a_valid_one(keys: Keys) -> None:
    assert 'STSv1' not in text(records(keys))
    policy = next(one for one in records(keys, verifiable=True) if one.name.startswith('_mta-sts'))
    assert policy.data.startswith('v=STSv1; id=')
    assert policy.data.rpartition('=')[2].isalnum()
    assert policy in records(keys, verifiable=True)
    for way in ('https', 'smtp'):
        without = {f'listen__{way}': []}
        assert 'STSv1' not in text(records(keys, verifiable=True, **without))


def test_an_authority_is_to_find_the_name_of_the_policy_before_it_certifies_it(keys: Keys) -> None:
    found = text(records(keys, tls__mode='acme'))
    assert f'mta-sts.{DOMAIN}.' in found
    assert 'STSv1' not in found
    assert 'letsencrypt.org' in found
    other = text(records(keys, tls__mode='acme', tls__acme_directory='https://ca.example/dir'))
    assert 'CAA' not in other


def test_services_are_those_that_listen(keys: Keys) -> None:
    found = records(keys, listen__imaps='0.0.0.0:1993')
    (service,) = [one for one in found if one.kind == 'SRV']
    assert (service.name, service.data) == (f'_imaps._tcp.{DOMAIN}', f'0 1 1993 {DOMAIN}.')


def test_keys_of_a_rotation(keys: Keys) -> None:
    keys.rotate()
    names = [
        one.name for one in records(keys) if '_domainkey' in one.name and one.need is Need.REQUIRED
    ]
    assert names == ['madmail._domainkey.relay.example', 'madmail2._domainkey.relay.example']
    keys.activate()
    retired = next(one for one in records(keys) if one.name.startswith('madmail.'))
    assert retired.need is Need.RECOMMENDED
    assert 'retired' in retired.note


@pytest.mark.parametrize('value', ['', 'x', 'x' * 255, 'x' * 256, 'a"b\\c', '"' * 300, 'x' * 999])
def test_quoting_is_undone_by_a_zone_file_reader(value: str) -> None:
    rdata = dns.rdata.from_text('IN', 'TXT', quoted(value) or '""')
    assert b''.join(rdata.strings).decode() == value


# -- what is published


class Published(dict[tuple[str, str], tuple[str, ...]]):
    def __init__(self, found: list[Record]) -> None:
        super().__init__()
        for one in found:
            if one.data:
                self[one.name, one.kind] = (*self.get((one.name, one.kind), ()), one.data)
        self.broken: set[str] = set()

    def __call__(self, name: str, kind: str) -> tuple[str, ...] | None:
        return None if name in self.broken else self.get((name, kind), ())


def verdicts(found: list[Record], published: Published) -> dict[tuple[str, str], Verdict]:
    return {
        (one.record.name.removesuffix(DOMAIN), one.record.kind): one.verdict
        for one in check(found, published)
        if one.verdict is not Verdict.OK
    }


def test_a_zone_that_is_as_it_should_be(keys: Keys) -> None:
    found = records(keys, FOUR, SIX, verifiable=True)
    assert verdicts(found, Published(found)) == {}


def test_nothing_published(keys: Keys) -> None:
    found = records(keys, FOUR)
    findings = check(found, Published([]))
    # The host may have no IPv6 address.
    missing = [one.record.kind for one in findings if one.verdict is not Verdict.MISSING]
    assert missing == ['AAAA']
    assert {one.record.kind for one in findings if one.serious} == {'A', 'MX', 'TXT'}


def test_placeholders_want_any_address(keys: Keys) -> None:
    found = records(keys)
    published = Published(found)
    assert verdicts(found, published) == {('', 'A'): Verdict.MISSING}
    published[DOMAIN, 'A'] = ('198.51.100.7',)
    assert verdicts(found, published) == {}


@pytest.mark.parametrize(
    ('name', 'kind', 'seen'),
    [
        ('', 'A', '192.0.2.9'),
        ('', 'MX', '10 other.example.'),
        ('', 'MX', '0 .'),
        ('madmail._domainkey.', 'TXT', 'v=DKIM1; p='),
        ('madmail._domainkey.', 'TXT', 'v=DKIM1; k=rsa; p=AAAA'),
        ('madmail._domainkey.', 'TXT', 'v=DKIM1; k=ed25519; p='),
        ('', 'TXT', 'v=spf1 -all'),
        ('_dmarc.', 'TXT', 'v=DMARC1; p=none'),
        ('_imaps._tcp.', 'SRV', '0 1 994 relay.example.'),
        ('www.', 'CNAME', 'other.example.'),
    ],
)
def test_other_values_are_different(keys: Keys, name: str, kind: str, seen: str) -> None:
    found = records(keys, FOUR)
    published = Published(found)
    published[name + DOMAIN, kind] = (seen,)
    assert verdicts(found, published) == {(name, kind): Verdict.DIFFERENT}


def test_the_same_in_another_spelling_is_ok(keys: Keys) -> None:
    found = records(keys, FOUR, verifiable=True)
    published = Published(found)
    key = next(one for one in found if '_domainkey' in one.name and 'DKIM1' in one.data)
    p = key.data.rpartition('p=')[2]
    published[key.name, 'TXT'] = (f'v=DKIM1; k=rsa; p={p[:99]} {p[99:]};',)
    published[DOMAIN, 'MX'] = ('5 Relay.Example.', '20 backup.example.')
    published[DOMAIN, 'TXT'] = ('google-site=x', 'v=spf1  a mx  ~all')
    published[DOMAIN, 'A'] = ('198.51.100.7', FOUR)
    published[f'_dmarc.{DOMAIN}', 'TXT'] = ('v=DMARC1; p=reject; adkim=s; aspf=s; rua=mailto:x@y',)
    published[f'_mta-sts.{DOMAIN}', 'TXT'] = ('v=STSv1; id=20261121',)
    assert verdicts(found, published) == {}


def test_other_texts_of_the_domain_are_not_taken_for_spf(keys: Keys) -> None:
    found = records(keys, FOUR)
    published = Published(found)
    published[DOMAIN, 'TXT'] = ('something else',)
    assert verdicts(found, published) == {('', 'TXT'): Verdict.MISSING}


def test_an_address_does_for_an_alias_if_it_is_ours(keys: Keys) -> None:
    found = records(keys, FOUR)
    published = Published(found)
    del published[f'www.{DOMAIN}', 'CNAME']
    assert verdicts(found, published) == {('www.', 'CNAME'): Verdict.MISSING}
    published[f'www.{DOMAIN}', 'A'] = (FOUR,)
    assert verdicts(found, published) == {}
    published[f'www.{DOMAIN}', 'A'] = ('192.0.2.99',)
    assert verdicts(found, published) == {('www.', 'CNAME'): Verdict.DIFFERENT}


def test_what_cannot_be_looked_up_is_not_called_missing(keys: Keys) -> None:
    found = records(keys, FOUR)
    published = Published(found)
    published.broken = {f'madmail._domainkey.{DOMAIN}', f'www.{DOMAIN}'}
    assert set(verdicts(found, published).values()) == {Verdict.UNKNOWN}
    assert any(one.serious for one in check(found, published))
