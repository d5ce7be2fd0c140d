"""IMAP URLs of messages (RFC 5092)."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from madmail.imap.syntax import MAX_NUMBER, Section
from madmail.imap.url import MessageUrl, parse


def test_examples() -> None:
    assert parse(b'/INBOX/;UID=20') == MessageUrl('', '', 'INBOX', 0, 20, Section(), None)
    assert parse(b'/Box/a%20b;uidvalidity=385759045/;uid=20/;section=1.2.mime/;partial=5.7') == (
        MessageUrl('', '', 'Box/a b', 385759045, 20, Section((1, 2), 'MIME'), (5, 7))
    )
    assert parse(b'imap://ann;AUTH=*@Chat.Example/inbox/;UID=1/;SECTION=HEADER') == (
        MessageUrl('ann', 'chat.example', 'INBOX', 0, 1, Section((), 'HEADER'), None)
    )
    assert parse(b'imap://ann%40chat.example@chat.example:143/INBOX/;UID=1/;PARTIAL=9') == (
        MessageUrl('ann@chat.example', 'chat.example:143', 'INBOX', 0, 1, Section(), (9, 0))
    )
    fields = parse(b'/INBOX/;UID=3/;SECTION=HEADER.FIELDS%20(DATE%20FROM)')
    assert fields is not None
    assert fields.section == Section((), 'HEADER.FIELDS', (b'date', b'from'))


@pytest.mark.parametrize(
    'url',
    [
        b'',
        b'/',
        b'/INBOX',
        b'/INBOX;UID=1x',
        b'/;UID=1',
        b'INBOX/;UID=1',
        b'/INBOX/;UID=0',
        b'/INBOX/;UID=4294967296',
        b'/INBOX/;UID=-1',
        b'/INBOX;UIDVALIDITY=0/;UID=1',
        b'/INBOX/;UID=1/;SECTION=',
        b'/INBOX/;UID=1/;SECTION=bogus',
        b'/INBOX/;UID=1/;SECTION=1.2]',
        b'/INBOX/;UID=1/;PARTIAL=1.0',
        b'/INBOX/;UID=1/;PARTIAL=.1',
        b'/INBOX/;UID=1;URLAUTH=anonymous',
        b'/IN%BOX/;UID=1',
        b'/IN%F/;UID=1',
        b'/%ff/;UID=1',
        b'/a%00/;UID=1',
        b'/a b/;UID=1',
        b'imap:///INBOX/;UID=1',
        b'http://x/INBOX/;UID=1',
        b'imap://@h/INBOX/;UID=1/',
    ],
)
def test_what_names_no_message_is_none(url: bytes) -> None:
    if url == b'imap://@h/INBOX/;UID=1/':
        assert parse(url) is not None  # an empty user is nobody in particular
    else:
        assert parse(url) is None


numbers = st.integers(1, MAX_NUMBER)
names = st.text(
    st.characters(blacklist_categories=('Cs',), blacklist_characters='\0'), min_size=1, max_size=40
).filter(lambda name: not name.startswith('/') and not name.endswith('/'))
sections = st.sampled_from(['', 'HEADER', 'TEXT', '1', '1.2.MIME', '3.HEADER', 'HEADER.FIELDS (A)'])


@given(names, st.none() | numbers, numbers, sections, st.none() | st.tuples(numbers, numbers))
@settings(max_examples=200, deadline=None)
@example('Grüße/☃;UID=3', 7, 5, '1', (1, 1))
def test_what_was_written_is_read(
    name: str, validity: int | None, uid: int, section: str, partial: tuple[int, int] | None
) -> None:
    url = f'/{quote(name)}'
    if validity is not None:
        url += f';UIDVALIDITY={validity}'
    url += f'/;UID={uid}'
    if section:
        url += f'/;SECTION={quote(section)}'
    if partial is not None:
        url += '/;PARTIAL={}.{}'.format(*partial)
    found = parse(url.encode())
    assert found is not None
    assert found.mailbox in (name, 'INBOX' + name[5:])
    assert (found.uid_validity, found.uid) == (validity or 0, uid)
    assert found.partial == partial
    assert bool(found.section.text or found.section.part) == bool(section)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text('/;=UIDSECTONPARL%41.:@ab"0', max_size=200).map(str.encode),
        st.text('/;UID=1%', max_size=60).map(lambda text: b'/INBOX/;UID=1' + text.encode()),
    )
)
@settings(max_examples=400, deadline=None)
def test_anything_is_read_or_is_none(url: bytes) -> None:
    found = parse(url)
    assert found is None or 0 < found.uid <= MAX_NUMBER
