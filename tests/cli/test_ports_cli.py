"""What `port` and its kin say to people."""

from __future__ import annotations

from tests.cli.test_cli import Shell, shell

__all__ = ['shell']  # the fixture


def test_what_does_not_listen_is_not_called_public(shell: Shell) -> None:
    assert shell('port', 'smtp', 'disable')[1] == 'smtp: does not listen\n'
    shell.data('port', 'submission', 'disable')
    _, out, _ = shell('port', 'status')
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows['smtp'] == ['-', '-']
    assert rows['imap'][1:2] == ['public']
    _, out, _ = shell('submission-access', 'status')
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert (rows['submission'], rows['submission-tls'][1]) == (['-', '-'], 'public')
