"""imap-mboxes list, create, remove, rename: the folders of an account."""

from __future__ import annotations

import argparse
from typing import Any

from madmail.admin import mail
from madmail.cli.access import Access
from madmail.cli.invocation import Invocation
from madmail.cli.result import Result, size, table

SPECIAL = ('archive', 'drafts', 'junk', 'sent', 'trash')


def add_commands(commands: Any, options: list[argparse.ArgumentParser]) -> None:
    family = commands.add_parser('imap-mboxes', parents=options, help='folders of an account')
    verbs = family.add_subparsers(dest='verb', metavar='VERB', required=True)

    def add(name: str, function: Any, text: str, *names: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=options, help=text)
        parser.set_defaults(function=function)
        parser.add_argument('user', metavar='USER', help='address, or its part before the @')
        for one in names:
            parser.add_argument(one, metavar=one.upper())
        return parser

    list_parser = add('list', list_, 'all of them')
    list_parser.add_argument('-s', '--subscribed', action='store_true', help='subscribed ones only')
    create_parser = add('create', create, 'make one', 'name')
    create_parser.add_argument('--special', choices=SPECIAL, default='', help='what it is for')
    remove_parser = add('remove', remove, 'remove one with its messages', 'name')
    remove_parser.add_argument('-y', '--yes', action='store_true', help='do not ask')
    add('rename', rename, 'with those below it', 'old', 'new')


def list_(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        found = mail.mailboxes(access, arguments.user, subscribed=arguments.subscribed)
    text = table(
        ('mailbox', 'messages', 'unseen', 'size', 'use'),
        [
            (box['name'], box['messages'], box['unseen'], size(box['bytes']), box['special_use'])
            for box in found
        ],
    )
    return Result({'mailboxes': found, 'total': len(found)}, text)


def create(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        data = mail.create_mailbox(access, arguments.user, arguments.name, arguments.special)
    return Result(data, f'Created {data["name"]}.')


def remove(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        box = mail.mailbox(access, arguments.user, arguments.name)
        invocation.confirm(f'Remove {box["name"]} with {box["messages"]} messages?')
        data = mail.remove_mailbox(access, arguments.user, arguments.name)
    return Result(data, f'Removed {data["name"]}.')


def rename(invocation: Invocation) -> Result:
    arguments = invocation.arguments
    with Access(invocation.load()) as access:
        data = mail.rename_mailbox(access, arguments.user, arguments.old, arguments.new)
    return Result(data, f'{data["old"]} is now {data["name"]}.')
