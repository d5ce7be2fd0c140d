"""run, init, version, status, reload, stop: the relay as a whole."""

from __future__ import annotations

import argparse
import hashlib
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import segno

from madmail import __version__
from madmail.account import dclogin
from madmail.account.address import mail_domain
from madmail.account.secret import load as load_secret
from madmail.admin import access_token, proxy, turn
from madmail.admin import status as figures
from madmail.admin.certificate import orders
from madmail.cli.access import Access
from madmail.cli.invocation import LOCAL_CONFIG, Invocation
from madmail.cli.result import Failure, Result, duration, table
from madmail.delivery.dkim import Keys
from madmail.master import control, keeper
from madmail.master.arbiter import Arbiter
from madmail.master.exits import CONFIGURATION, Stop
from madmail.master.plan import auto_shards, relay, server_tls
from madmail.master.privileges import identity
from madmail.master.state import prepare
from madmail.settings import Settings, load
from madmail.settings.effective import LOCAL_PORTS
from madmail.settings.kinds import Address, SettingError
from madmail.settings.sample import sample
from madmail.store.control import Control
from madmail.tls import certificate

STOP_TIME = 600.0  # seconds


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    run_parser = commands.add_parser('run', parents=options, help='serve, in the foreground')
    run_parser.set_defaults(function=run)
    init_parser = commands.add_parser(
        'init', parents=options, help='make state directory, keys, certificate and configuration'
    )
    init_parser.add_argument('--domain', help='mail domain of a new configuration')
    init_parser.set_defaults(function=init)
    commands.add_parser('version', parents=options, help='print the version').set_defaults(
        function=version
    )
    status_parser = commands.add_parser('status', parents=options, help='processes and figures')
    status_parser.add_argument(
        '-d', '--details', action='store_true', help='listeners and exchange with other relays too'
    )
    status_parser.set_defaults(function=status)
    commands.add_parser(
        'reload', parents=options, help='apply the configuration file anew'
    ).set_defaults(function=reload)
    stop_parser = commands.add_parser('stop', parents=options, help='stop the relay')
    stop_parser.add_argument('--now', action='store_true', help='do not wait for sessions')
    stop_parser.set_defaults(function=stop)


def run(invocation: Invocation) -> Result:
    """Serve until stopped.  Raises Stop with the exit code."""
    keeper.die_with_keeper()
    try:
        settings = invocation.load()
    except SettingError as error:
        raise Stop(CONFIGURATION, str(error)) from None
    if not settings['policy.require_encryption']:
        print(
            'WARNING: policy.require_encryption is false: unencrypted mail is accepted. '
            'This is for protocol tests only.',
            file=sys.stderr,
            flush=True,
        )

    def ready(arbiter: Arbiter) -> None:
        announce(arbiter, as_json=invocation.json)

    arbiter = Arbiter(settings, relay(), invocation.load, ready)
    code = arbiter.run()
    if arbiter.restarting:
        sys.stdout.flush()
        # The same process in the eyes of whoever supervises it.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if code:
        raise Stop(code, 'the relay ended')
    return Result()


def announce(arbiter: Arbiter, *, as_json: bool) -> None:
    """Say on stdout where the relay is and how to use it."""
    settings = arbiter.settings
    bound = arbiter.listeners.addresses()
    fingerprint = certificate_fingerprint(settings, arbiter.state.path)
    _, _, link = dclogin.fresh(settings, bound)
    if as_json:
        listeners = [{'name': name, 'address': str(address)} for name, address in bound]
        data = {'listeners': listeners, 'fingerprint': fingerprint, 'dclogin': link}
        print(Result(data).as_json('run'), flush=True)
        return
    lines = [f'madmail {__version__} serves {settings["domain"]}', '']
    lines += [f'  {name:<12} {address}' for name, address in bound]
    lines += ['', f'Certificate (SHA-256)  {fingerprint}', '']
    lines += ['A new account for Delta Chat, made at its first login:', '', link, '']
    try:
        print('\n'.join(lines), flush=True)
        if 'utf' in (sys.stdout.encoding or '').lower():
            segno.make(link, error='l').terminal(compact=True)
            sys.stdout.flush()
    except OSError:
        pass  # nobody reads; the relay serves all the same


