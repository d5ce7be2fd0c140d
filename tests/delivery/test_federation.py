"""Federation rules: spelling, policy, dismissal, endpoints; and who asks them."""

import subprocess
import sys
from pathlib import Path

import pytest

from madmail.delivery.federation import BadDomain, BadTarget, Federation, Override, key, target
from madmail.delivery.policy import Policy
from madmail.delivery.router import ID_LENGTH, Router
from madmail.settings import Settings
from madmail.store.control import Control, LiveSettings
from madmail.store.spool import MemoryBody
from tests.delivery.double import MemoryStore

OWN = 'relay.example'


class Rules:
    """A Federation and the tables under it."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.settings = Settings.defaults(**settings)
        self.control = Control(directory)
        self.federation = Federation(directory, self.settings, OWN)

    def rule(self, *domains: str) -> None:
        for domain in domains:
            self.control.add_rule(key(domain), 1)
        self.federation.reload()

    def endpoint(self, domain: str, where: str, verify: bool | None = None) -> None:
        self.control.set_endpoint(key(domain, every=True), where, verify, '', 1)
        self.federation.reload()


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return Rules(tmp_path)


def test_a_change_that_nobody_told_of_is_found(rules: Rules) -> None:
    federation = rules.federation
    assert not federation.refresh()
    rules.control.add_rule('other.example', 1)
    assert federation.outbound('other.example') is None
    assert federation.refresh()
    assert federation.outbound('other.example') is not None
    assert not federation.refresh()


@pytest.mark.parametrize(
    ('text', 'spelling'),
    [
        ('Other.EXAMPLE.', 'other.example'),
        (' other.example ', 'other.example'),
        ('bücher.example', 'xn--bcher-kva.example'),
        ('203.0.113.9', '[203.0.113.9]'),
        ('[203.0.113.9]', '[203.0.113.9]'),
        ('2001:DB8::1', '[ipv6:2001:db8::1]'),
        ('[IPv6:2001:db8:0:0::1]', '[ipv6:2001:db8::1]'),
        ('*.Other.example', '*.other.example'),
        ('_odd.example', '_odd.example'),
    ],
)
def test_a_domain_has_one_spelling(text: str, spelling: str) -> None:
    assert key(text) == spelling


@pytest.mark.parametrize('text', ['', '*', '*.', '*.[1.2.3.4]', 'a b', 'a..b', '@x', 'a/b', '-'])
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(BadDomain):
        key(text)


SPELLINGS = [
    ('other.example', 'OTHER.example'),
    ('bücher.example', 'xn--bcher-kva.example'),
    ('203.0.113.9', '[203.0.113.9]'),
    ('[203.0.113.9]', '203.0.113.9'),
    ('2001:db8::1', '[IPv6:2001:DB8::0001]'),
]


@pytest.mark.parametrize(('rule', 'asked'), SPELLINGS)
def test_accept_blocks_who_has_a_rule_in_any_spelling(rules: Rules, rule: str, asked: str) -> None:
    rules.rule(rule)
    inbound, outbound = rules.federation.inbound(asked), rules.federation.outbound(asked)
    assert inbound is not None
    assert outbound is not None
    assert inbound.line() == b'554 5.7.1 Policy Rejection\r\n'
    assert outbound.line() == b'550 5.7.1 Policy Rejection\r\n'
    assert rules.federation.inbound('third.example') is None
    assert rules.federation.outbound('third.example') is None


@pytest.mark.parametrize(('rule', 'asked'), SPELLINGS)
def test_reject_lets_only_those_pass_that_have_a_rule(
    tmp_path: Path, rule: str, asked: str
) -> None:
    rules = Rules(tmp_path, federation__policy='reject')
    rules.rule(rule)
    assert rules.federation.inbound(asked) is None
    assert rules.federation.outbound(asked) is None
    assert rules.federation.inbound('third.example') is not None
    assert rules.federation.outbound('third.example') is not None


@pytest.mark.parametrize('policy', ['accept', 'reject'])
def test_no_rule_touches_ourselves_or_the_null_sender(tmp_path: Path, policy: str) -> None:
    rules = Rules(tmp_path, federation__policy=policy)
    if policy == 'accept':
        rules.rule(OWN)
    assert rules.federation.inbound(OWN.upper()) is None
    assert rules.federation.outbound(OWN) is None
    assert rules.federation.inbound('') is None


def test_a_name_does_not_mean_the_names_below_it(rules: Rules) -> None:
    rules.rule('other.example', '*.below.example')
    blocked = {
        name: rules.federation.inbound(name) is not None
        for name in ('other.example', 'mx.other.example', 'below.example', 'a.b.below.example')
    }
    assert blocked == {
        'other.example': True,
        'mx.other.example': False,
        'below.example': False,
        'a.b.below.example': True,
    }


def test_the_switch_closes_both_directions_but_not_ourselves(tmp_path: Path) -> None:
    rules = Rules(tmp_path, federation__enabled=False)
    for domain in ('third.example', '', OWN):
        reply = rules.federation.inbound(domain)
        assert reply is not None
        assert reply.code == 554
    reply = rules.federation.outbound('third.example')
    assert reply is not None
    assert reply.code == 550
    assert rules.federation.outbound(OWN) is None


def test_changed_settings_hold_at_once(rules: Rules) -> None:
    rules.settings.change('federation.policy', 'reject')
    assert rules.federation.inbound('third.example') is not None
    rules.settings.change('federation.policy', None)
    assert rules.federation.inbound('third.example') is None


def test_dismissed_are_others_only(rules: Rules) -> None:
    rules.control.dismiss(key('[192.0.2.1]'), 1)
    rules.control.dismiss(OWN, 1)
    rules.federation.reload()
    assert rules.federation.dismissed('192.0.2.1')
    assert rules.federation.dismissed('[192.0.2.1]')
    assert not rules.federation.dismissed(OWN)
    assert not rules.federation.dismissed('third.example')


@pytest.mark.parametrize(
    ('text', 'override'),
    [
        ('https://127.0.0.1:8443', Override('https', '127.0.0.1', 8443, '/mxdeliv', False)),
        ('https://Relay.Example', Override('https', 'relay.example', 0, '/mxdeliv', True)),
        ('HTTP://relay.example:80/', Override('http', 'relay.example', 80, '/mxdeliv', True)),
        ('http://relay.example/in?x=1', Override('http', 'relay.example', 0, '/in?x=1', True)),
        ('https://[2001:db8::1]:8443', Override('https', '2001:db8::1', 8443, '/mxdeliv', False)),
        ('smtp://127.0.0.1:2525', Override('smtp', '127.0.0.1', 2525, '', False)),
        ('smtp://mx.example', Override('smtp', 'mx.example', 0, '', True)),
        ('relay.example', Override('', 'relay.example', 0, '/mxdeliv', True)),
        ('relay.example:8443', Override('', 'relay.example', 8443, '/mxdeliv', True)),
        ('_relay.example', Override('', '_relay.example', 0, '/mxdeliv', False)),
        ('192.0.2.1', Override('', '192.0.2.1', 0, '/mxdeliv', False)),
        ('2001:db8::1', Override('', '2001:db8::1', 0, '/mxdeliv', False)),
        ('localhost:1', Override('', 'localhost', 1, '/mxdeliv', False)),
    ],
)
def test_an_endpoint_has_scheme_host_port_and_path(text: str, override: Override) -> None:
    assert target(text) == override
    assert target(text, True).verify
    assert not target(text, False).verify


@pytest.mark.parametrize(
    'text',
    [
        '',
        'https://',
        'ftp://x',
        'https://u:p@x',
        'https://x:99999',
        'https://x:y',
        'a b',
        'https://x#y',
        'smtp://x/mxdeliv',
        'https://x\r\ny',
        'https://[::1',
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(BadTarget):
        target(text)


def test_the_most_exact_endpoint_wins(rules: Rules) -> None:
    assert rules.federation.override('other.example') is None
    rules.endpoint('*', 'https://every')
    rules.endpoint('*.example', 'https://below')
    rules.endpoint('*.other.example', 'https://nearer')
    rules.endpoint('Other.example', 'https://exact')
    rules.endpoint('192.0.2.1', 'https://literal')
    hosts = {
        domain: found.host if (found := rules.federation.override(domain)) else None
        for domain in ('other.example', 'a.other.example', 'b.example', 'c.test', '[192.0.2.1]')
    }
    assert hosts == {
        'other.example': 'exact',
        'a.other.example': 'nearer',
        'b.example': 'below',
        'c.test': 'every',
        '[192.0.2.1]': 'literal',
    }


def test_an_endpoint_is_no_rule(rules: Rules) -> None:
    rules.endpoint('other.example', 'https://127.0.0.1:8443')
    assert rules.federation.outbound('other.example') is None
    assert rules.federation.inbound('other.example') is None


def test_live_settings_come_and_go(tmp_path: Path) -> None:
    settings = Settings.defaults({'federation.policy': 'reject'})
    control = Control(tmp_path)
    control.set_setting('federation.policy', 'accept')
    control.set_setting('limits.send_burst', '7')
    control.set_setting('limits.quota', 'much')
    control.set_setting('domain', 'evil.example')
    control.set_setting('from.the.future', '1')
    live = LiveSettings(tmp_path, settings)
    assert settings['federation.policy'] == 'accept'
    assert settings['limits.send_burst'] == 7
    assert settings['domain'] == 'localhost'
    control.remove_setting('federation.policy')
    control.remove_setting('limits.send_burst')
    live.reload()
    assert settings['federation.policy'] == 'reject'
    assert settings['limits.send_burst'] == Settings.defaults()['limits.send_burst']


def test_the_change_counter_sees_what_others_write(tmp_path: Path) -> None:
    ours, theirs = Control(tmp_path), Control(tmp_path)
    before = ours.changes()
    assert ours.changes() == before
    theirs.add_rule('other.example', 1)
    assert ours.changes() != before


def test_connections_of_one_process_do_not_take_each_others_locks(tmp_path: Path) -> None:
    ours = [Control(tmp_path) for _ in range(3)]
    program = (
        'import sys; from pathlib import Path; from madmail.store.control import Control\n'
        'control = Control(Path(sys.argv[1])); control.add_rule(sys.argv[2], 1); control.close()'
    )
    for number in range(3):
        subprocess.run(
            [sys.executable, '-c', program, str(tmp_path), f'other{number}.example'],
            cwd=Path(__file__).parents[2],
            check=True,
        )
        for control in ours:
            assert len(control.rules()) == number + 1


# -- who asks


def _router(rules: Rules, store: MemoryStore, **kinds: object) -> Router:
    return Router(
        store,  # type: ignore[arg-type]
        lambda *_: [],
        own_shard=0,
        shard_of=lambda address: 0,
        settings=rules.settings,
        domain=OWN,
        federation=rules.federation,
    )


def test_dismissed_mail_is_taken_and_leaves_nothing(rules: Rules) -> None:
    rules.control.dismiss('gone.example', 1)
    rules.federation.reload()
    store = MemoryStore(f'bob@{OWN}')
    router = _router(rules, store)
    names = ['x@gone.example', 'y@other.example', f'bob@{OWN}']
    assert router.submit(f'alice@{OWN}', names, MemoryBody(b'x: y\r\n\r\n')).code == 250
    assert [entry.domain for entry in store.outbox] == ['other.example']
    assert len(store.boxes[f'bob@{OWN}']) == 1


def test_a_message_received_twice_under_its_id_is_stored_once(rules: Rules) -> None:
    store = MemoryStore(f'bob@{OWN}')
    router = _router(rules, store)
    for message_id in (bytes(ID_LENGTH), bytes(ID_LENGTH), b'\1' * ID_LENGTH):
        reply = router.receive([f'bob@{OWN}'], MemoryBody(b'x: y\r\n\r\n'), message_id)
        assert reply.code == 250
    assert len(store.boxes[f'bob@{OWN}']) == 2


def test_policy_asks_about_the_reverse_path_and_about_the_author(rules: Rules) -> None:
    rules.rule('bad.example')
    policy = Policy(OWN, rules.settings, rules.federation)
    assert policy.inbound_sender(None) is None
    assert policy.inbound_author('x@bad.example') is not None
    assert policy.inbound_author('x@good.example') is None
    assert policy.outbound_recipient('x@bad.example') is not None
    assert policy.outbound_recipient(f'bob@{OWN}') is None
