"""THREAD and UID THREAD (RFC 5256 3)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from madmail.imap import matching
from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.matching import Plan
from madmail.imap.order import drive, header_values, rows_of
from madmail.imap.syntax import Command, Thread
from madmail.message import threads
from madmail.message.slices import Sliced
from madmail.message.sort_key import sent_date
from madmail.message.threads import Forest, Messages

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession

capability('THREAD=ORDEREDSUBJECT', 'THREAD=REFERENCES', 'THREAD=REFS')


@command('THREAD', selected=True, tell=Tell.EXISTS | Tell.FLAGS)
def thread(session: ImapSession, command: Command) -> bytes:
    arguments = command.arguments
    assert isinstance(arguments, Thread)
    view = session.view
    assert view is not None
    algorithm = arguments.algorithm
    found = matching.search(session, view, Plan(session, view, arguments.key))
    uids = array('I')
    messages = Messages()
    for row in rows_of(session, view, found.uids):
        values = header_values(session, view, row)
        if values is None:
            continue  # expunged meanwhile
        date = None if algorithm == 'REFS' else sent_date(values)
        uids.append(row.uid)
        messages.add(threads.linked(values, row.internal_date if date is None else date))
    if uids and not command.uid:
        view.box.load(uids[0])

    def number(index: int) -> int:
        return uids[index] if command.uid else view.sequence(uids[index])

    def written() -> Sliced[bytes]:
        forest: Forest
        if algorithm == 'ORDEREDSUBJECT':
            forest = yield from threads.ordered_subject(messages)
        else:
            forest = yield from threads.references(messages, subjects=algorithm == 'REFERENCES')
        lists = yield from threads.written(forest, number)
        yield from messages.free()
        return lists

    lists = drive(session, written())
    # RFC 5256 5: nothing follows the word where nothing was found
    session.wire.write(b'* THREAD %s\r\n' % lists if lists else b'* THREAD\r\n')
    # RFC 5530 3: the client still counts messages that are in no thread any more
    return b'OK %sThread completed' % (b'[EXPUNGEISSUED] ' if view.pending else b'')
