"""LIST, LSUB, STATUS, NAMESPACE (RFC 3501 6.3.8 to 6.3.10, RFC 2342).

LIST has all of RFC 5258 (LIST-EXTENDED), RFC 3348 (CHILDREN), RFC 6154
(SPECIAL-USE) and RFC 5819 (LIST-STATUS).  A name that exists only because
mailboxes lie below it is shown as \\Noselect.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from madmail.imap import object_id, responses
from madmail.imap.commands.append import size_limit
from madmail.imap.commands.registry import capability, command
from madmail.imap.mailbox_name import DELIMITER, Pattern
from madmail.imap.syntax import MAX_NUMBER, Bad, Command, List, Lsub, Status
from madmail.store.interface import Mailbox

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('NAMESPACE', 'CHILDREN', 'LIST-EXTENDED', 'LIST-STATUS', 'SPECIAL-USE', 'STATUS=SIZE')


@command('NAMESPACE')
def namespace(session: ImapSession, command: Command) -> bytes:
    session.wire.write(responses.namespace())
    return b'OK Namespace completed'


@command('LIST')
def list_(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, List)
    if not arguments.extended and arguments.patterns == ('',):
        session.wire.write(responses.list_delimiter())
        return b'OK List completed'
    _Listing(session, arguments).write()
    return b'OK List completed'


class _Listing:
    """One LIST: the account's names, and which of them are wanted."""

    def __init__(self, session: ImapSession, arguments: List) -> None:
        store = session.shard.store
        self._session = session
        self._arguments = arguments
        self._boxes = {row.name: row for row in store.mailboxes(session.account.id)}
        self._parents = parents(self._boxes)
        self._subscribed: set[str] = set()
        if 'SUBSCRIBED' in arguments.selection | arguments.returns:
            self._subscribed = set(store.subscriptions(session.account.id))

    def write(self) -> None:
        arguments = self._arguments
        pattern = Pattern(arguments.reference, arguments.patterns)
        names = {*self._boxes, *self._parents}
        if 'SUBSCRIBED' in arguments.selection:
            names |= self._subscribed
            if 'RECURSIVEMATCH' in arguments.selection:
                names |= parents(self._subscribed)
        chosen = {name for name in names if self._selected(name)}
        above: set[str] = set()
        if 'RECURSIVEMATCH' in arguments.selection:
            # RFC 5258 3.5: a parent tells of those below it that are not shown themselves
            above = parents(name for name in chosen if not pattern.matches(name))
        for name in in_order(names):
            if (name in chosen or name in above) and pattern.matches(name):
                self._write(name, name in above)
                self._session.check()

    def _selected(self, name: str) -> bool:
        """Whether the selection options take this name itself (RFC 5258 3.1)."""
        selection = self._arguments.selection
        if 'SUBSCRIBED' in selection and name not in self._subscribed:
            return False
        row = self._boxes.get(name)
        return 'SPECIAL-USE' not in selection or (row is not None and bool(row.special_use))

    def _write(self, name: str, above: bool) -> None:
        row = self._boxes.get(name)
        attributes = []
        if row is None:
            # RFC 5258 3: \NonExistent implies \Noselect, which is what others know
            attributes.append('\\NonExistent' if self._arguments.extended else '\\Noselect')
        attributes.append('\\HasChildren' if name in self._parents else '\\HasNoChildren')
        if name in self._subscribed:
            attributes.append('\\Subscribed')
        if row is not None:
            attributes.extend(row.special_use.split())
        # RFC 5258 4, RFC 6154 2: which criteria those below it meet
        criteria = self._arguments.selection & {'SUBSCRIBED', 'SPECIAL-USE'}
        child_info = sorted(criteria) if above else ()
        session = self._session
        session.wire.write(
            responses.list_(attributes, name, utf8=session.utf8, child_info=child_info)
        )
        if row is not None and 'STATUS' in self._arguments.returns:
            session.wire.write(
                responses.status(name, _items(session, row, self._arguments.status), session.utf8)
            )


@command('LSUB')
def lsub(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Lsub)
    if not arguments.pattern:
        session.wire.write(responses.list_delimiter().replace(b'LIST', b'LSUB', 1))
        return b'OK Lsub completed'
    pattern = Pattern(arguments.reference, (arguments.pattern,))
    subscribed = set(session.shard.store.subscriptions(session.account.id))
    found: dict[str, tuple[str, ...]] = {}
    for name in subscribed:
        if pattern.matches(name):
            found[name] = ()
        elif '%' in arguments.pattern:
            # RFC 3501 6.3.9: foo/bar is subscribed and foo is not; LSUB "%" gives foo
            for parent in parents((name,)):
                if parent not in subscribed and pattern.matches(parent):
                    found[parent] = ('\\Noselect',)
    for name in in_order(found):
        session.wire.write(responses.list_(found[name], name, utf8=session.utf8, verb=b'LSUB'))
    return b'OK Lsub completed'


@command('STATUS')
def status(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Status)
    row = session.shard.store.mailbox(session.account.id, arguments.mailbox)
    if row is None:
        return b'NO [NONEXISTENT] Mailbox does not exist'
    items = _items(session, row, arguments.items)
    session.wire.write(responses.status(arguments.mailbox, items, session.utf8))
    return b'OK Status completed'


def _items(session: ImapSession, row: Mailbox, names: Iterable[str]) -> list[tuple[str, int | str]]:
    return [(name, _item(session, row, name)) for name in names]


def _item(session: ImapSession, row: Mailbox, name: str) -> int | str:
    if name == 'MESSAGES':
        return row.messages
    if name == 'UIDNEXT':
        return row.uid_next
    if name == 'UIDVALIDITY':
        return row.uid_validity
    if name == 'UNSEEN':
        return row.unseen
    if name == 'HIGHESTMODSEQ':
        session.enable('CONDSTORE')  # RFC 7162 3.1
        return row.highest_modseq
    if name == 'RECENT':
        return session.shard.boxes.recent(row)
    if name == 'SIZE':
        return row.size  # RFC 8438
    if name == 'APPENDLIMIT':
        return size_limit(session) or MAX_NUMBER
    if name == 'DELETED':
        return session.shard.store.deleted(row.id)[0]
    if name == 'DELETED-STORAGE':
        return session.shard.store.deleted(row.id)[1]  # octets (RFC 9208 4.1.4)
    if name == 'MAILBOXID':
        return object_id.mailbox_id(session.shard.store.salt(row.account_id), row)
    raise Bad('Unknown STATUS item')


def parents(names: Iterable[str]) -> set[str]:
    """Every name above one of these."""
    found: set[str] = set()
    for name in names:
        end = name.rfind(DELIMITER)
        while end > 0:
            name = name[:end]
            if name in found:
                break
            found.add(name)
            end = name.rfind(DELIMITER)
    return found


def in_order(names: Iterable[str]) -> list[str]:
    """INBOX first, then by name."""
    return sorted(names, key=lambda name: (name != 'INBOX', name))
