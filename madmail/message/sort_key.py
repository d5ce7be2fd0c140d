"""What SORT compares of a header block (RFC 5256 3, RFC 5957).

All functions take the block's first values, by name in lower case, as
`header_fields.first_values` gives them.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz

from madmail.message.base_subject import base_subject
from madmail.message.collation import casemap
from madmail.message.envelope import addresses
from madmail.message.search_text import decode_words

Values = Mapping[bytes, bytes]

MAX_KEY = 500  # characters of a text that are compared
MAX_FIELD = 8192  # octets of an address field looked at for its first address

_MONTHS = {
    month: number
    for number, month in enumerate(
        b'JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC'.split(), start=1
    )
}
# PERF: the form nearly all mail has; email.utils takes ten times as long.
_DATE = re.compile(
    rb'(?:[A-Za-z]{3}, *)?([0-9]{1,2}) ([A-Za-z]{3}) ([0-9]{4}) '
    rb'([0-9]{2}):([0-9]{2})(?::([0-9]{2}))? ([+-])([0-9]{2})([0-9]{2})(?![0-9])'
)
_DAY = re.compile(rb'(?:[A-Za-z]+,? *)?([0-9]{1,2})[ -]+([A-Za-z]{3})[A-Za-z]*[ -]+([0-9]{4})')


def sent_date(values: Values) -> int | None:
    """RFC 5256 2.2: the Date field in UTC, Unix seconds; None if it is no date.

    A zone that is none counts as UTC, a time of day that is none as midnight.
    """
    value = values.get(b'date')
    if not value:
        return None
    found = _DATE.match(value)
    if found is not None:
        day, month_name, year, hour, minute, second, sign, east, south = found.groups()
        month = _MONTHS.get(month_name.upper())
        if month and _sane(int(year), int(day), int(hour), int(minute), int(second or 0)):
            unix = calendar.timegm(
                (int(year), month, int(day), int(hour), int(minute), int(second or 0))
            )
            offset = (int(east) * 60 + int(south)) * 60
            return unix - offset if sign == b'+' else unix + offset
    try:
        parsed = parsedate_tz(value[:200].decode('ascii', 'replace'))
        if parsed is not None and _sane(parsed[0], parsed[2], parsed[3], parsed[4], parsed[5]):
            return int(mktime_tz((*parsed[:9], parsed[9] or 0)))
    except (ValueError, TypeError, IndexError, OverflowError):
        pass
    found = _DAY.match(value)
    month = _MONTHS.get(found[2].upper()) if found is not None else None
    if found is None or not month or not _sane(int(found[3]), int(found[1]), 0, 0, 0):
        return None
    return calendar.timegm((int(found[3]), month, int(found[1]), 0, 0, 0))


def _sane(year: int, day: int, hour: int, minute: int, second: int) -> bool:
    return 0 < year <= 9999 and 0 < day <= 31 and hour < 24 and minute < 60 and second <= 60


def subject(values: Values) -> str:
    return casemap(base_subject(values.get(b'subject', b'')).text[:MAX_KEY])


def mailbox(values: Values, field: bytes) -> str:
    """FROM, TO, CC: the mailbox of the first address, '' for none."""
    found = addresses(values.get(field, b'')[:MAX_FIELD])
    if not found or found[0].mailbox is None:
        return ''
    return casemap(found[0].mailbox.decode('utf-8', 'replace')[:MAX_KEY])


def display(values: Values, field: bytes) -> str:
    """DISPLAYFROM, DISPLAYTO (RFC 5957 3): how a client would show the first address."""
    found = addresses(values.get(field, b'')[:MAX_FIELD])
    if not found:
        return ''
    first = found[0]
    if first.host is None:
        text = decode_words(first.mailbox or b'')  # the name of a group
    elif first.name:
        text = decode_words(first.name)
    else:
        text = (b'%s@%s' % (first.mailbox or b'', first.host)).decode('utf-8', 'replace')
    return casemap(text.strip()[:MAX_KEY])
