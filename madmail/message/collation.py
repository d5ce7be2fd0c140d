"""The collation i;unicode-casemap (RFC 5051), by which SEARCH, SORT and THREAD compare text.

Every character is put into title case and decomposed; two texts are equal, and
ordered, as the results are.  RFC 5255 4.3 (I18NLEVEL=1) asks for exactly this.
"""

from __future__ import annotations

import unicodedata

_KEPT = 8192  # characters whose mapping is remembered


class _Mapping(dict[int, str]):
    """From a character to what stands for it, worked out when it is first met."""

    def __missing__(self, codepoint: int) -> str:
        character = chr(codepoint)
        title = character.title()
        # RFC 5051 2: the one-to-one mapping of UnicodeData.txt, which Python gives
        # wherever there is no longer one.
        if len(title) == 1:
            character = title
        mapped = unicodedata.normalize('NFKD', character)
        if len(self) < _KEPT:
            self[codepoint] = mapped
        return mapped


_mapping = _Mapping()


def casemap(text: str) -> str:
    """The form of `text` that is compared, by code points."""
    if text.isascii():
        return text.upper()
    return text.translate(_mapping)
