"""SMTP before the hand-over, as dialogues; each also sent one octet at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.gate.rig import Gate, Shard
from tests.gate.script import play

BASE = """
        S: 250-chat.example
        S: 250-PIPELINING
        S: 250-SIZE 31457280
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-ENHANCEDSTATUSCODES
"""
# before TLS, under TLS on a submission port, under TLS on port 25
CLEAR = BASE + '        S: 250-CHUNKING\n        S: 250 STARTTLS'
TLS = BASE + '        S: 250-CHUNKING\n        S: 250 AUTH PLAIN LOGIN'
INBOUND_TLS = BASE + '        S: 250 CHUNKING'

DIALOGUES = {
    'any_state': (
        'submissions',
        """
        S: 220 chat.example ESMTP
        C: NOOP
        S: 250 2.0.0 OK
        C: rset
        S: 250 2.0.0 OK
        C: HELP
        S: 214 2.0.0 See RFC 5321
        C: VRFY alice
        S: 252 2.0.0 Cannot verify, send some mail
        C: HELO phone
        S: 250 chat.example
        C: QUIT
        S: 221 2.0.0 Bye
        END
        """,
    ),
    'login_as_delta_chat_does': (
        'submissions',
        f"""
        S: 220 chat.example ESMTP
        C: EHLO [127.0.0.1]
        {TLS}
        ; NUL alice@chat.example NUL right
        C: AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
        S: 235 2.7.0 Authentication successful
        LOGIN proto=submission user=alice@chat.example password=right helo=[127.0.0.1] esmtp=True
        C: MAIL FROM:<alice@chat.example>
        S: MAIL FROM:<alice@chat.example>
        """,
    ),
    'plain_prompted': (
        'submissions',
        f"""
        S: 220 chat.example ESMTP
        C: EHLO phone
        {TLS}
        C: AUTH PLAIN
        S: 334\\x20
        C: AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
        S: 235 2.7.0 Authentication successful
        """,
    ),
    'login_mechanism': (
        'submissions',
        f"""
        S: 220 chat.example ESMTP
        C: EHLO phone
        {TLS}
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: YWxpY2VAY2hhdC5leGFtcGxl
        S: 334 UGFzc3dvcmQ6
        C: d3Jvbmc=
        S: 535 5.7.8 Authentication failed
        LOGIN user=alice@chat.example password=wrong
        C: AUTH LOGIN YWxpY2VAY2hhdC5leGFtcGxl
        S: 334 UGFzc3dvcmQ6
        C: cmlnaHQ=
        S: 235 2.7.0 Authentication successful
        LOGIN user=alice@chat.example password=right
        """,
    ),
    'cancelled_and_malformed': (
        'submissions',
        f"""
        S: 220 chat.example ESMTP
        C: AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
        S: 503 5.5.1 Send EHLO first
        C: EHLO phone
        {TLS}
        C: AUTH PLAIN
        S: 334\\x20
        C: *
        S: 501 5.7.0 Cancelled
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: *
        S: 501 5.7.0 Cancelled
        C: AUTH CRAM-MD5
        S: 504 5.5.4 Mechanism not supported
        C: AUTH PLAIN ????
        S: 501 5.5.2 Cannot decode response
        C: AUTH PLAIN =
        S: 501 5.5.2 Cannot decode response
        C: NOOP
        S: 250 2.0.0 OK
        """,
    ),
    'nothing_without_login': (
        'submissions',
        f"""
        S: 220 chat.example ESMTP
        C: EHLO phone
        {TLS}
        C: MAIL FROM:<alice@chat.example>
        S: 530 5.7.0 Authentication required
        C: RCPT TO:<bob@chat.example>
        S: 530 5.7.0 Authentication required
        C: DATA
        S: 530 5.7.0 Authentication required
        C: ETRN x
        S: 502 5.5.1 Command not implemented
        C: XYZZY
        S: 500 5.5.1 Command not recognized
        C: EHLO
        S: 501 5.5.4 Domain or address literal expected
        C: RSET now
        S: 501 5.5.4 No argument allowed
        C: STARTTLS
        S: 503 5.5.1 TLS is active already
        C: X
        S: 500 5.5.1 Command not recognized
        C: X
        S: 500 5.5.1 Command not recognized
        S: 421 4.7.0 Too many errors
        END
        """,
    ),
    'denied_and_troubled': (
        'submissions',
        f"""
        S: 220 chat.example ESMTP
        C: EHLO phone
        {TLS}
        ; NUL alice@other.example NUL right
        C: AUTH PLAIN AGFsaWNlQG90aGVyLmV4YW1wbGUAcmlnaHQ=
        S: 535 5.7.8 Authentication failed
        ; NUL alice@chat.example NUL busy
        C: AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQBidXN5
        S: 454 4.7.0 Temporary trouble, try again later
        LOGIN password=busy
        ; NUL alice@chat.example NUL many
        C: AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQBtYW55
        S: 421 4.7.0 Too many sessions, try again later
        END
        """,
    ),
    'pipelined_behind_auth': (
        'submissions',
        f"""
        S: 220 chat.example ESMTP
        C: EHLO phone
        {TLS}
        C> AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==\\r\\nMAIL FROM:<>\\r\\nRCPT TO\\r\\n
        S: 235 2.7.0 Authentication successful
        S: MAIL FROM:<>
        S: RCPT TO
        """,
    ),
    'submission_before_tls': (
        'submission',
        f"""
        S: 220 chat.example ESMTP
        C: EHLO phone
        {CLEAR}
        C: AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
        S: 538 5.7.11 Encryption required for this mechanism
        C: MAIL FROM:<alice@chat.example>
        S: 530 5.7.0 Must issue a STARTTLS command first
        C: STARTTLS now
        S: 501 5.5.4 No argument allowed
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        TLS
        ; what was said before counts no more
        C: AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
        S: 503 5.5.1 Send EHLO first
        C: EHLO [127.0.0.1]
        {TLS}
        C: AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
        S: 235 2.7.0 Authentication successful
        LOGIN tls=True
        """,
    ),
    'inbound': (
        'smtp',
        f"""
        S: 220 chat.example ESMTP
        C: MAIL FROM:<x@other.example>
        S: 503 5.5.1 Send EHLO first
        C: EHLO mx.other.example
        {CLEAR}
        C: AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
        S: 502 5.5.1 Command not implemented
        C: RCPT TO:<alice@chat.example>
        S: 503 5.5.1 Send MAIL first
        C: STARTTLS
        S: 220 2.0.0 Ready to start TLS
        TLS
        C: EHLO mx_1.other.example
        {INBOUND_TLS}
        C: AUTH LOGIN
        S: 502 5.5.1 Command not implemented
        C: mail FROM:<x@other.example> SIZE=5
        LOGIN proto=inbound user= password= helo=mx_1.other.example esmtp=True tls=True
        S: mail FROM:<x@other.example> SIZE=5
        C: RCPT TO:<alice@chat.example>
        S: RCPT TO:<alice@chat.example>
        """,
    ),
    'inbound_pipelined_after_helo': (
        'smtp',
        """
        S: 220 chat.example ESMTP
        C> HELO mx\\r\\nMAIL FROM:<>\\r\\nRCPT TO:<a@b>\\r\\nDAT
        S: 250 chat.example
        S: MAIL FROM:<>
        S: RCPT TO:<a@b>
        LOGIN proto=inbound helo=mx esmtp=False tls=False
        C: A
        S: DATA
        """,
    ),
    'bare_line_feed': (
        'smtp',
        """
        S: 220 chat.example ESMTP
        C> HELO mx\\nMAIL FROM:<>\\r\\n
        S: 500 5.5.2 Bare CR or LF in a command line
        END
        """,
    ),
    'bdat_before_login_is_not_read_as_commands': (
        'submissions',
        f"""
        S: 220 chat.example ESMTP
        C: EHLO phone
        {TLS}
        C> BDAT 6 LAST\\r\\nNOOP\\r\\n
        S: 503 5.5.1 Send MAIL first
        END
        """,
    ),
    'http': (
        'smtp',
        """
        S: 220 chat.example ESMTP
        C> POST / HTTP/1.1\\r\\nHost: chat.example\\r\\n
        S: 500 5.5.2 This is a mail server
        END
        """,
    ),
    'client_hello': (
        'submission',
        """
        S: 220 chat.example ESMTP
        C> \\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03
        S: 421 4.7.0 This port speaks SMTP
        END
        """,
    ),
}


@pytest.mark.parametrize('split', [False, True], ids=['whole', 'octets'])
@pytest.mark.parametrize('name', DIALOGUES)
def test_dialogue(
    name: str,
    split: bool,
    start_gate: Callable[..., Gate],
    start_shard: Callable[..., Shard],
) -> None:
    service, script = DIALOGUES[name]
    shard, gate = start_shard(), start_gate()
    with gate.client(service) as client:
        play(script, client, shard, split)
    assert gate.counts['crashes'] == 0


@pytest.mark.parametrize('service', ['smtp', 'submission'])
def test_anything_behind_starttls_is_an_injection(
    service: str, start_gate: Callable[..., Gate]
) -> None:
    gate = start_gate()
    with gate.client(service) as client:
        play(
            f"""
            S: 220 chat.example ESMTP
            C: EHLO mx
            {CLEAR}
            C> STARTTLS\\r\\nEHLO evil\\r\\n
            S: 503 5.5.1 Nothing may follow STARTTLS
            END
            """,
            client,
        )


def test_inbound_tls_can_be_required(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    start_shard()
    gate = start_gate(policy__inbound_require_tls=True)
    with gate.client('smtp') as client:
        play(
            f"""
            S: 220 chat.example ESMTP
            C: EHLO mx
            {CLEAR}
            C: MAIL FROM:<>
            S: 530 5.7.0 Must issue a STARTTLS command first
            C: STARTTLS
            S: 220 2.0.0 Ready to start TLS
            TLS
            C: EHLO mx
            {INBOUND_TLS}
            C: MAIL FROM:<>
            S: MAIL FROM:<>
            """,
            client,
        )


def test_plaintext_login_when_allowed(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    start_shard()
    gate = start_gate(policy__plaintext_login=True)
    with gate.client('submission') as client:
        play(
            f"""
            S: 220 chat.example ESMTP
            C: EHLO phone
            {CLEAR.replace('250 STARTTLS', '250-STARTTLS')}
            S: 250 AUTH PLAIN LOGIN
            C: AUTH PLAIN AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
            S: 235 2.7.0 Authentication successful
            """,
            client,
        )


def test_inbound_without_a_shard_is_a_temporary_refusal(
    start_gate: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('madmail.gate.handover.REACH_TIME', 0.3)
    gate = start_gate()
    with gate.client('smtp') as client:
        play(
            """
            S: 220 chat.example ESMTP
            C> HELO mx\\r\\nMAIL FROM:<>\\r\\nRCPT TO:<a@b>\\r\\nDATA\\r\\n
            S: 250 chat.example
            S: 451 4.3.0 Temporary trouble, try again later
            S: 503 5.5.1 Send MAIL first
            S: 503 5.5.1 Send MAIL first
            C: QUIT
            S: 221 2.0.0 Bye
            END
            """,
            client,
        )


def test_inbound_goes_to_the_shards_in_turn_and_around_one_that_is_down(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    shards = [start_shard(0), start_shard(2)]  # 1 is down
    gate = start_gate({'shards': 3})
    for _ in range(6):
        with gate.client('smtp') as client:
            client.send(b'HELO mx\r\nMAIL FROM:<>\r\n')
            assert [client.line() for _ in range(3)][-1] == b'MAIL FROM:<>'
    assert [shard.frames.qsize() for shard in shards] == [2, 4]


@pytest.mark.parametrize(
    ('flood', 'answer'),
    [
        (b'EHLO ' + b'x' * 3000, b'500 5.5.2 Line too long'),
        (b'AUTH PLAIN ' + b'A' * 13000, b'500 5.5.2 Line too long'),
    ],
)
def test_a_line_without_end_is_cut_off(
    flood: bytes, answer: bytes, start_gate: Callable[..., Gate]
) -> None:
    gate = start_gate()
    with gate.client('submissions') as client:
        client.line()
        client.send(flood)
        assert client.line() == answer
        assert client.ended()
