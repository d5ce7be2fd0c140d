"""One call of the program: its arguments, the configuration they mean, and asking back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from madmail.cli.result import Declined, Failure
from madmail.settings import Settings, load

LOCAL_CONFIG = Path('data/madmail.yaml')
SYSTEM_CONFIG = Path('/etc/madmail/madmail.yaml')


class Invocation:
    """Parsed arguments and what follows from them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.json: bool = arguments.json
        self.assume_yes: bool = getattr(arguments, 'yes', False)

    @property
    def config(self) -> Path | None:
        """The configuration file that is meant; None for the embedded defaults."""
        if self.arguments.config is not None:
            return Path(self.arguments.config)
        return next((path for path in (LOCAL_CONFIG, SYSTEM_CONFIG) if path.exists()), None)

    def load(self) -> Settings:
        """The settings, read anew.  Raises SettingError."""
        config = self.config
        settings = load(config) if config else Settings.embedded()
        if self.arguments.state_dir is not None:
            # the flag wins over the file
            settings.replace('state_dir', Path(self.arguments.state_dir).absolute())
        return settings

    def confirm(self, question: str) -> None:
        """Ask on stderr unless -y was given.  Raises Declined."""
        if self.assume_yes:
            return
        print(f'{question} [y/N] ', end='', file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if answer.strip().lower() not in ('y', 'yes'):
            if not answer:
                print(file=sys.stderr)
            raise Declined

    def secret(self, prompt: str) -> str:
        """A password from the terminal without echo, or a line of standard input."""
        if sys.stdin.isatty():
            import getpass

            return getpass.getpass(f'{prompt}: ')
        line = sys.stdin.readline().rstrip('\r\n')
        if not line:
            raise Failure('a password is needed: -p PASSWORD, or a line on standard input')
        return line
