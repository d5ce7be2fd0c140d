"""The command line: argument forms, JSON shapes, exit codes, with and without a relay."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest

from madmail import __version__
from madmail.account import dclogin
from madmail.account.address import mail_domain
from madmail.cli.main import main
from madmail.cli.result import duration, size, table
from madmail.settings import Address, Settings, load

CHECKOUT = Path(__file__).resolve().parents[2]


class Shell:
    """Runs commands against one state directory, in this process."""

    def __init__(self, config: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self.capture = capture

    def __call__(self, *words: str) -> tuple[int, str, str]:
        try:
            code = main(['--config', str(self.config), *words])
        except SystemExit as ended:
            code = int(str(ended.code))
        said = self.capture.readouterr()
        return code, said.out, said.err

    def data(self, *words: str) -> Any:
        code, out, err = self('--json', *words)
        assert (code, err) == (0, ''), err
        assert out.count('\n') == 1
        answer = json.loads(out)
        assert answer['ok'] is True
        return answer['data']

    def error(self, *words: str) -> str:
        code, out, err = self('--json', *words)
        assert (code, out) == (1, '')
        answer = json.loads(err)
        assert answer['ok'] is False
        return str(answer['error'])


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    config = tmp_path / 'madmail.yaml'
    config.write_text('domain: chat.example\nstate_dir: state\nprocesses: {shards: 2}\n')
    shell = Shell(config, capsys)
    assert shell('init')[0] == 0
    return shell


def test_global_options_before_and_after_the_command(shell: Shell) -> None:
    expected = (
        f'{{"ok":true,"command":"version","data":{{"name":"madmail","version":"{__version__}"}}}}\n'
    )
    for words in (['--json', 'version'], ['version', '--json']):
        assert main(words) == 0
        assert shell.capture.readouterr() == (expected, '')
    assert shell('--version') == (0, f'madmail {__version__}\n', '')
    config = ['--config', str(shell.config)]
    for words in (
        [*config, '--json', 'accounts', 'list'],
        ['accounts', *config, 'list', '--json'],
        ['accounts', '--json', 'list', *config],
    ):
        assert main(words) == 0
        answer = json.loads(shell.capture.readouterr().out)
        assert answer == {
            'ok': True,
            'command': 'accounts list',
            'data': {'accounts': [], 'total': 0},
        }


@pytest.mark.parametrize(
    'words', [['nonsense'], ['accounts'], ['accounts', 'info'], ['version', '--colour']]
)
def test_wrong_usage_is_exit_2(shell: Shell, words: list[str]) -> None:
    code, out, err = shell(*words)
    assert (code, out) == (2, '')
    assert err.startswith('Error: ')
    code, out, err = shell('--json', *words)
    assert (code, out) == (2, '')
    assert json.loads(err)['ok'] is False


def test_an_accounts_life(shell: Shell) -> None:
    assert shell.data('accounts', 'create', 'Alice', '-p', 'a password') == {
        'username': 'alice@chat.example'
    }
    assert 'exists already' in shell.error('accounts', 'create', 'alice', 'another one')
    shell.data('accounts', 'create', 'bob@CHAT.example', 'positional password')
    listed = shell.data('accounts', 'list')
    assert [a['username'] for a in listed['accounts']] == ['alice@chat.example', 'bob@chat.example']
    assert listed['total'] == 2
    info = shell.data('accounts', 'info', 'alice')
    assert info['credentials'] is True
    assert info['blocklisted'] is False
    assert info['last_login_at'] is None
    assert info['created_at'] % 86400 == 0
    assert (info['messages'], info['used_bytes'], info['sessions']) == (0, 0, 0)
    shell.data('accounts', 'password', 'alice', 'the next one')
    assert 'too short' in shell.error('accounts', 'password', 'alice', 'short')
    assert shell.data('accounts', 'delete', 'alice', '-y') == {
        'username': 'alice@chat.example',
        'reason': 'account deleted via CLI',
    }
    assert 'blocklist' in shell.error('accounts', 'create', 'alice', 'a password')
    assert shell.data('accounts', 'info', 'alice')['credentials'] is False
    shell.data('accounts', 'unban', 'alice', '-y')
    shell.data('accounts', 'create', 'alice', 'a password')
    assert shell.data('accounts', 'delete', 'alice', '-y', '--no-block')['reason'] is None
    shell.data('accounts', 'create', 'alice', 'a password')


def test_bans(shell: Shell) -> None:
    shell.data('accounts', 'create', 'mallory', 'a password')
    assert shell.data('accounts', 'ban', 'mallory', 'spam', '-y')['reason'] == 'spam'
    shell.data('accounts', 'ban', 'never-there', '-y')
    shell.data('blocklist', 'add', 'carol')
    assert 'already' in shell.error('blocklist', 'add', 'carol')
    listed = shell.data('blocklist', 'list')
    assert [(e['username'], e['reason']) for e in listed['entries']] == [
        ('carol@chat.example', 'manually blocked'),
        ('mallory@chat.example', 'spam'),
        ('never-there@chat.example', 'banned via CLI'),
    ]
    shell.data('blocklist', 'remove', 'carol', '-y')
    assert 'not on the blocklist' in shell.error('blocklist', 'remove', 'carol', '-y')
    assert 'not on the blocklist' in shell.error('accounts', 'unban', 'carol', '-y')
    assert shell.data('blocklist', 'list')['total'] == 2


@pytest.mark.parametrize(
    ('words', 'why'),
    [
        (['info', 'nobody'], 'there is no such account'),
        (['delete', 'nobody', '-y'], 'there is no such account'),
        (['password', 'nobody', 'a password'], 'there is no such account'),
        (['create', 'postmaster', 'a password'], 'the user name is reserved'),
        (['create', 'x', 'a password'], 'too short'),
        (['create', 'alice', 'short'], 'the password is too short'),
        (['create', 'alice@other.example', 'a password'], 'is not an address of this relay'),
        (['create', 'al ice', 'a password'], 'is not an address of this relay'),
    ],
)
def test_what_cannot_be_done_is_exit_1_and_one_line(
    shell: Shell, words: list[str], why: str
) -> None:
    assert why in shell.error('accounts', *words)
    code, out, err = shell('accounts', *words)
    assert (code, out) == (1, '')
    assert err.startswith('Error: ')
    assert err.count('\n') == 1


def test_prompts(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.data('accounts', 'create', 'alice', 'a password')
    for answer, code in (('', 1), ('n\n', 1), ('\n', 1), ('Yes\n', 0)):
        read, write = os.pipe()
        os.write(write, answer.encode())
        os.close(write)
        with os.fdopen(read) as stdin:
            monkeypatch.setattr(sys, 'stdin', stdin)
            done, out, err = shell('accounts', 'delete', 'alice')
        assert done == code
        assert err.startswith('Delete alice@chat.example and all its mail? [y/N] ')
        assert out == ('' if code else 'Deleted alice@chat.example.\n')


def test_a_password_from_standard_input(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.write(write, b'from the pipe\n')
    os.close(write)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, 'stdin', stdin)
        assert shell('accounts', 'create', 'alice')[0] == 0
        assert 'a password is needed' in shell.error('accounts', 'create', 'bob')


def test_commands_need_a_relay_where_they_do(shell: Shell, tmp_path: Path) -> None:
    for command in ('status', 'reload', 'stop'):
        assert 'no relay is running in' in shell.error(command)
    nowhere = tmp_path / 'nowhere'
    assert f'there is no relay in {nowhere}' in shell.error(
        '--state-dir', str(nowhere), 'accounts', 'list'
    )
    assert not nowhere.exists()  # reading makes nothing


def test_a_locked_state_directory_is_said_to_be_in_use(shell: Shell, tmp_path: Path) -> None:
    from madmail.master.state import lock

    holder = lock(tmp_path / 'state')
    try:
        assert f'in use by process {os.getpid()}' in shell.error('accounts', 'list')
    finally:
        os.close(holder)


def test_init_makes_what_is_missing_and_keeps_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / 'etc' / 'madmail.yaml'
    shell = Shell(config, capsys)
    state = tmp_path / 'state'
    first = shell.data('--state-dir', str(state), 'init', '--domain', '203.0.113.5')
    assert first['config_created'] is True
    assert first['domain'] == '203.0.113.5'
    assert len(first['fingerprint']) == 95
    settings = load(config)
    assert settings['state_dir'] == state
    assert settings['listen.imaps'] == (Address('0.0.0.0', 993),)
    assert len((state / 'secret').read_bytes()) == 32
    for path in (state, state / 'secret', state / 'tls' / 'self-signed.key'):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    second = shell.data('init')
    assert second['config_created'] is False
    assert second['fingerprint'] == first['fingerprint']
    assert 'its domain is what counts' in shell.error('init', '--domain', 'other.example')


def test_a_relay_of_the_system_keeps_its_state_where_the_system_keeps_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from madmail.cli import relay

    monkeypatch.chdir(tmp_path)
    assert relay.state_dir(Path('/etc/madmail/madmail.yaml')) == Path('/var/lib/madmail')
    assert relay.state_dir(Path('data/madmail.yaml')) == tmp_path / 'data'


def test_without_configuration_a_local_one_is_found_or_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # this machine may have a relay
    monkeypatch.setattr('madmail.cli.invocation.SYSTEM_CONFIG', tmp_path / 'etc' / 'madmail.yaml')
    assert main(['--json', 'init']) == 0
    data = json.loads(capsys.readouterr().out)['data']
    assert data['config'] == str(tmp_path / 'data' / 'madmail.yaml')
    assert data['state_dir'] == str(tmp_path / 'data')
    settings = load(tmp_path / 'data' / 'madmail.yaml')
    embedded = Settings.embedded()
    for name in ('smtp', 'submission', 'submissions', 'imap', 'imaps', 'http', 'https'):
        assert settings[f'listen.{name}'] == embedded[f'listen.{name}']


def test_run_has_exit_codes_of_its_own(shell: Shell) -> None:
    shell.config.write_text('domain: chat.example\nlimits: {quota: much}\n')
    code, _, err = shell('run')
    assert code == 3
    assert 'madmail.yaml:2: limits.quota: expected a size' in err
    code, _, err = shell('accounts', 'list')
    assert code == 1
    shell.config.write_text(
        'domain: chat.example\nstate_dir: state\n'
        'tls: {mode: file, cert_file: absent.pem, key_file: absent.key}\n'
    )
    done = subprocess.run(  # a process that has no loop yet
        [sys.executable, '-m', 'madmail', '--config', str(shell.config), 'run'],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (3, '')
    assert 'absent.pem' in done.stderr


@pytest.mark.parametrize('domain', ['localhost', 'chat.example', '203.0.113.5', '2001:db8::5'])
def test_dclogin_links_say_what_clients_need(domain: str) -> None:
    settings = Settings.defaults(domain=domain)
    address = f'someone@{mail_domain(domain)}'
    text = dclogin.link(settings, address, 'p+ss w%rd&')
    scheme, _, rest = text.partition(':')
    user, _, query = rest.partition('?')
    fields = {key: values[0] for key, values in parse_qs(query, strict_parsing=True).items()}
    host = '127.0.0.1' if domain == 'localhost' else domain
    assert scheme == 'dclogin'
    assert unquote(user) == address
    assert '[' not in text
    assert fields == {
        'v': '1',
        'p': 'p+ss w%rd&',
        'ih': host,
        'ip': '993',
        'is': 'ssl',
        'sh': host,
        'sp': '465',
        'ss': 'ssl',
        'ic': '3',
    }


def test_dclogin_links_follow_the_listeners() -> None:
    settings = Settings.defaults(
        {
            'domain': 'chat.example',
            'listen.imap': '127.0.0.1:1143',
            'listen.submission': '0.0.0.0:1587',
            'tls.mode': 'file',
            'tls.cert_file': '/c',
            'tls.key_file': '/k',
        }
    )
    text = dclogin.link(settings, 'a@chat.example', 'x')
    assert 'ih=127.0.0.1&ip=1143&is=starttls' in text
    assert 'sh=chat.example&sp=1587&ss=starttls' in text
    assert 'ic=' not in text


def test_fresh_logins_have_the_promised_form() -> None:
    address, password, link = dclogin.fresh(Settings.defaults())
    local, _, domain = address.partition('@')
    assert (len(local), domain) == (9, 'localhost')
    assert local.isalnum()
    assert local == local.lower()
    assert len(password) == 24
    assert link.startswith(f'dclogin:{address}?p={password}&')


def test_tables_are_aligned() -> None:
    text = table(('name', 'n'), [('a', 5), ('longer', 1234)])
    assert text == 'name       n\na          5\nlonger  1234'
    assert size(1536) == '1.5 KB'
    assert duration(0) == '0s'
    assert duration(90061) == '1d 1h'


def test_a_closed_pipe_is_no_traceback(shell: Shell) -> None:
    done = subprocess.run(
        f'{sys.executable} -m madmail --config {shell.config} accounts list | true',
        shell=True,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert 'Traceback' not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give up root')
def test_root_leaves_no_files_that_the_relay_cannot_write() -> None:
    import pwd
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp(dir='/var/tmp'))
    directory.chmod(0o755)
    config = directory / 'madmail.yaml'
    config.write_text('domain: chat.example\nstate_dir: state\nuser: nobody\n')
    try:
        for words in (['init'], ['accounts', 'create', 'alice', 'a password']):
            done = subprocess.run(
                [sys.executable, '-m', 'madmail', '--config', str(config), *words],
                cwd=CHECKOUT,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
        nobody = pwd.getpwnam('nobody').pw_uid
        state = directory / 'state'
        assert {path.stat().st_uid for path in [state, *state.rglob('*')]} == {nobody}
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    'family', ['log', 'message-size', 'submission-access', 'port', 'admin-web']
)
def test_a_family_without_a_verb_shows_its_state(shell: Shell, family: str) -> None:
    assert shell.data(family) == shell.data(family, 'status')
