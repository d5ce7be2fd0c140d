"""Search keys (RFC 3501 6.4.4 and the extensions): what SEARCH, SORT and THREAD look for.

Plain values as in `syntax`; days count from 1970-01-01.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from madmail.imap.sequence_set import SequenceSet


class Everything(NamedTuple):
    """ALL"""


class And(NamedTuple):
    keys: tuple[SearchKey, ...]


class Or(NamedTuple):
    left: SearchKey
    right: SearchKey


class Not(NamedTuple):
    key: SearchKey


class Numbers(NamedTuple):
    """A bare sequence set: message sequence numbers."""

    set: SequenceSet


class Uids(NamedTuple):
    set: SequenceSet


class FlagIs(NamedTuple):
    """SEEN, UNSEEN …: the bit of `store.interface.Flag` is set, or not."""

    bit: int
    present: bool


class Keyword(NamedTuple):
    name: str
    present: bool


class Recent(NamedTuple):
    """RECENT (True), OLD (False); NEW is And(Recent(True), FlagIs(SEEN, False))."""

    present: bool


class Comparison(Enum):
    BEFORE = '<'
    ON = '='
    SINCE = '>='


class Day(NamedTuple):
    """BEFORE ON SINCE, and with `sent` SENTBEFORE SENTON SENTSINCE.

    Times and zones are disregarded (RFC 3501 6.4.4): compare internal date
    // 86400, or `search_text.sent_day` of the header.
    """

    comparison: Comparison
    day: int
    sent: bool


class Size(NamedTuple):
    """LARGER (True) or SMALLER (False) than `octets`, both strict."""

    larger: bool
    octets: int


class Within(NamedTuple):
    """OLDER / YOUNGER (RFC 5032), `seconds` before now."""

    younger: bool
    seconds: int


class SavedDay(NamedTuple):
    """SAVEDBEFORE SAVEDON SAVEDSINCE (RFC 8514 4.3), days like `Day`."""

    comparison: Comparison
    day: int


class EmailIs(NamedTuple):
    """EMAILID (RFC 8474 6)."""

    id: str


class ModseqIs(NamedTuple):
    """MODSEQ n: mod-sequence at least n (RFC 7162 3.1.5)."""

    value: int


class Header(NamedTuple):
    """HEADER field text, and FROM TO CC BCC SUBJECT; `text` '' = the field exists."""

    field: str  # lower case
    text: str


class Text(NamedTuple):
    """TEXT (header and body) or, with `body_only`, BODY."""

    text: str
    body_only: bool


SearchKey = (
    Everything
    | And
    | Or
    | Not
    | Numbers
    | Uids
    | FlagIs
    | Keyword
    | Recent
    | Day
    | Size
    | Within
    | SavedDay
    | EmailIs
    | ModseqIs
    | Header
    | Text
)
