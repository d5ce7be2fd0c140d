"""From a frame to a command: RFC 3501 section 9 and the extensions' commands.

`parse` reads the tag and the command's name and hands the rest to the reader
function of that command, one file a command family.  All of them raise `Bad`
with a clear text; nothing else escapes, whatever the octets are.  Nesting and
counts are bounded where they occur; the length is bounded by the framer.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable

from madmail.imap import (
    grammar_append,
    grammar_fetch,
    grammar_mailbox,
    grammar_metadata,
    grammar_notify,
    grammar_search,
)
from madmail.imap.syntax import (
    Append,
    Arguments,
    Authenticate,
    Bad,
    Command,
    Compress,
    Copy,
    Enable,
    Expunge,
    Frame,
    Id,
    Login,
)
from madmail.imap.tokens import Reader

MAX_ID_PAIRS = 30  # RFC 2971 3.3
MAX_ENABLE = 32

# RFC 3501 9: tag = 1*<any ASTRING-CHAR except "+">
_TAG = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff+]+')
_HEAD = re.compile(rb'([^\x00-\x20(){%*"\\\x7f-\xff+]+) +(?:([Uu][Ii][Dd]) +)?([A-Za-z]+)(?= |\Z)')


def parse(frame: Frame, *, utf8: bool = False) -> Command:
    """The command in `frame`; raises Bad with its tag set.

    `utf8`: the client enabled UTF8=ACCEPT or IMAP4rev2, mailbox names are UTF-8.
    """
    line = frame.line
    head = _HEAD.match(line)
    if head is None:
        raise _headless(line)
    tag, prefix, verb = head.groups()
    try:
        # PERF: IDLE takes 2 µs from here to the command, SELECT 4, UID STORE and FETCH 6 to 8.
        name = verb.decode('ascii').upper()
        read = (_WITH_UID if prefix else _COMMANDS).get(name)
        if read is None:
            raise Bad('Unknown command')
        reader = Reader(frame, head.end(), utf8)
        arguments = read(reader)
        reader.end()
        if reader.used != len(frame.literals):
            raise Bad('Unexpected literal')
        return Command(tag, name, prefix is not None, arguments)
    except Bad as bad:
        bad.tag = tag
        raise


def parse_append(frame: Frame, *, utf8: bool = False) -> tuple[Command, grammar_append.Messages]:
    """The frame of a first `AppendStart`, and what reads the text behind the literal."""
    head = _HEAD.match(frame.line)
    if head is None:
        raise _headless(frame.line)
    try:
        reader = Reader(frame, head.end(), utf8)
        name = head[3].decode('ascii').upper()
        messages = grammar_append.Messages(single=name == 'REPLACE')
        arguments = messages.first(reader, last=False)
        return Command(head[1], name, head[2] is not None, arguments), messages
    except Bad as bad:
        bad.tag = head[1]
        raise


def _headless(line: bytes) -> Bad:
    tag = _TAG.match(line)
    if tag is None:
        return Bad('Missing tag')
    rest = line[tag.end() :]
    bad = Bad('Invalid command' if rest.strip(b' ') else 'Missing command')
    if rest[:1] in (b'', b' '):
        bad.tag = tag[0]
    return bad


def _nothing(reader: Reader) -> None:
    return None


def _append(reader: Reader) -> Append:
    """Without a message literal: CATENATE of nothing but URLs."""
    return grammar_append.Messages(single=False).first(reader, last=True)


def _replace(reader: Reader) -> Append:
    return grammar_append.Messages(single=True).first(reader, last=True)


def _login(reader: Reader) -> Login:
    reader.space()
    user = reader.astring()
    reader.space()
    return Login(user, reader.astring())


def _authenticate(reader: Reader) -> Authenticate:
    reader.space()
    mechanism = reader.atom()
    if not reader.more():
        return Authenticate(mechanism, None)
    # RFC 4959 3: `=` is an empty initial response
    if reader.at(b'='):
        return Authenticate(mechanism, b'')
    return Authenticate(mechanism, base64_octets(reader.astring()))


def base64_octets(text: bytes) -> bytes:
    """RFC 4648 base64, for SASL responses; raises Bad."""
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise Bad('Invalid base64') from None


def _id(reader: Reader) -> Id:
    reader.space()
    if not reader.at(b'('):
        if reader.option() != 'NIL':
            raise Bad('Expected a list or NIL')
        return Id(())
    pairs: list[tuple[bytes, bytes | None]] = []
    reader.blanks()
    while not reader.at(b')'):
        field = reader.string()
        reader.space()
        pairs.append((field, reader.nstring()))
        if len(pairs) > MAX_ID_PAIRS:
            raise Bad('Too many ID fields')
        if not reader.blanks() and reader.peek() != 0x29:
            raise Bad('Missing space')
    return Id(tuple(pairs))


def _enable(reader: Reader) -> Enable:
    reader.space()
    names = [reader.atom()]
    while reader.more():
        names.append(reader.atom())
        if len(names) > MAX_ENABLE:
            raise Bad('Too many capabilities')
    return Enable(tuple(names))


def _compress(reader: Reader) -> Compress:
    reader.space()
    return Compress(reader.atom())


def _copy(reader: Reader) -> Copy:
    reader.space()
    numbers = reader.sequence_set()
    reader.space()
    return Copy(numbers, reader.mailbox())


def _uid_expunge(reader: Reader) -> Expunge:
    reader.space()
    return Expunge(reader.sequence_set())


_COMMANDS: dict[str, Callable[[Reader], Arguments]] = {
    'CAPABILITY': _nothing,
    'NOOP': _nothing,
    'LOGOUT': _nothing,
    'STARTTLS': _nothing,
    'CHECK': _nothing,
    'CLOSE': _nothing,
    'UNSELECT': _nothing,
    'EXPUNGE': _nothing,
    'IDLE': _nothing,
    'NAMESPACE': _nothing,
    'NOTIFY': grammar_notify.notify,
    'LOGIN': _login,
    'AUTHENTICATE': _authenticate,
    'ID': _id,
    'ENABLE': _enable,
    'COMPRESS': _compress,
    'APPEND': _append,
    'REPLACE': _replace,
    'COPY': _copy,
    'MOVE': _copy,
    'FETCH': grammar_fetch.fetch,
    'STORE': grammar_fetch.store,
    'SEARCH': grammar_search.search,
    'SORT': grammar_search.sort,
    'THREAD': grammar_search.thread,
    'CANCELUPDATE': grammar_search.cancel_update,
    'SELECT': grammar_mailbox.select,
    'EXAMINE': grammar_mailbox.select,
    'CREATE': grammar_mailbox.create,
    'DELETE': grammar_mailbox.name,
    'SUBSCRIBE': grammar_mailbox.name,
    'UNSUBSCRIBE': grammar_mailbox.name,
    'RENAME': grammar_mailbox.rename,
    'LIST': grammar_mailbox.list_,
    'LSUB': grammar_mailbox.lsub,
    'STATUS': grammar_mailbox.status,
    'GETMETADATA': grammar_metadata.get_metadata,
    'SETMETADATA': grammar_metadata.set_metadata,
    'GETQUOTA': grammar_metadata.get_quota,
    'GETQUOTAROOT': grammar_mailbox.name,
    'SETQUOTA': grammar_metadata.set_quota,
}
_WITH_UID: dict[str, Callable[[Reader], Arguments]] = {
    'REPLACE': _replace,
    'FETCH': grammar_fetch.uid_fetch,
    'STORE': grammar_fetch.store,
    'SEARCH': grammar_search.search,
    'SORT': grammar_search.sort,
    'THREAD': grammar_search.thread,
    'COPY': _copy,
    'MOVE': _copy,
    'EXPUNGE': _uid_expunge,
}
