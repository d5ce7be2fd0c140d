"""What the server says, as octets: RFC 3501 section 7 and the extensions' data.

Every function that makes a response returns it complete with CRLF; functions
named after a token (`quoted`, `string`, `flag_list`, …) return the bare token.

The rules that Delta Chat's parser enforces hold here once for all callers:
status text and quoted strings are 7-bit, everything else goes into literals;
FETCH attributes are parted by exactly one space and `)` stands directly behind
a literal; METADATA values are always literals, the mailbox is always quoted,
and an empty list is never sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence

from madmail.imap import mailbox_name
from madmail.store.interface import Flag

CONTINUE = b'+ OK\r\n'
MAX_SET = 16384  # octets of a set in COPYUID or APPENDUID

_QUOTABLE = re.compile(rb'[\x01-\x09\x0b\x0c\x0e-\x7f]*\Z')  # 7-bit without NUL, CR, LF
_SPECIAL = re.compile(rb'(["\\])')
_QUOTED_MAX = 1024  # longer strings are literals; some clients bound their quoted strings
_ENTRY = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff]+\Z')
_UNSAFE = re.compile(rb'[\x00-\x1f\x7f-\xff]+')
_FIRST_DATE, _LAST_DATE = -62135596800, 253402300799  # years 1 to 9999
_MONTHS = (
    b'Jan', b'Feb', b'Mar', b'Apr', b'May', b'Jun',
    b'Jul', b'Aug', b'Sep', b'Oct', b'Nov', b'Dec',
)  # fmt: skip

_SYSTEM = (
    (Flag.ANSWERED, '\\Answered'),
    (Flag.FLAGGED, '\\Flagged'),
    (Flag.DELETED, '\\Deleted'),
    (Flag.SEEN, '\\Seen'),
    (Flag.DRAFT, '\\Draft'),
)
_ALL_BITS = 31
# PERF: made once, so a flag list without keywords is one look-up.
_SYSTEM_LISTS = [
    b' '.join(name.encode() for bit, name in _SYSTEM if bits & bit) for bits in range(_ALL_BITS + 1)
]


# -- tokens


def quoted(value: bytes | str) -> bytes:
    """A quoted string; for 7-bit text without line ends only."""
    octets = value.encode('ascii') if isinstance(value, str) else value
    if b'"' in octets or b'\\' in octets:
        octets = _SPECIAL.sub(rb'\\\1', octets)
    return b'"%s"' % octets


def quotable(value: bytes) -> bool:
    """Whether a quoted string can hold this for every client."""
    return len(value) <= _QUOTED_MAX and _QUOTABLE.match(value) is not None


def literal(value: bytes) -> bytes:
    return b'{%d}\r\n%s' % (len(value), value)


def string(value: bytes) -> bytes:
    """Quoted where that is allowed, else a literal."""
    if quotable(value):
        return quoted(value)
    # RFC 3501 9: a literal is CHAR8, which excludes NUL
    return literal(value.replace(b'\0', b'?') if b'\0' in value else value)


def nstring(value: bytes | None) -> bytes:
    return b'NIL' if value is None else string(value)


def mailbox(name: str, utf8: bool = False) -> bytes:
    """A mailbox name, always quoted."""
    return quoted(mailbox_name.encode(name, utf8=utf8))


def flag_list(bits: int, keywords: Iterable[str] = (), recent: bool = False) -> bytes:
    """`(\\Seen $Forwarded)`; keywords come out as stored."""
    flags = _SYSTEM_LISTS[bits & _ALL_BITS]
    if keywords or recent:
        words = [flags] if flags else []
        words.extend(word.encode('ascii', 'replace') for word in keywords)
        if recent:
            words.append(b'\\Recent')
        flags = b' '.join(words)
    return b'(%s)' % flags


def internal_date(unix: int) -> bytes:
    """RFC 3501 9: date-time, in UTC."""
    year, month, day, hour, minute, second = time.gmtime(min(max(unix, _FIRST_DATE), _LAST_DATE))[
        :6
    ]
    return b'"%02d-%s-%04d %02d:%02d:%02d +0000"' % (
        day, _MONTHS[month - 1], year, hour, minute, second,
    )  # fmt: skip


def number_set(numbers: Iterable[int]) -> bytes:
    """`1:3,7` for 1 2 3 7; the order is kept, so only ascending runs become ranges."""
    parts: list[bytes] = []
    first = last = 0
    for number in numbers:
        if number == last + 1 and last:
            last = number
            continue
        if last:
            parts.append(b'%d' % first if first == last else b'%d:%d' % (first, last))
        first = last = number
    if last:
        parts.append(b'%d' % first if first == last else b'%d:%d' % (first, last))
    return b','.join(parts)


# -- status


def status_text(text: str) -> bytes:
    """7-bit text without control characters, never empty (RFC 3501 9: text)."""
    return _UNSAFE.sub(b'?', text.encode('ascii', 'replace')) or b'.'


def tagged(tag: bytes, status: bytes, text: str, code: bytes = b'') -> bytes:
    """`tag OK [code] text`"""
    if code:
        return b'%s %s [%s] %s\r\n' % (tag, status, code, status_text(text))
    return b'%s %s %s\r\n' % (tag, status, status_text(text))


def untagged(status: bytes, text: str, code: bytes = b'') -> bytes:
    """`* OK [code] text`, also for NO, BAD, BYE and PREAUTH."""
    return tagged(b'*', status, text, code)


def continuation(text: str = 'OK') -> bytes:
    return b'+ %s\r\n' % status_text(text)


def capability_code(capabilities: Iterable[str]) -> bytes:
    """For the tagged OK of LOGIN, without brackets."""
    return b'CAPABILITY ' + ' '.join(capabilities).encode()


def append_uid(uid_validity: int, uids: Sequence[int]) -> bytes:
    """Response code (RFC 4315 3); b'' if it would be too long."""
    numbers = number_set(uids)
    return b'APPENDUID %d %s' % (uid_validity, numbers) if 0 < len(numbers) <= MAX_SET else b''


def copy_uid(uid_validity: int, pairs: Sequence[tuple[int, int]]) -> bytes:
    """Response code (RFC 4315 3) for pairs (source, new); b'' for none or too long."""
    source = number_set(pair[0] for pair in pairs)
    target = number_set(pair[1] for pair in pairs)
    if not pairs or len(source) > MAX_SET or len(target) > MAX_SET:
        return b''
    return b'COPYUID %d %s %s' % (uid_validity, source, target)


def in_progress(tag: bytes, done: int, goal: int) -> bytes:
    """Response code (RFC 9585 4); `done` is below `goal`."""
    goal = max(goal, 1)
    return b'INPROGRESS (%s %d %d)' % (string(tag), min(done, goal - 1), goal)


# -- server and mailbox data


def capability(capabilities: Iterable[str]) -> bytes:
    return b'* CAPABILITY %s\r\n' % ' '.join(capabilities).encode()


def enabled(capabilities: Iterable[str]) -> bytes:
    return b'* %s\r\n' % b' '.join([b'ENABLED', *(name.encode() for name in capabilities)])


def identity(fields: Iterable[tuple[str, str]]) -> bytes:
    """ID (RFC 2971); one line, for the client reads it from one packet."""
    pairs = b' '.join(quoted(key) + b' ' + quoted(value) for key, value in fields)
    return b'* ID (%s)\r\n' % pairs if pairs else b'* ID NIL\r\n'


def namespace() -> bytes:
    """RFC 2342: one personal namespace, no others."""
    return b'* NAMESPACE (("" "%s")) NIL NIL\r\n' % mailbox_name.DELIMITER.encode()


def exists(count: int) -> bytes:
    return b'* %d EXISTS\r\n' % count


def recent(count: int) -> bytes:
    return b'* %d RECENT\r\n' % count


def expunge(number: int) -> bytes:
    return b'* %d EXPUNGE\r\n' % number


def vanished(uids: Iterable[int], earlier: bool = False) -> bytes:
    """RFC 7162 3.2.10; b'' if there are no UIDs."""
    numbers = number_set(uids)
    if not numbers:
        return b''
    return b'* VANISHED %s%s\r\n' % (b'(EARLIER) ' if earlier else b'', numbers)


def flags(keywords: Iterable[str] = ()) -> bytes:
    return b'* FLAGS %s\r\n' % flag_list(_ALL_BITS, keywords)


def permanent_flags(keywords: Iterable[str] = (), writable: bool = True) -> bytes:
    """The untagged OK; `\\*` says that new keywords can be made (RFC 3501 7.1)."""
    if not writable:
        return b'* OK [PERMANENTFLAGS ()] Read-only mailbox\r\n'
    inner = flag_list(_ALL_BITS, keywords)[:-1]
    return b'* OK [PERMANENTFLAGS %s \\*)] Flags permitted\r\n' % inner


def list_(
    attributes: Iterable[str],
    name: str,
    *,
    utf8: bool = False,
    child_info: Iterable[str] = (),
    old_name: str = '',
    verb: bytes = b'LIST',
) -> bytes:
    """LIST or LSUB; `child_info` is CHILDINFO (RFC 5258 4), for clients that asked.

    `old_name` is OLDNAME (RFC 5465 5.4, RFC 9051 6.3.9.7).
    """
    line = b'* %s (%s) "%s" %s' % (
        verb,
        ' '.join(attributes).encode(),
        mailbox_name.DELIMITER.encode(),
        mailbox(name, utf8),
    )
    inferiors = [quoted(word) for word in child_info]
    if inferiors:
        line += b' ("CHILDINFO" (%s))' % b' '.join(inferiors)
    elif old_name:
        line += b' ("OLDNAME" (%s))' % mailbox(old_name, utf8)
    return line + b'\r\n'


def list_delimiter() -> bytes:
    """The answer to LIST "" "" (RFC 3501 6.3.8)."""
    return b'* LIST (\\Noselect) "%s" ""\r\n' % mailbox_name.DELIMITER.encode()


def status(name: str, items: Iterable[tuple[str, int | str]], utf8: bool = False) -> bytes:
    """STATUS; a `str` value is an object id (RFC 8474) and goes into parentheses."""
    words = [
        b'%s %d' % (item.encode(), value)
        if isinstance(value, int)
        else b'%s (%s)' % (item.encode(), value.encode())
        for item, value in items
    ]
    return b'* STATUS %s (%s)\r\n' % (mailbox(name, utf8), b' '.join(words))


def search(numbers: Iterable[int], modseq: int | None = None) -> bytes:
    """The plain SEARCH response; `modseq` if the search had MODSEQ (RFC 7162 3.1.5)."""
    line = b'* SEARCH'
    listed = b' '.join([b'%d' % number for number in numbers])
    if listed:
        line += b' ' + listed
        if modseq is not None:
            line += b' (MODSEQ %d)' % modseq
    return line + b'\r\n'


def esearch(
    tag: bytes, uid: bool, results: Iterable[tuple[str, int | bytes]], modseq: int | None = None
) -> bytes:
    """ESEARCH (RFC 4731 3.1); results like ('MIN', 3) and ('ALL', number_set(…))."""
    line = b'* ESEARCH (TAG %s)' % string(tag)
    if uid:
        line += b' UID'
    for name, value in results:
        if value == b'':
            continue  # RFC 4731 3.1: no ALL, MIN, MAX when nothing matched
        line += b' %s ' % name.encode() + (value if isinstance(value, bytes) else b'%d' % value)
    if modseq is not None:
        line += b' MODSEQ %d' % modseq
    return line + b'\r\n'


# -- METADATA and QUOTA


def metadata(name: str, values: Sequence[tuple[str, bytes | None]], utf8: bool = False) -> bytes:
    """METADATA (RFC 5464 4.4.1); b'' without values."""
    if not values:
        return b''
    words = [b'%s %s' % (_entry(entry), _metadata_value(value)) for entry, value in values]
    return b'* METADATA %s (%s)\r\n' % (mailbox(name, utf8), b' '.join(words))


def metadata_names(name: str, entries: Iterable[str], utf8: bool = False) -> bytes:
    """METADATA without values: these entries have changed (RFC 5464 4.4.2)."""
    return b'* METADATA %s %s\r\n' % (mailbox(name, utf8), b' '.join(map(_entry, entries)))


def _entry(entry: str) -> bytes:
    octets = entry.encode('ascii', 'replace')
    return octets if _ENTRY.match(octets) else quoted(octets)


def _metadata_value(value: bytes | None) -> bytes:
    if value is None:
        return b'NIL'
    # Delta Chat stops working at a literal that is not UTF-8.
    return literal(value.decode('utf-8', 'replace').replace('\0', '?').encode())


def quota_root(name: str, roots: Iterable[str], utf8: bool = False) -> bytes:
    """QUOTAROOT; INBOX is an atom, as clients expect it."""
    where = b'INBOX' if name == 'INBOX' else mailbox(name, utf8)
    return b'* %s\r\n' % b' '.join([b'QUOTAROOT', where, *map(quoted, roots)])


def quota(root: str, resources: Iterable[tuple[str, int, int]]) -> bytes:
    """QUOTA with (resource, usage, limit); STORAGE counts units of 1024 octets."""
    words = [b'%s %d %d' % (name.encode(), used, limit) for name, used, limit in resources]
    return b'* QUOTA %s (%s)\r\n' % (quoted(root), b' '.join(words))


# -- FETCH


def fetch(number: int, attributes: Iterable[bytes]) -> bytes:
    """`* n FETCH (…)` of complete attributes, such as b'UID 5' or `section(…)`."""
    return b'* %d FETCH (%s)\r\n' % (number, b' '.join(attributes))


def fetch_head(number: int) -> bytes:
    """The beginning, for a response that is streamed; it ends with `FETCH_END`."""
    return b'* %d FETCH (' % number


FETCH_END = b')\r\n'


def section_head(name: bytes, size: int) -> bytes:
    """An attribute up to its literal of `size` octets, which the caller streams."""
    return b'%s {%d}\r\n' % (name, size)


def section(name: bytes, octets: bytes | None) -> bytes:
    """A section, always as literal; None is a part that does not exist."""
    return b'%s NIL' % name if octets is None else b'%s {%d}\r\n%s' % (name, len(octets), octets)


def binary_head(name: bytes, size: int, nul: bool) -> bytes:
    """Like `section_head`; a literal8 where a literal may not be (RFC 3516 4.2)."""
    return b'%s %s{%d}\r\n' % (name, b'~' if nul else b'', size)


def flags_attribute(bits: int, keywords: Iterable[str] = (), recent: bool = False) -> bytes:
    return b'FLAGS ' + flag_list(bits, keywords, recent)


def modseq_attribute(modseq: int) -> bytes:
    return b'MODSEQ (%d)' % modseq
