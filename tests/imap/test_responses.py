"""What is sent keeps the rules that Delta Chat's parser enforces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from madmail.imap import responses


@given(st.binary(max_size=60))
def test_quoted_strings_are_seven_bit_without_line_ends(value: bytes) -> None:
    token = responses.string(value)
    if token.startswith(b'"'):
        assert token.isascii()
        assert not set(token) & {0, 10, 13}
    else:
        head, _, rest = token.partition(b'\r\n')
        assert head == b'{%d}' % len(rest)
        assert len(rest) == len(value)
        assert b'\0' not in rest


@given(st.text(max_size=40))
def test_status_text_is_one_seven_bit_line(text: str) -> None:
    line = responses.tagged(b'a', b'NO', text, b'LIMIT')
    assert line.startswith(b'a NO [LIMIT] ')
    assert len(line) > len(b'a NO [LIMIT] \r\n')
    assert line.endswith(b'\r\n')
    assert line.isascii()
    assert all(octet >= 32 for octet in line[:-2])


def test_metadata_values_are_literals_and_nothing_is_sent_for_nothing() -> None:
    assert responses.metadata('', []) == b''
    assert responses.metadata('INBOX', [('/private/devicetoken', b'1111 2222')]) == (
        b'* METADATA "INBOX" (/private/devicetoken {9}\r\n1111 2222)\r\n'
    )
    assert responses.metadata('', [('/shared/a', b'x"'), ('/shared/b', None)]) == (
        b'* METADATA "" (/shared/a {2}\r\nx" /shared/b NIL)\r\n'
    )
    broken = responses.metadata('', [('/shared/a', b'\xff\0')])
    broken.decode()
    assert b'\0' not in broken


def test_fetch_lines() -> None:
    assert responses.fetch(
        7,
        [
            b'UID 5',
            b'RFC822.SIZE 12',
            responses.section(b'BODY[]', b'ab\r\n'),
            responses.flags_attribute(9, ('$K',), recent=True),
        ],
    ) == (
        b'* 7 FETCH (UID 5 RFC822.SIZE 12 BODY[] {4}\r\nab\r\n '
        b'FLAGS (\\Deleted \\Seen $K \\Recent))\r\n'
    )
    streamed = (
        responses.fetch_head(7) + responses.section_head(b'BODY[]', 2) + b'ab' + responses.FETCH_END
    )
    assert streamed == responses.fetch(7, [responses.section(b'BODY[]', b'ab')])
    assert responses.section(b'BODY[9]', None) == b'BODY[9] NIL'
    assert responses.fetch(1, [responses.modseq_attribute(3)]) == b'* 1 FETCH (MODSEQ (3))\r\n'


def test_mailbox_lines() -> None:
    assert responses.list_(['\\HasNoChildren'], 'Entwürfe "x"') == (
        b'* LIST (\\HasNoChildren) "/" "Entw&APw-rfe \\"x\\""\r\n'
    )
    assert responses.list_([], 'a', child_info=['SUBSCRIBED']) == (
        b'* LIST () "/" "a" ("CHILDINFO" ("SUBSCRIBED"))\r\n'
    )
    assert responses.list_([], 'ä', utf8=True, verb=b'LSUB') == '* LSUB () "/" "ä"\r\n'.encode()
    assert responses.status('INBOX', [('MESSAGES', 3), ('MAILBOXID', 'M1')]) == (
        b'* STATUS "INBOX" (MESSAGES 3 MAILBOXID (M1))\r\n'
    )
    assert responses.permanent_flags(['$K']) == (
        b'* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $K \\*)] '
        b'Flags permitted\r\n'
    )
    assert responses.quota_root('INBOX', ['User quota']) == b'* QUOTAROOT INBOX "User quota"\r\n'
    assert responses.quota_root('x', []) == b'* QUOTAROOT "x"\r\n'
    assert responses.quota('User quota', [('STORAGE', 1, 2)]) == (
        b'* QUOTA "User quota" (STORAGE 1 2)\r\n'
    )
    assert responses.identity([('name', 'x"')]) == b'* ID ("name" "x\\"")\r\n'
    assert responses.identity([]) == b'* ID NIL\r\n'
    assert responses.enabled([]) == b'* ENABLED\r\n'


def test_search_results() -> None:
    assert responses.search([]) == b'* SEARCH\r\n'
    assert responses.search([2, 84]) == b'* SEARCH 2 84\r\n'
    assert responses.search([2], modseq=9) == b'* SEARCH 2 (MODSEQ 9)\r\n'
    assert responses.esearch(b'a"', True, [('COUNT', 0), ('ALL', b'')]) == (
        b'* ESEARCH (TAG "a\\"") UID COUNT 0\r\n'
    )
    assert responses.esearch(b'a', False, [('ALL', b'1:3'), ('MIN', 1)], 5) == (
        b'* ESEARCH (TAG "a") ALL 1:3 MIN 1 MODSEQ 5\r\n'
    )
    assert responses.vanished([1, 2, 5], earlier=True) == b'* VANISHED (EARLIER) 1:2,5\r\n'
    assert responses.vanished([]) == b''


def test_uid_codes_keep_the_order_and_are_bounded() -> None:
    assert responses.append_uid(7, [3, 4, 5]) == b'APPENDUID 7 3:5'
    assert responses.copy_uid(7, [(1, 10), (2, 11), (9, 12)]) == b'COPYUID 7 1:2,9 10:12'
    assert responses.copy_uid(7, [(9, 1), (3, 2)]) == b'COPYUID 7 9,3 1:2'
    assert responses.copy_uid(7, []) == b''
    assert responses.copy_uid(7, [(n * 2, n) for n in range(1, 20000)]) == b''


def test_internal_dates() -> None:
    assert responses.internal_date(0) == b'"01-Jan-1970 00:00:00 +0000"'
    assert responses.internal_date(837595405) == b'"17-Jul-1996 09:23:25 +0000"'
    assert responses.internal_date(1 << 62) == b'"31-Dec-9999 23:59:59 +0000"'