def certificate_fingerprint(settings: Settings, state_dir: Path) -> str:
    """SHA-256 of the certificate in hexadecimal pairs; '' when it cannot be read."""
    path = certificate.path(settings, state_dir)
    end = '-----END CERTIFICATE-----'
    try:
        first = path.read_text().partition(end)[0] + end
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[first.index('-----BEGIN') :]))
    except (OSError, ValueError):
        return ''
    return digest.digest().hex(':').upper()


def init(invocation: Invocation) -> Result:
    """Make what a relay needs to start; what is there already stays as it is."""
    config = invocation.config or LOCAL_CONFIG
    made = not config.exists()
    if made:
        _write_config(invocation, config)
    elif invocation.arguments.domain:
        raise Failure(f'{config} exists; its domain is what counts')
    settings = load(config)
    if invocation.arguments.state_dir is not None:
        settings.replace('state_dir', Path(invocation.arguments.state_dir).absolute())
    user = identity(settings['user'])
    state = prepare(settings['state_dir'], settings['processes.shards'], auto_shards(), user)
    try:
        server_tls(settings, state.path)  # as root, like the master: a key may be root's
        if user:
            user.assume()
        load_secret(state.path)
        Keys(state.path, mail_domain(settings['domain']), settings).refresh()
        Control(state.path).close()
        access_token.load(state.path)
    finally:
        state.close()
    data = {
        'config': str(config.absolute()),
        'config_created': made,
        'state_dir': str(state.path),
        'domain': settings['domain'],
        'shards': state.shards,
        'fingerprint': certificate_fingerprint(settings, state.path),
    }
    text = table(
        ('', ''),
        [
            ('configuration', data['config'] + ('' if made else ' (kept)')),
            ('state directory', data['state_dir']),
            ('domain', data['domain']),
            ('certificate', data['fingerprint']),
        ],
    ).strip()
    return Result(data, text)


def _write_config(invocation: Invocation, config: Path) -> None:
    domain = invocation.arguments.domain
    chosen = invocation.arguments.state_dir
    given: dict[str, object] = {
        'domain': domain or 'localhost',
        'state_dir': Path(chosen).absolute() if chosen else state_dir(config),
    }
    if not domain:
        given |= {f'listen.{n}': (Address('127.0.0.1', p),) for n, p in LOCAL_PORTS.items()}
    try:
        text = sample(Settings.defaults(given).given)
        config.parent.mkdir(parents=True, exist_ok=True)
        with config.open('x', encoding='utf-8') as file:
            file.write(text)
    except OSError as error:
        raise Failure(f'{config}: {error.strerror}') from None


def state_dir(config: Path) -> Path:
    """Where a new relay of this configuration keeps its state when nobody says."""
    if Path('/etc') in config.absolute().parents:  # FHS 3.7: /etc has no data
        return Path('/var/lib/madmail')
    return Path('data').absolute()


def version(invocation: Invocation) -> Result:
    return Result({'name': 'madmail', 'version': __version__}, f'madmail {__version__}')


