"""Settings: typed, checked, and wrong ones told with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.settings import Address, SettingError, Settings, load
from madmail.settings import sample as sample_file
from madmail.settings.declarations import SECTIONS, SETTINGS

BAD = sorted((Path(__file__).parent / 'bad_configs').glob('*.yaml'))
CHECKOUT = Path(__file__).resolve().parents[2]


def written(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / 'madmail.yaml'
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize('path', BAD, ids=lambda path: path.stem)
def test_a_broken_configuration_says_where_and_why(path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        load(path)
    assert str(caught.value) == f'{path}{path.with_suffix(".expected").read_text().rstrip()}'


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r'missing\.yaml: cannot be read: No such file'):
        load(tmp_path / 'missing.yaml')
    with pytest.raises(SettingError, match='cannot be read: Is a directory'):
        load(tmp_path)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    settings = written(tmp_path, '# nothing\n')
    assert {name: settings[name] for name in SETTINGS} == {
        name: setting.default for name, setting in SETTINGS.items()
    }


def test_values_are_typed(tmp_path: Path) -> None:
    settings = written(
        tmp_path,
        """
domain: Chat.Example.ORG
state_dir: state
log: off
listen:
  smtp: 0.0.0.0:2525
  imap: ['127.0.0.1', '[::1]:1143']
  imaps: 1993
processes: {gates: 2, shards: auto}
policy: {plaintext_login: yes}
limits: {quota: 1G, login_time: 2m, max_message_size: 1000, imap_idle: 20d}
""",
    )
    assert settings['domain'] == 'chat.example.org'
    assert settings['state_dir'] == tmp_path / 'state'
    assert settings['log'] == 'off'
    assert settings['listen.smtp'] == (Address('0.0.0.0', 2525),)
    assert settings['listen.imap'] == (Address('127.0.0.1', 143), Address('::1', 1143))
    assert settings['listen.imaps'] == (Address('0.0.0.0', 1993),)
    assert settings['listen.submission'] == ()
    assert settings['processes.gates'] == 2
    assert settings['processes.shards'] == 0
    assert settings['policy.plaintext_login'] is True
    assert settings['limits.quota'] == 1024**3
    assert settings['limits.login_time'] == 120
    assert settings['limits.max_message_size'] == 1000
    assert settings['limits.imap_idle'] == 20 * 86400
    assert settings.origin == tmp_path / 'madmail.yaml'
    assert settings.source('limits.quota') == 'file'
    assert settings.source('limits.send_burst') == 'default'


@pytest.mark.parametrize(
    ('text', 'domain'),
    [
        ('203.0.113.5', '203.0.113.5'),
        ('[203.0.113.5]', '203.0.113.5'),
        ('"[203.0.113.5]"', '203.0.113.5'),
        ('2001:DB8::5', '2001:db8::5'),
        ('[2001:db8::5]', '2001:db8::5'),
        ('"[IPv6:2001:db8::5]"', '2001:db8::5'),
        ('bücher.example', 'xn--bcher-kva.example'),
        ('localhost', 'localhost'),
    ],
)
def test_domains(tmp_path: Path, text: str, domain: str) -> None:
    assert written(tmp_path, f'domain: {text}\n')['domain'] == domain


def test_without_a_listen_section_the_usual_ports_are_used(tmp_path: Path) -> None:
    settings = written(tmp_path, 'domain: a.example\n')
    assert settings['listen.imaps'] == (Address('0.0.0.0', 993),)
    assert written(tmp_path, 'listen:\n  imap: []\n')['listen.imaps'] == ()


def test_the_declared_defaults_of_the_contract() -> None:
    settings = Settings.defaults()
    assert settings['limits.max_message_size'] == 31457280
    assert settings['limits.quota'] == 524288000
    assert settings['limits.command_line'] == 65536
    assert settings['queue.lifetime'] == 172800
    assert settings['policy.require_encryption'] is True
    assert settings['policy.plaintext_login'] is False


def test_overrides_of_tests_are_checked() -> None:
    settings = Settings.defaults({'limits.quota': '2M'}, limits__send_burst=5)
    assert settings['limits.quota'] == 2 * 1024**2
    assert settings['limits.send_burst'] == 5
    with pytest.raises(SettingError, match=r'did you mean limits\.send_burst'):
        Settings.defaults(limits__send_brust=5)
    with pytest.raises(SettingError, match=r'limits\.send_burst: expected a whole number'):
        Settings.defaults(limits__send_burst='ten')


def test_live_changes_apply_and_go_back() -> None:
    settings = Settings.defaults(limits__send_burst=5)
    settings.change('limits.send_burst', '7')
    assert settings['limits.send_burst'] == 7
    assert settings.source('limits.send_burst') == 'live'
    settings.change('limits.send_burst', None)
    assert settings['limits.send_burst'] == 5
    settings.change('policy.plaintext_login', 'on')
    assert settings['policy.plaintext_login'] is True
    for name, text, why in [
        ('limits.send_burst', 'many', 'expected a whole number'),
        ('domain', 'b.example', 'does not apply live'),
        ('limits.nothing', '1', 'unknown setting'),
        ('accounts.username_max_length', '2', 'expected no less than'),
    ]:
        with pytest.raises(SettingError, match=why):
            settings.change(name, text)
    assert settings['accounts.username_max_length'] == 64


@given(st.text(max_size=60))
def test_any_text_is_settings_or_an_error(tmp_path_factory: pytest.TempPathFactory, text: str):
    path = tmp_path_factory.getbasetemp() / 'any.yaml'
    path.write_text(text, encoding='utf-8', errors='surrogatepass')
    said = str(path)
    try:
        load(path)
    except SettingError as error:
        said = str(error)
    assert said.startswith(str(path))


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=20))
def test_no_kind_breaks_on_any_text(name: str, text: str) -> None:
    try:
        Settings.defaults({name: text})
    except SettingError:
        return


def test_every_setting_has_a_section_and_a_sentence() -> None:
    for setting in SETTINGS.values():
        assert setting.section in SECTIONS
        assert setting.doc.endswith('.')


def test_every_default_can_be_written_and_read_back(tmp_path: Path) -> None:
    for setting in SETTINGS.values():
        if setting.name in ('state_dir',):
            continue
        shown = setting.kind.show(setting.default)
        lines = f'{setting.name}: {shown}\n'
        if setting.section:
            section, key = setting.name.split('.')
            lines = f'{section}:\n  {key}: {shown}\n'
        assert written(tmp_path, lines)[setting.name] == setting.default


def test_the_sample_is_the_generated_one_and_loads() -> None:
    path = CHECKOUT / sample_file.SAMPLE
    assert path.read_text() == sample_file.sample()
    assert load(path)['domain'] == 'chat.example.org'


def test_the_sample_still_loads_when_everything_is_uncommented(tmp_path: Path) -> None:
    lines = [
        line.replace('#', '', 1)
        if line.lstrip().startswith('#') and line.lstrip()[1] not in ' #'
        else line
        for line in sample_file.sample().splitlines()
    ]
    settings = written(tmp_path, '\n'.join(lines))
    assert len(settings.given) == len(SETTINGS)


def test_the_reference_page_is_the_generated_one() -> None:
    assert (CHECKOUT / sample_file.REFERENCE).read_text() == sample_file.reference()
