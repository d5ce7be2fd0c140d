"""Mailboxes and messages of an account.

Messages are named by a set such as `1:5,9,*`, of message numbers or with `uid` of
UIDs.  Connected sessions hear of every change at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from madmail.admin.refused import Refused
from madmail.admin.relay import Relay


def mailboxes(relay: Relay, user: str, *, subscribed: bool = False) -> list[dict[str, Any]]:
    """In order of name, with their counts."""
    found: list[dict[str, Any]] = relay.call(
        relay.address(user), 'mailbox_list', subscribed=subscribed
    )
    return found


def mailbox(relay: Relay, user: str, name: str) -> dict[str, Any]:
    """One of them.  Refused: missing."""
    for one in mailboxes(relay, user):
        if one['name'] == name or one['name'] == name.upper() == 'INBOX':
            return one
    raise Refused('missing', 'there is no such mailbox')


def create_mailbox(relay: Relay, user: str, name: str, special: str = '') -> dict[str, Any]:
    """`special`: archive, drafts, junk, sent, trash or none."""
    made: dict[str, Any] = relay.call(
        relay.address(user), 'mailbox_create', name=name, special=special
    )
    return made


def remove_mailbox(relay: Relay, user: str, name: str) -> dict[str, Any]:
    """With its messages; mailboxes below it stay."""
    gone: dict[str, Any] = relay.call(relay.address(user), 'mailbox_remove', name=name)
    return gone


def rename_mailbox(relay: Relay, user: str, old: str, new: str) -> dict[str, Any]:
    """With the mailboxes below it."""
    renamed: dict[str, Any] = relay.call(relay.address(user), 'mailbox_rename', old=old, new=new)
    return renamed


def add(
    relay: Relay, user: str, name: str, message: bytes, flags: Sequence[str] = (), date: int = 0
) -> dict[str, Any]:
    """Store a message as it is, with the line ends of mail; `date` in Unix seconds, 0 = now."""
    if b'\0' in message:
        raise Refused('invalid', 'the message has NUL octets, which clients cannot read')
    if not message.strip():
        raise Refused('invalid', 'the message is empty')
    limit = relay.settings['limits.max_message_size']
    octets = message.replace(b'\r\n', b'\n').replace(b'\r', b'\n').replace(b'\n', b'\r\n')
    if limit and len(octets) > limit:
        raise Refused('invalid', 'the message is larger than limits.max_message_size')
    stored: dict[str, Any] = relay.call(
        relay.address(user), 'message_add', mailbox=name, flags=list(flags), date=date, data=octets
    )
    return stored


def change_flags(
    relay: Relay, user: str, name: str, messages: str, mode: str, flags: Sequence[str], *, uid: bool
) -> int:
    """`mode` is add, remove or replace; how many messages there were."""
    count: int = relay.call(
        relay.address(user),
        'message_flags',
        mailbox=name,
        messages=messages,
        uid=uid,
        mode=mode,
        flags=list(flags),
    )
    return count


def remove(relay: Relay, user: str, name: str, messages: str, *, uid: bool) -> int:
    """For good; how many."""
    count: int = relay.call(
        relay.address(user), 'message_remove', mailbox=name, messages=messages, uid=uid
    )
    return count


def copy(
    relay: Relay, user: str, name: str, messages: str, target: str, *, uid: bool, move: bool = False
) -> int:
    """To another mailbox of the account; how many."""
    count: int = relay.call(
        relay.address(user),
        'message_copy',
        mailbox=name,
        messages=messages,
        uid=uid,
        target=target,
        move=move,
    )
    return count


def list_(
    relay: Relay, user: str, name: str, messages: str = '1:*', *, uid: bool, full: bool = False
) -> Iterator[dict[str, Any]]:
    """Rows in order of UID; with `full` the fields of the header that people look at."""
    address = relay.address(user)
    after = 0
    while True:
        page = relay.call(
            address,
            'message_list',
            mailbox=name,
            messages=messages,
            uid=uid,
            after=after,
            full=full,
        )
        yield from page['messages']
        after = page['last']
        if not after:
            return


def read(relay: Relay, user: str, name: str, number: int, *, uid: bool) -> Iterator[bytes]:
    """A message, piece by piece."""
    address = relay.address(user)
    offset = 0
    while True:
        piece = relay.call(
            address, 'message_read', mailbox=name, number=number, uid=uid, offset=offset
        )
        yield piece['data']
        offset += len(piece['data'])
        if offset >= piece['size'] or not piece['data']:
            return
        number, uid = piece['uid'], True