def status(invocation: Invocation) -> Result:
    data = _ask(invocation, {'command': 'status'})
    assert data is not None
    if data['tls_mode'] == 'acme':
        data['certificate'] = orders(Path(data['state_dir']))
    data['services'] = [
        {
            'name': 'IMAP',
            'connections': data['imap_connections'],
            'unique_ips': data['imap_unique_ips'],
        }
    ]
    if any(one['kind'] == turn.NAME for one in data['children']):
        data['services'].append({'name': 'TURN', **turn.usage(data)})
    if any(one['kind'] == proxy.SERVICE for one in data['children']):
        data['services'].append({'name': 'Shadowsocks', **proxy.usage(data)})
    details = _details(invocation, data) if invocation.arguments.details else ''
    head = table(
        ('', ''),
        [
            ('version', data['version']),
            ('domain', data['domain']),
            ('state directory', data['state_dir']),
            ('process', data['pid']),
            ('running for', duration(data['uptime_seconds'])),
            ('configuration', f'generation {data["generation"]}'),
            ('accounts', data['registered_users']),
            ('on IMAP', f'{data["imap_connections"]} from {data["imap_unique_ips"]} addresses'),
            *((f'listen.{one["name"]}', one['address']) for one in data['listeners']),
        ],
    )
    rows = []
    for one in data['children']:
        statistics = one['statistics']
        rows.append(
            (
                f'{one["kind"]} {one["index"]}',
                one['pid'],
                one['state'],
                duration(one['uptime_seconds']),
                statistics.get('connections', ''),
                f'{statistics.get("cpu_seconds", 0):.1f}s',
                sum(statistics.get('exceptions', {}).values()),
            )
        )
    children = table(('child', 'pid', 'state', 'age', 'connections', 'cpu', 'errors'), rows)
    return Result(data, f'{head.strip()}\n\n{children}{details}{_warnings(data)}')


def _warnings(data: dict[str, Any]) -> str:
    """What is switched on or stored and not in force."""
    lines = [f'{name} does not run: {why}' for name, why in data['trouble'].items()]
    lines += [f'stored {name} is not in force: {why}' for name, why in data['unusable'].items()]
    renewal = data.get('certificate')
    if renewal is not None and not renewal['issued']:
        why = renewal['error'] or 'it is being ordered'
        lines.append(f'there is no certificate of an authority, the relay serves its own: {why}')
    elif renewal is not None and renewal['error']:
        lines.append(f'the certificate is not renewed: {renewal["error"]}')
    return ''.join(f'\nWARNING: {line}' for line in lines)


def _details(invocation: Invocation, data: dict[str, Any]) -> str:
    """Listeners and figures of the exchange into `data`; the latter as text."""
    with Access(invocation.load()) as access:
        messages = figures.traffic(access, data)
        peers = figures.peers(access)
    data['ports'] = [
        {
            'port': int(one['address'].rpartition(':')[2]),
            'proto': 'udp' if '/udp' in one['name'] else 'tcp',
            'label': one['name'],
            'service': one['name'].partition('/')[0].removesuffix('s'),
        }
        for one in data['listeners']
    ]
    data['messages'] = messages | {'outbound': peers['outbound'], 'queued': peers['queued']}
    data['server_tracker'] = {
        'boot_time': data['boot_time'],
        'uptime_seconds': data['uptime_seconds'],
        'unique_conn_ips': data['imap_unique_ips'],
        'unique_domains': peers['served'] - peers['ip_servers'],
        'unique_ip_servers': peers['ip_servers'],
    }
    health = ', '.join(f'{count} {word}' for word, count in peers['health'].items())
    rows = [
        ('messages sent', messages['sent']),
        ('messages received', messages['received']),
        ('to other relays', peers['outbound']),
        ('waiting', peers['queued']),
        ('other relays', f'{peers["served"]} ({health})'),
        ('mean time', f'{peers["mean_latency_ms"]} ms'),
    ]
    return f'\n\n{table(("", ""), rows).strip()}'


def reload(invocation: Invocation) -> Result:
    data = _ask(invocation, {'command': 'reload'}, timeout=STOP_TIME) or {}
    return Result(data, f'Reloaded (generation {data.get("generation")}).')


def stop(invocation: Invocation) -> Result:
    request = {'command': 'stop', 'at_once': invocation.arguments.now}
    _ask(invocation, request, timeout=STOP_TIME)
    return Result({'stopped': True}, 'Stopped.')


def _ask(
    invocation: Invocation, request: dict[str, Any], *, timeout: float = 30.0
) -> dict[str, Any] | None:
    settings = invocation.load()
    try:
        return control.ask(settings['state_dir'].absolute(), request, timeout=timeout)
    except (control.NotRunning, control.Refused) as error:
        raise Failure(str(error)) from None
    except TimeoutError:
        raise Failure('the relay does not answer') from None
