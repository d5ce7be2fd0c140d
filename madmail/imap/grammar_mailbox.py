"""SELECT, CREATE, RENAME, LIST, LSUB, STATUS and the options of APPEND."""

from __future__ import annotations

from madmail.imap import mailbox_name
from madmail.imap.syntax import (
    MAX_MODSEQ,
    Bad,
    Create,
    Flags,
    List,
    Lsub,
    Name,
    QResync,
    Rename,
    Select,
    Status,
)
from madmail.imap.tokens import Reader

MAX_PATTERNS = 32
SPECIAL_USES = {
    use.upper(): use
    for use in ('\\All', '\\Archive', '\\Drafts', '\\Flagged', '\\Junk', '\\Sent', '\\Trash')
}
STATUS_ITEMS = frozenset(
    [
        'MESSAGES',
        'RECENT',
        'UIDNEXT',
        'UIDVALIDITY',
        'UNSEEN',
        'HIGHESTMODSEQ',
        'SIZE',
        'DELETED',
        'MAILBOXID',
        'APPENDLIMIT',
        'DELETED-STORAGE',
    ]
)
_SELECTION = frozenset(('SUBSCRIBED', 'REMOTE', 'RECURSIVEMATCH', 'SPECIAL-USE'))
_RETURNS = frozenset(('SUBSCRIBED', 'CHILDREN', 'SPECIAL-USE'))


def select(reader: Reader) -> Select:
    reader.space()
    mailbox = reader.mailbox()
    if not reader.more():
        return Select(mailbox)
    reader.expect(b'(')  # RFC 4466 2.4: select-params
    condstore = False
    qresync = None
    while True:
        reader.blanks()
        parameter = reader.atom()
        if parameter == 'CONDSTORE':
            condstore = True
        elif parameter == 'QRESYNC' and qresync is None:
            reader.space()
            qresync = _qresync(reader)
        else:
            raise Bad('Unknown SELECT parameter')
        if not reader.blanks():
            break
        if reader.peek() == 0x29:
            break
    reader.expect(b')')
    return Select(mailbox, condstore, qresync)


def _qresync(reader: Reader) -> QResync:
    """RFC 7162 3.2.5: (uidvalidity modseq [known-uids] [(numbers uids)])."""
    reader.expect(b'(')
    validity = reader.nz_number()
    reader.space()
    modseq = reader.nz_number(MAX_MODSEQ)
    known = matching = None
    if reader.blanks():
        if reader.peek() not in (0x28, 0x29):
            known = reader.sequence_set()
            reader.blanks()
        if reader.at(b'('):
            numbers = reader.sequence_set()
            reader.space()
            matching = (numbers, reader.sequence_set())
            reader.expect(b')')
    reader.expect(b')')
    return QResync(validity, modseq, known, matching)


def create(reader: Reader) -> Create:
    reader.space()
    mailbox = reader.mailbox()
    uses: list[str] = []
    if reader.more():
        reader.expect(b'(')
        if reader.atom() != 'USE':  # RFC 6154 3
            raise Bad('Unknown CREATE parameter')
        reader.space()
        reader.expect(b'(')
        reader.blanks()
        while reader.at(b'\\'):
            use = SPECIAL_USES.get('\\' + reader.atom())
            if use is None:
                raise Bad('Unknown special use', status=b'NO', code=b'USEATTR')
            if use not in uses:
                uses.append(use)
            reader.blanks()
        reader.expect(b')')
        reader.expect(b')')
    return Create(mailbox_name.check(mailbox), tuple(uses))


def name(reader: Reader) -> Name:
    reader.space()
    return Name(reader.mailbox())


def rename(reader: Reader) -> Rename:
    reader.space()
    old = reader.mailbox()
    reader.space()
    return Rename(old, mailbox_name.check(reader.mailbox()))


def lsub(reader: Reader) -> Lsub:
    reader.space()
    reference = reader.list_mailbox()
    reader.space()
    return Lsub(reference, reader.list_mailbox())


def list_(reader: Reader) -> List:
    reader.space()
    extended = False
    selection: frozenset[str] = frozenset()
    if reader.at(b'('):  # RFC 5258 6: list-select-opts
        extended = True
        selection = _options(reader, _SELECTION)
        if 'RECURSIVEMATCH' in selection and not selection & {'SUBSCRIBED', 'SPECIAL-USE'}:
            raise Bad('RECURSIVEMATCH needs another selection option')
        reader.space()
    reference = reader.list_mailbox()
    reader.space()
    if reader.at(b'('):
        extended = True
        patterns = []
        reader.blanks()
        while True:
            patterns.append(reader.list_mailbox())
            if len(patterns) > MAX_PATTERNS:
                raise Bad('Too many patterns')
            if not reader.blanks() or reader.peek() == 0x29:
                break
        reader.expect(b')')
    else:
        patterns = [reader.list_mailbox()]
    returns: set[str] = set()
    status_items: tuple[str, ...] = ()
    if reader.more():
        if reader.atom() != 'RETURN':
            raise Bad('Expected RETURN')
        reader.space()
        reader.expect(b'(')
        extended = True
        while True:
            reader.blanks()
            option = reader.option()
            if not option:
                break
            if option == 'STATUS':  # RFC 5819 2
                reader.space()
                status_items = _status_items(reader)
            elif option not in _RETURNS:
                raise Bad('Unknown LIST return option')
            returns.add(option)
        reader.expect(b')')
    return List(reference, tuple(patterns), extended, selection, frozenset(returns), status_items)


def _options(reader: Reader, known: frozenset[str]) -> frozenset[str]:
    options: set[str] = set()
    while True:
        reader.blanks()
        option = reader.option()
        if not option:
            break
        if option not in known:
            raise Bad('Unknown LIST selection option')
        options.add(option)
    reader.expect(b')')
    return frozenset(options)


def status(reader: Reader) -> Status:
    reader.space()
    mailbox = reader.mailbox()
    reader.space()
    return Status(mailbox, _status_items(reader))


def _status_items(reader: Reader) -> tuple[str, ...]:
    reader.expect(b'(')
    reader.blanks()
    items: dict[str, None] = {}
    while True:
        item = reader.atom()
        if item not in STATUS_ITEMS:
            raise Bad('Unknown STATUS item')
        items[item] = None
        if not reader.blanks() or reader.peek() == 0x29:
            break
    reader.expect(b')')
    return tuple(items)


def append_options(reader: Reader) -> tuple[Flags, int | None]:
    """What stands between mailbox and message: SP [flags SP] [date SP]."""
    flags = Flags()
    date = None
    reader.space()
    if reader.peek() == 0x28:
        flags = reader.flag_list()
        reader.space()
    if reader.peek() == 0x22:
        date = reader.date_time()
        reader.space()
    return flags, date
