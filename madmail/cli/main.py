"""The entry point: arguments in, one command, its result out.

Exit codes: 0 done, 1 failed or declined, 2 wrong usage; `run` has more, see
`madmail.master.exits`.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from typing import NoReturn

from madmail import __version__
from madmail.admin.refused import Refused
from madmail.cli import (
    accounts,
    admin_token,
    admin_web,
    backup,
    bandwidth,
    blocklist,
    certificate,
    credentials,
    dkim,
    dns,
    doctor,
    endpoints,
    exchanger,
    federation,
    imap_acct,
    imap_mboxes,
    imap_msgs,
    iroh,
    notice,
    ports,
    proxy,
    push,
    queue,
    registration,
    relay,
    settings,
    site,
    tasks,
    turn,
    webmail,
)
from madmail.cli.invocation import Invocation
from madmail.cli.result import Declined, Result, failure_as_json
from madmail.master.exits import FAILED, USAGE, Stop
from madmail.settings import SettingError


class Parser(argparse.ArgumentParser):
    """Usage errors in the form of all other errors."""

    as_json = False

    def error(self, message: str) -> NoReturn:
        report(message, as_json=Parser.as_json)
        if not Parser.as_json:
            self.print_usage(sys.stderr)
        sys.exit(USAGE)


def parser() -> argparse.ArgumentParser:
    """Global options are taken before and after the command, so it has them as well."""
    top = Parser(prog='madmail', description='A chatmail relay in one program.')
    after = argparse.ArgumentParser(add_help=False)
    for target, default in ((top, None), (after, argparse.SUPPRESS)):
        target.add_argument('--config', metavar='FILE', default=default, help='configuration')
        target.add_argument(
            '--state-dir', '--libexec', metavar='DIR', default=default, help='state directory'
        )
        target.add_argument(
            '--json', action='store_true', default=default or False, help='one line of JSON'
        )
    top.add_argument(
        '--version', action='version', version=f'madmail {__version__}', help='print the version'
    )
    commands = top.add_subparsers(dest='command', metavar='COMMAND', parser_class=Parser)
    for family in (
        relay,
        settings,
        ports,
        proxy,
        push,
        turn,
        iroh,
        admin_token,
        admin_web,
        accounts,
        registration,
        credentials,
        blocklist,
        federation,
        endpoints,
        exchanger,
        queue,
        dns,
        dkim,
        certificate,
        doctor,
        bandwidth,
        backup,
        tasks,
        imap_acct,
        imap_mboxes,
        imap_msgs,
        notice,
        site,
        webmail,
    ):
        family.add_commands(commands, [after])
    return top


def report(reason: str, *, as_json: bool) -> None:
    """One line on stderr."""
    text = failure_as_json(reason) if as_json else f'Error: {reason}'
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code.  Without a command, `run`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdin is None:  # closed by whoever started us
        sys.stdin = open(os.devnull)  # noqa: SIM115
    Parser.as_json = '--json' in words
    top = parser()
    parsed = top.parse_args(words)
    if parsed.command is None:
        parsed = top.parse_args([*words, 'run'])
    invocation = Invocation(parsed)
    parts = (getattr(parsed, part, None) for part in ('command', 'verb', 'action'))
    name = ' '.join(filter(None, parts))
    try:
        result: Result = parsed.function(invocation)
    except Stop as stop:
        report(str(stop), as_json=invocation.json)
        return stop.code if parsed.command == 'run' else FAILED
    except (Refused, SettingError) as failure:
        report(str(failure), as_json=invocation.json)
        return FAILED
    except (OSError, sqlite3.Error) as failure:
        # a disk that is full or read only, for example
        if parsed.command == 'run':
            raise
        report(_trouble(failure), as_json=invocation.json)
        return FAILED
    except UnicodeEncodeError:
        report('an argument has letters that are not UTF-8', as_json=invocation.json)
        return FAILED
    except OverflowError:
        report('a number is larger than anything there is', as_json=invocation.json)
        return FAILED
    except Declined:
        if invocation.json:
            report('declined', as_json=True)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    if parsed.command != 'run':
        try:
            show(result, name, as_json=invocation.json)
        except OSError as failure:
            report(f'standard output: {_trouble(failure)}', as_json=invocation.json)
            return FAILED
    return result.exit_code


def _trouble(failure: OSError | sqlite3.Error) -> str:
    if isinstance(failure, OSError) and failure.strerror:
        where = f'{failure.filename}: ' if failure.filename else ''
        return f'{where}{failure.strerror}'
    return f'{failure}' or type(failure).__name__


def show(result: Result, command: str, *, as_json: bool) -> None:
    text = result.as_json(command) if as_json else result.text
    if text:
        try:
            print(text, flush=True)
        except UnicodeEncodeError:  # the locale knows fewer letters
            plain = json.dumps(json.loads(text)) if as_json else text
            octets = plain.encode(sys.stdout.encoding, 'backslashreplace')
            print(octets.decode(sys.stdout.encoding), flush=True)
        except BrokenPipeError:
            sys.stderr.close()
