"""The base subject (RFC 5256 2.1): what SORT and THREAD compare of a Subject.

Marks of replies and forwards and the names of lists are taken off: `Re:`,
`Fwd:`, `(fwd)`, `[fwd: …]`, and `[blobs]` that something else follows.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from madmail.message.search_text import decode_words

MAX_SUBJECT = 2000  # characters looked at; taking off blobs costs their number squared

_BLANKS = re.compile(r'[ \t\r\n]+')
_BLOB = re.compile(r'\[[^\[\]]*\] *')
_LEADER = re.compile(r'(?:\[[^\[\]]*\] *)*(?:re|fwd?) *(?:\[[^\[\]]*\] *)?:', re.IGNORECASE)


class BaseSubject(NamedTuple):
    """`reply`: something was taken off that marks a reply or a forward."""

    text: str
    reply: bool


def base_subject(value: bytes) -> BaseSubject:
    """The base subject of an unfolded Subject field; '' for none."""
    text = _BLANKS.sub(' ', decode_words(value[: MAX_SUBJECT * 6]))[:MAX_SUBJECT]
    reply = False
    start, end = 0, len(text)
    while True:
        # RFC 5256 2.1 (2): subj-trailer
        while True:
            if end > start and text[end - 1] == ' ':
                end -= 1
            elif end - start >= 5 and text[end - 5 : end].lower() == '(fwd)':
                end -= 5
                reply = True
            else:
                break
        # (3) to (5): subj-leader, and a subj-blob where a subj-base remains
        while start < end:
            if text[start] == ' ':
                start += 1
                continue
            found = _LEADER.match(text, start, end)
            if found is not None:
                start = found.end()
                reply = True
                continue
            found = _BLOB.match(text, start, end)
            if found is None or found.end() == end:
                break
            start = found.end()
        # (6): [fwd: …]
        if end - start < 6 or text[start : start + 5].lower() != '[fwd:' or text[end - 1] != ']':
            return BaseSubject(text[start:end], reply)
        start += 5
        end -= 1
        reply = True
