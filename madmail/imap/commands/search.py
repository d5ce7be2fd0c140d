"""SEARCH and UID SEARCH (RFC 3501 6.4.4), SORT and UID SORT (RFC 5256).

Both can give their result as ESEARCH (RFC 4731, RFC 5267 3), in part (RFC 5267
4.4, RFC 9394), keep it for `$` (RFC 5182), and keep it up to date (RFC 5267 4.3).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from madmail.imap import matching, order, responses
from madmail.imap.commands.registry import Tell, capability, command
from madmail.imap.context import Contexts
from madmail.imap.matching import Found, Plan
from madmail.imap.order import drive
from madmail.imap.syntax import (
    Bad,
    CancelUpdate,
    Command,
    Criterion,
    Search,
    Sort,
)
from madmail.imap.view import part
from madmail.message.slices import STEP, Sliced

if TYPE_CHECKING:
    from madmail.imap.session import ImapSession
    from madmail.imap.view import View

capability('ESEARCH', 'SEARCHRES', 'WITHIN', 'PARTIAL', 'I18NLEVEL=1')
capability('SORT', 'SORT=DISPLAY', 'ESORT', 'CONTEXT=SEARCH', 'CONTEXT=SORT')


@command('SEARCH', selected=True, tell=Tell.EXISTS | Tell.FLAGS)
def search(session: ImapSession, command: Command) -> bytes:
    assert isinstance(command.arguments, Search)
    if command.arguments.charset and 'UTF8=ACCEPT' in session.enabled:
        raise Bad('CHARSET is not possible beside UTF8=ACCEPT')  # RFC 6855 3
    _answer(session, command, command.arguments, ())
    return _completed(session, b'Search completed')


@command('SORT', selected=True, tell=Tell.EXISTS | Tell.FLAGS)
def sort(session: ImapSession, command: Command) -> bytes:
    assert isinstance(command.arguments, Sort)
    _answer(session, command, command.arguments.search, command.arguments.criteria)
    return _completed(session, b'Sort completed')


@command('CANCELUPDATE', selected=True)
def cancel_update(session: ImapSession, command: Command) -> bytes:
    assert isinstance(command.arguments, CancelUpdate)
    view = session.view
    assert view is not None
    contexts = view.contexts
    if contexts is None or not all(tag in contexts.by_tag for tag in command.arguments.tags):
        raise Bad('No search of this tag is kept up to date')
    for tag in command.arguments.tags:
        contexts.by_tag.pop(tag, None)
    if not contexts.by_tag:
        view.contexts = None
    return b'OK Updates cancelled'


def _completed(session: ImapSession, text: bytes) -> bytes:
    """The result leaves out messages that the client still counts (RFC 5530 3)."""
    view = session.view
    if view is not None and view.pending:
        return b'OK [EXPUNGEISSUED] ' + text
    return b'OK ' + text


def _answer(
    session: ImapSession, command: Command, arguments: Search, criteria: Sequence[Criterion]
) -> None:
    view = session.view
    assert view is not None
    returns = arguments.returns
    if returns is None and not criteria and 'IMAP4REV2' in session.enabled:
        returns = ()  # RFC 9051 6.4.4: always ESEARCH
    saves = returns is not None and 'SAVE' in returns
    contexts = None
    if returns is not None and 'UPDATE' in returns:
        contexts = _contexts(view, command.tag)
    try:
        plan = Plan(session, view, arguments.key)
        if plan.wants_modseq:
            session.enable('CONDSTORE')  # RFC 7162 3.1
        found = matching.search(session, view, plan)
    except Bad:
        if saves:
            session.saved = ()  # RFC 5182 2.1: a failed SAVE leaves nothing
        if contexts is not None and not contexts.by_tag:
            view.contexts = None
        raise
    uids = found.uids
    if criteria and _order_matters(returns):
        uids = order.arranged(session, view, uids, criteria)
    wanted = None if returns is None else set(returns) - {'CONTEXT'}
    if wanted is None:
        numbers = _numbers(session, view, command, uids)
        _plain(session, b'SORT' if criteria else b'SEARCH', numbers, _highest(found))
        return
    if contexts is not None:
        _keep(session, contexts, command, plan, criteria, uids)
    chosen = uids[part(arguments.partial, len(uids))] if arguments.partial else array('I')
    if saves:
        session.saved = _saved(uids, chosen, wanted)
    if not wanted:
        wanted = {'ALL'}
    if wanted != {'SAVE'}:
        _extended(session, view, command, arguments, wanted, found, uids, chosen)


def _order_matters(returns: Sequence[str] | None) -> bool:
    """COUNT and SAVE are the same in any order."""
    wanted = set(returns or ()) - {'CONTEXT'}
    return not wanted or not wanted <= {'COUNT', 'SAVE'}


def _contexts(view: View, tag: bytes) -> Contexts:
    """Where the search is to be kept; from now on it hears of all changes."""
    if view.contexts is None:
        view.contexts = Contexts(view)
    elif tag in view.contexts.by_tag:
        raise Bad('Tag is in use by a search that is kept up to date')  # RFC 5267 4.3
    return view.contexts


def _keep(
    session: ImapSession,
    contexts: Contexts,
    command: Command,
    plan: Plan,
    criteria: Sequence[Criterion],
    uids: array[int],
) -> None:
    # What changes by the mere passing of time nobody would notice.
    if plan.ages or not contexts.add(command.tag, command.uid, plan, criteria, uids):
        # RFC 5267 4.3.1
        session.wire.write(
            b'* NO [NOUPDATE %s] Will not tell of changes\r\n' % responses.quoted(command.tag)
        )
        view = session.view
        if view is not None and not contexts.by_tag:
            view.contexts = None


def _saved(uids: array[int], chosen: array[int], wanted: set[str]) -> array[int]:
    """RFC 5182 2.4: MIN and MAX alone save only what they name, PARTIAL its part; ascending."""
    if not uids or wanted & {'ALL', 'COUNT'} or not wanted & {'MIN', 'MAX', 'PARTIAL'}:
        return array('I', sorted(uids))
    kept = set(chosen)
    if 'MIN' in wanted:
        kept.add(uids[0])
    if 'MAX' in wanted:
        kept.add(uids[-1])
    return array('I', sorted(kept))


def _highest(found: Found) -> int | None:
    return max(found.modseqs, default=None) if found.modseqs is not None else None


def _extended(
    session: ImapSession,
    view: View,
    command: Command,
    arguments: Search,
    wanted: set[str],
    found: Found,
    uids: array[int],
    chosen: array[int],
) -> None:
    """The ESEARCH response."""
    results: list[tuple[str, int | bytes]] = []
    named: set[int] = set()  # the messages in the response, if it does not tell of all
    if uids and 'MIN' in wanted:
        results.append(('MIN', _numbers(session, view, command, uids[:1])[0]))
        named.add(uids[0])
    if uids and 'MAX' in wanted:
        results.append(('MAX', _numbers(session, view, command, uids[-1:])[0]))
        named.add(uids[-1])
    if uids and 'ALL' in wanted:
        numbers = _numbers(session, view, command, uids)
        results.append(('ALL', drive(session, _set(numbers))))
    if 'COUNT' in wanted:
        results.append(('COUNT', len(uids)))
    if arguments.partial is not None:
        numbers = _numbers(session, view, command, chosen)
        listed = drive(session, _set(numbers)) or b'NIL'
        results.append(('PARTIAL', b'(%d:%d %s)' % (*arguments.partial, listed)))
        named.update(chosen)
    modseq = None
    if found.modseqs is not None and uids:
        # RFC 7162 3.1.10: the highest of the messages the response names
        modseq = _highest(found)
        if named and not wanted & {'ALL', 'COUNT'}:
            pairs = zip(found.uids, found.modseqs, strict=True)
            modseq = max(modseq for uid, modseq in pairs if uid in named)
    session.wire.write(responses.esearch(command.tag, command.uid, results, modseq))


def _numbers(session: ImapSession, view: View, command: Command, uids: array[int]) -> Sequence[int]:
    """The message numbers, or the UIDs themselves for a UID command; may switch."""
    if command.uid or not uids:
        return uids
    numbers = array('I')
    for start in range(0, len(uids), STEP):
        piece = uids[start : start + STEP]
        view.box.load(min(piece))
        numbers.extend([view.sequence(uid) for uid in piece])
        session.pause()
    return numbers


def _plain(session: ImapSession, verb: bytes, numbers: Sequence[int], modseq: int | None) -> None:
    """SEARCH (RFC 3501 7.2.5) or SORT (RFC 5256 4), put together in slices."""
    pieces = [b'* ' + verb]
    for start in range(0, len(numbers), STEP):
        pieces.append(_listed(numbers[start : start + STEP]))
        session.pause()
    line = b' '.join(pieces)
    if modseq is not None:
        line += b' (MODSEQ %d)' % modseq
    session.wire.write(line + b'\r\n')


def _listed(numbers: Iterable[int]) -> bytes:
    return b' '.join([b'%d' % number for number in numbers])


def _set(numbers: Sequence[int]) -> Sliced[bytes]:
    """A sequence set that keeps the order; only ascending runs become ranges."""
    pieces: list[bytes] = []
    first = last = 0
    for position, number in enumerate(numbers):
        if number != last + 1 or not last:
            if last:
                pieces.append(b'%d' % first if first == last else b'%d:%d' % (first, last))
            first = number
        last = number
        if position % STEP == 0:
            yield
    if last:
        pieces.append(b'%d' % first if first == last else b'%d:%d' % (first, last))
    return b','.join(pieces)
