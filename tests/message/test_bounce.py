"""Our delivery reports: as clients, the standard library and our own gate read them."""

import email
import email.policy

import forms as f
import pytest
from gate_corpus import inspect

from madmail.message.bounce import bounce
from madmail.message.inspection import Direction, Inspection, Rules
from madmail.smtp.reply import Reply

FAILED = ('bob@example.net', Reply(550, '5.1.1', 'No such user here'))
HEADERS = f.current_headers() + b'\r\n'


def test_report_has_the_three_parts_a_client_reads() -> None:
    message = email.message_from_bytes(
        bounce('example.org', 'alice@example.org', [FAILED], HEADERS, 1768472430.0),
        policy=email.policy.default,
    )
    assert not message.defects
    assert message['From'].addresses[0].addr_spec == 'MAILER-DAEMON@example.org'
    assert message['To'] == 'alice@example.org'
    assert message['Auto-Submitted'] == 'auto-replied'
    assert message['Date'].datetime.timestamp() == 1768472430
    assert message.get_content_type() == 'multipart/report'
    assert message.get_param('report-type') == 'delivery-status'
    text, status, original = message.get_payload()
    words = text.get_content().lower()
    assert 'mail delivery' in words
    assert 'undelivered' in words
    assert 'bob@example.net' in words
    assert status.get_content_type() == 'message/delivery-status'
    whole, recipient = status.get_payload()
    assert whole['Reporting-MTA'] == 'dns; example.org'
    assert recipient['Final-Recipient'] == 'rfc822; bob@example.net'
    assert recipient['Action'] == 'failed'
    assert recipient['Status'] == '5.1.1'
    assert recipient['Diagnostic-Code'] == 'smtp; 550 5.1.1 No such user here'
    assert original.get_content_type() == 'text/rfc822-headers'
    assert '<7c1d4a52-96f5-4b53-8a3f-0d7be0a2f6a1@localhost>' in original.get_payload()


def test_octets_are_those_of_a_message() -> None:
    data = bounce('example.org', 'alice@example.org', [FAILED] * 1000, HEADERS, 0)
    assert data.count(b'\n') == data.count(b'\r\n')
    assert max(map(len, data.split(b'\r\n'))) <= 998
    assert data.isascii()
    assert data.endswith(b'--\r\n')
    assert data.count(b'Action: failed\r\n') == 1000


def test_a_name_that_is_not_ascii_can_be_read() -> None:
    name = 'jürgen+x@example.net'
    data = bounce('example.org', 'a@example.org', [(name, FAILED[1])], HEADERS, 9000.0, 5000.0)
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert not message.defects
    text, status, _ = message.get_payload()
    assert f'<{name}>: 550 5.1.1' in text.get_content()
    whole, recipient = status.get_payload()
    assert recipient['Final-Recipient'] == 'utf-8; j\\x{FC}rgen\\x{2B}x@example.net'
    assert whole['Arrival-Date'] == 'Thu, 01 Jan 1970 01:23:20 -0000'
    assert message['Date'].datetime.timestamp() == 9000
    long = [('ü' * 500 + '\r\n\u2028@x', FAILED[1])]
    data = bounce('example.org', 'a@example.org', long, HEADERS, 0)
    assert data.count(b'Final-Recipient: ') == 1
    inspection = Inspection(Direction.IN, Rules(), reverse_path='', recipients=1)
    data = bounce('example.org', 'a@example.org', [(name, FAILED[1])], HEADERS, 0)
    verdict, _ = inspect(inspection, [data])
    assert verdict.reply is None


def test_words_of_the_other_side_stay_on_their_line() -> None:
    evil = Reply(550, '', 'no\r\n\r\n--x\r\nContent-Type: text/html\r\n\r\n\xe4' + 'y' * 2000)
    data = bounce('example.org', 'alice@example.org', [('b@x', evil)], HEADERS, 0)
    assert b'text/html' in data
    assert b'\r\nContent-Type: text/html' not in data
    assert max(map(len, data.split(b'\r\n'))) <= 998
    assert b'Status: 5.0.0\r\n' in data


@pytest.mark.parametrize('domain', ['example.org', '[192.0.2.1]'])
def test_report_passes_the_gate_of_another_relay(domain: str) -> None:
    data = bounce(domain, 'alice@example.org', [FAILED], HEADERS, 1768472430)
    inspection = Inspection(Direction.IN, Rules(), reverse_path='', recipients=1)
    verdict, kept = inspect(inspection, [data])
    assert verdict.reply is None
    assert verdict.kind == 'report'
    assert b'Action: failed' in kept


def test_original_of_odd_form_is_cleaned() -> None:
    odd = b'Message-ID: <a@b>\nSubject: caf\xc3\xa9\nno field\nX-A: b\n c\n\nbody\n'
    data = bounce('example.org', 'alice@example.org', [FAILED], odd, 0)
    assert b'Message-ID: <a@b>\r\n' in data
    assert b'X-A: b\r\n c\r\n' in data
    assert b'no field' not in data
    assert b'body' not in data
    assert b'Content-Transfer-Encoding: 8bit\r\n' in data
    assert data.count(b'\n') == data.count(b'\r\n')
