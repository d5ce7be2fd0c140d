"""Finding text in headers and bodies for SEARCH (RFC 3501 6.4.4).

Text is compared after undoing RFC 2047 words, transfer encodings and charsets,
by i;unicode-casemap (I18NLEVEL=1), so without regard to case in all of Unicode.
Bodies are searched in text parts and in the headers of embedded messages;
encrypted content, which is nearly all there is, has neither.
"""

from __future__ import annotations

import codecs
import re
from binascii import a2b_qp
from datetime import date
from email.utils import parsedate

from madmail.message import header_fields, transfer_encoding
from madmail.message.collation import casemap
from madmail.message.envelope import addresses
from madmail.message.parts import Part
from madmail.message.structure import Structure

WINDOW = 32 * 1024  # characters folded at once
MAX_SEARCHED = 4 * 1024 * 1024  # octets of one message's text looked at

_WORD = re.compile(rb'=\?([^?\s*]{1,40})(?:\*[^?\s]*)?\?([BbQq])\?([^?\s]*)\?=')
_BETWEEN_WORDS = re.compile(rb'(\?=)[ \t\r\n]+(?==\?[^?\s]{1,80}\?[BbQq]\?)')
# Python codecs that are no charsets of mail; some take quadratic time.
_NO_CHARSETS = frozenset(('idna', 'punycode', 'unicode-escape', 'raw-unicode-escape'))
_ADDRESSES = frozenset(('from', 'to', 'cc', 'bcc'))
_RUN = re.compile(r'[A-Z0-9]+')
_EPOCH = date(1970, 1, 1).toordinal()


fold = casemap  # the form in which texts are compared


def header_contains(block: bytes, field: str, needle: str) -> bool:
    """Some field of this name (lower case) holds `needle`, which is folded.

    An empty needle matches if the field exists at all.
    """
    values = header_fields.all_values(block, field.encode('ascii', 'replace'))
    if not needle:
        return bool(values)
    for value in values:
        text = fold(decode_words(value))
        if needle in text:
            return True
        if (
            field in _ADDRESSES
            and _may_hold(value, text, needle)
            and needle in fold(_canonical(value))
        ):
            return True
    return False


def _may_hold(value: bytes, text: str, needle: str) -> bool:
    """Whether the addresses could hold what their text does not: a cheap look."""
    if b'\\' in value or b'=?' in value:
        return True
    words = _RUN.findall(needle)
    return not words or max(words, key=len) in text


def _canonical(value: bytes) -> str:
    """An address field as `Name <user@domain>, …`, without comments and quotes."""
    listed = []
    for address in addresses(value):
        if address.mailbox is None:
            continue
        mailbox = to_text(address.mailbox, '')
        name = decode_words(address.name) if address.name else ''
        if address.host is not None:
            mailbox = f'<{mailbox}@{to_text(address.host, "")}>'
        listed.append(f'{name} {mailbox}' if name else mailbox)
    return ', '.join(listed)


def text_contains(structure: Structure, needle: str, body_only: bool) -> bool:
    """TEXT, or BODY with `body_only`; `needle` is folded.

    Goes over the whole message: large ones belong into a thread.
    """
    if not needle:
        return True
    if not body_only and _block_contains(structure.header(), needle):
        return True
    budget = MAX_SEARCHED
    pending = [structure.root]
    while pending and budget > 0:
        part = pending.pop()
        pending.extend(reversed(part.children))
        if part.message is not None:
            block = structure.octets.header(part.message.header_start, part.message.body_start)
            budget -= len(block)
            if _block_contains(block, needle):
                return True
            pending.append(part.message)
        elif part.content_type.kind.startswith(b'text/'):
            end = min(part.end, part.body_start + budget)
            octets = structure.octets.read(part.body_start, end)
            budget -= len(octets)
            if _contains(_part_text(octets, part), needle):
                return True
    return False


def _contains(text: str, needle: str) -> bool:
    """Whether a long text holds `needle`, folded a window at a time.

    Folding holds the interpreter, so a large text must not be folded at once
    even in a thread.
    """
    if len(text) <= WINDOW or text.isascii():
        return needle in fold(text)
    # Every character folds to at least one, so an overlap of the needle's length suffices.
    return any(
        needle in fold(text[start : start + WINDOW + len(needle)])
        for start in range(0, len(text), WINDOW)
    )


def sent_day(block: bytes) -> int | None:
    """The Date field's day as written, without zone, in days since 1970-01-01."""
    values = header_fields.all_values(block, b'date')
    if not values:
        return None
    try:
        parsed = parsedate(values[0][:200].decode('ascii', 'replace'))
        return date(*parsed[:3]).toordinal() - _EPOCH if parsed else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def decode_words(value: bytes) -> str:
    """A header value with its encoded words (RFC 2047) decoded."""
    if b'=?' not in value:
        return to_text(value, '')
    value = _BETWEEN_WORDS.sub(rb'\1', value)  # RFC 2047 6.2: blanks between words are no text
    texts = []
    position = 0
    for word in _WORD.finditer(value):
        texts.append(to_text(value[position : word.start()], ''))
        position = word.end()
        charset, encoding, text = word.groups()
        if encoding in b'Bb':
            octets = transfer_encoding.base64(text)
        else:
            octets = a2b_qp(text.replace(b'_', b'=20'))
        texts.append(to_text(octets, charset.decode('ascii', 'replace')))
    texts.append(to_text(value[position:], ''))
    return ''.join(texts)


def to_text(octets: bytes, charset: str) -> str:
    """Decoded with `charset`; UTF-8, then Latin-1 where that is unknown or wrong."""
    if charset and charset.lower() not in ('utf-8', 'us-ascii'):
        try:
            if codecs.lookup(charset).name.replace('_', '-') not in _NO_CHARSETS:
                return octets.decode(charset, 'replace')
        except (LookupError, ValueError):
            pass
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode('latin-1')


def _block_contains(block: bytes, needle: str) -> bool:
    return needle in fold(decode_words(header_fields.unfold(block)))


def _part_text(octets: bytes, part: Part) -> str:
    try:
        octets = transfer_encoding.decode(octets, part.encoding)
    except transfer_encoding.Unknown:
        pass
    charset = part.content_type.parameter(b'charset')
    return to_text(octets, charset.decode('ascii', 'replace'))
