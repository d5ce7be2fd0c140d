"""The calls about the mailboxes and messages of an account, for its administrator.

They go through the store like a session's commands, so sessions hear of every
change at once.  Mailbox names are text as in the store; messages are named by a
set as on the wire (`1:5,9,*`), of UIDs or of message numbers.  Where many
messages are concerned a call does a bounded number and says where to go on.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from madmail.imap import mailbox_name
from madmail.imap.mailbox import MAX_KEYWORDS
from madmail.imap.sequence_set import SequenceSet
from madmail.imap.syntax import (
    Bad,
)
from madmail.imap.tokens import sequence_set
from madmail.message import header
from madmail.shard.calls import CallRefused, body_from
from madmail.shard.turns import yield_to_others
from madmail.store.interface import Account, Flag, FlagUpdate, Mailbox, Message, NewMessage

if TYPE_CHECKING:
    from madmail.shard.process import Shard

FLAGS = {
    '\\seen': Flag.SEEN,
    '\\answered': Flag.ANSWERED,
    '\\flagged': Flag.FLAGGED,
    '\\deleted': Flag.DELETED,
    '\\draft': Flag.DRAFT,
}
SHOWN = ('\\Seen', '\\Answered', '\\Flagged', '\\Deleted', '\\Draft')  # by bit
SPECIAL = {
    'archive': '\\Archive',
    'drafts': '\\Drafts',
    'junk': '\\Junk',
    'sent': '\\Sent',
    'trash': '\\Trash',
}
PAGE = 500  # messages of one answer
PIECE = 1024 * 1024  # octets of one answer
HEAD = 64 * 1024  # octets in which the header is looked for
FIELDS = {name.lower().encode(): name for name in ('From', 'To', 'Subject', 'Date', 'Message-ID')}
# RFC 3501 9: an atom; \Seen is what the bits say
_KEYWORD = re.compile(r'[^\x00-\x20(){%*"\\\]\x7f-\U0010ffff]{1,64}')
_SET = re.compile(r'[0-9*:,]{1,10000}')


class MailMethods:
    """Those of one shard."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.methods: dict[str, Callable[..., Any]] = {
            'mailbox_list': self.mailbox_list,
            'mailbox_create': self.mailbox_create,
            'mailbox_remove': self.mailbox_remove,
            'mailbox_rename': self.mailbox_rename,
            'message_add': self.message_add,
            'message_flags': self.message_flags,
            'message_remove': self.message_remove,
            'message_copy': self.message_copy,
            'message_list': self.message_list,
            'message_read': self.message_read,
        }

    # -- mailboxes

    def mailbox_list(self, address: str, subscribed: bool = False) -> list[dict[str, Any]]:
        account = self._account(address)
        names = set(self._shard.store.subscriptions(account.id))
        return [
            {
                'name': box.name,
                'messages': box.messages,
                'unseen': box.unseen,
                'bytes': box.size,
                'uid_next': box.uid_next,
                'uid_validity': box.uid_validity,
                'special_use': box.special_use,
                'subscribed': box.name in names,
            }
            for box in self._shard.store.mailboxes(account.id)
            if not subscribed or box.name in names
        ]

    def mailbox_create(self, address: str, name: str, special: str = '') -> dict[str, Any]:
        account = self._account(address)
        use = ''
        if special:
            use = SPECIAL.get(special.lower().lstrip('\\'), '')
            if not use:
                raise CallRefused('special-use')
        name = _new_name(name)
        boxes = self._shard.store.mailboxes(account.id)
        limit = self._shard.settings['limits.mailboxes_per_account']
        if limit and len(boxes) >= limit:
            raise CallRefused('mailboxes')
        if use and any(use in box.special_use.split() for box in boxes):
            raise CallRefused('use-taken')
        self._shard.store.create_mailbox(account.id, name, use)
        self._shard.store.subscribe(account.id, name)
        return {'name': name, 'special_use': use}

    def mailbox_remove(self, address: str, name: str) -> dict[str, Any]:
        box = self._box(self._account(address), name)
        if box.name == 'INBOX':
            raise CallRefused('inbox')
        self._shard.store.delete_mailbox(box.id)
        self._shard.store.unsubscribe(box.account_id, box.name)
        return {'name': box.name, 'messages': box.messages}

    def mailbox_rename(self, address: str, old: str, new: str) -> dict[str, Any]:
        account = self._account(address)
        box = self._box(account, old)
        new = _new_name(new)
        if box.name != 'INBOX' and new.startswith(box.name + mailbox_name.DELIMITER):
            raise CallRefused('below-itself')
        self._shard.store.rename_mailbox(box.id, new)
        for name in self._shard.store.subscriptions(account.id):
            if box.name != 'INBOX' and (name == box.name or name.startswith(box.name + '/')):
                self._shard.store.unsubscribe(account.id, name)
                self._shard.store.subscribe(account.id, new + name[len(box.name) :])
        return {'old': box.name, 'name': new}

    # -- messages

    def message_add(
        self,
        address: str,
        mailbox: str,
        flags: Sequence[str] = (),
        date: int = 0,
        **body: Any,
    ) -> dict[str, Any]:
        """As it is; `date` in Unix seconds, 0 = now."""
        box = self._box(self._account(address), mailbox)
        bits, keywords = self._flags(box, flags)
        octets = body_from(body)
        if octets is None or not octets.size:
            raise CallRefused('empty')
        (uid,) = self._shard.store.append(
            box.id, [NewMessage(octets, int(bits), keywords, internal_date=date)]
        )
        return {'uid': uid, 'uid_validity': box.uid_validity, 'size': octets.size}

    def message_flags(
        self, address: str, mailbox: str, messages: str, uid: bool, mode: str, flags: list[str]
    ) -> int:
        """`mode` is add, remove or replace; how many messages there are in the set."""
        if mode not in ('add', 'remove', 'replace'):
            raise CallRefused('bad-request')
        box = self._box(self._account(address), mailbox)
        bits, keywords = self._flags(box, flags)
        uids = self._uids(box, messages, uid)
        update = FlagUpdate(mode, int(bits), keywords)
        return len(self._shard.store.store_flags(box.id, uids, update))

    def message_remove(self, address: str, mailbox: str, messages: str, uid: bool) -> int:
        box = self._box(self._account(address), mailbox)
        return len(self._shard.store.remove(box.id, self._uids(box, messages, uid)))

    def message_copy(
        self,
        address: str,
        mailbox: str,
        messages: str,
        uid: bool,
        target: str,
        move: bool = False,
    ) -> int:
        account = self._account(address)
        box, into = self._box(account, mailbox), self._box(account, target)
        uids = self._uids(box, messages, uid)
        store = self._shard.store
        pairs = store.move(box.id, uids, into.id) if move else store.copy(box.id, uids, into.id)
        return len(pairs)

    def message_list(
        self,
        address: str,
        mailbox: str,
        messages: str = '1:*',
        uid: bool = False,
        after: int = 0,
        full: bool = False,
        limit: int = PAGE,
    ) -> dict[str, Any]:
        """A page of rows behind UID `after`, and `last`, the UID to go on behind (0 = the end)."""
        box = self._box(self._account(address), mailbox)
        store = self._shard.store
        everything = store.uids(box.id)
        wanted = _chosen(everything, messages, uid)
        wanted = [one for one in wanted if one > after]
        page = wanted[: min(limit, PAGE)]
        rows = []
        for number, one in enumerate(page):
            row = store.message(box.id, one)
            if row is not None:
                rows.append(self._row(row, bisect_left(everything, one) + 1, full))
            if not number % 50:
                yield_to_others()
        return {'messages': rows, 'last': page[-1] if len(page) < len(wanted) else 0}

    def message_read(
        self, address: str, mailbox: str, number: int, uid: bool, offset: int = 0
    ) -> dict[str, Any]:
        """A piece of a message; `size` is that of all of it.  Go on with its UID."""
        box = self._box(self._account(address), mailbox)
        found = self._uids(box, str(number), uid)
        row = self._shard.store.message(box.id, found[0]) if found else None
        body = None if row is None else self._shard.store.body(row.body_id)
        if row is None or body is None:
            raise CallRefused('no-message')
        return {'uid': row.uid, 'size': body.size, 'data': body.read(offset, PIECE)}

    # -- inside

    def _account(self, address: str) -> Account:
        account = self._shard.store.account(address)
        if account is None:
            raise CallRefused('missing')
        return account

    def _box(self, account: Account, name: str) -> Mailbox:
        box = self._shard.store.mailbox(account.id, mailbox_name.fold_inbox(name))
        if box is None:
            raise CallRefused('no-mailbox')
        return box

    def _flags(self, box: Mailbox, words: Sequence[str]) -> tuple[Flag, tuple[str, ...]]:
        bits = Flag(0)
        keywords: list[str] = []
        for word in words:
            name = word if word.startswith('\\') else f'\\{word}'
            bit = FLAGS.get(name.lower())
            if bit is not None:
                bits |= bit
            elif _KEYWORD.fullmatch(word):
                keywords.append(word)
            else:
                raise CallRefused('flag')
        spelled = self._shard.boxes.spell(box.id, tuple(keywords)) if keywords else ()
        if spelled is None or len(spelled) > MAX_KEYWORDS:
            raise CallRefused('keywords')
        return bits, spelled

    def _uids(self, box: Mailbox, messages: str, uid: bool) -> list[int]:
        return _chosen(self._shard.store.uids(box.id), messages, uid)

    def _row(self, row: Message, number: int, full: bool) -> dict[str, Any]:
        said: dict[str, Any] = {
            'uid': row.uid,
            'number': number,
            'flags': _shown(row),
            'date': row.internal_date,
            'size': row.size,
        }
        if full:
            said['modseq'] = row.modseq
            said['saved'] = row.saved
            said['header'] = self._header(row)
        return said

    def _header(self, row: Message) -> dict[str, str]:
        body = self._shard.store.body(row.body_id)
        block = b'' if body is None else body.read(0, HEAD)
        end = block.find(b'\r\n\r\n')
        found: dict[str, str] = {}
        for field in header.parse_loosely(block[: end + 2] if end >= 0 else block):
            shown = FIELDS.get(field.name)
            if shown is not None and shown not in found:
                found[shown] = header.unfold(field.value).decode('utf-8', 'replace').strip()
        return found


def _new_name(name: str) -> str:
    try:
        checked = mailbox_name.check(mailbox_name.fold_inbox(name))
    except Bad:
        raise CallRefused('mailbox-name') from None
    if checked == 'INBOX':
        raise CallRefused('MailboxExists')
    return checked


def _chosen(uids: array[int], text: str, uid: bool) -> list[int]:
    """Those of a mailbox's `uids` that a set names, ascending."""
    if not _SET.fullmatch(text):
        raise CallRefused('set')
    try:
        wanted: SequenceSet = sequence_set(text.encode())
    except Bad:
        raise CallRefused('set') from None
    if uid:
        return [one for some in wanted.positions(uids) for one in uids[some.start : some.stop]]
    chosen: list[int] = []
    for low, high in wanted.resolve(len(uids)):
        chosen.extend(uids[low - 1 : high])
    return chosen


def _shown(row: Message) -> list[str]:
    flags = [name for bit, name in enumerate(SHOWN) if row.flags & 1 << bit]
    return [*flags, *row.keywords]
