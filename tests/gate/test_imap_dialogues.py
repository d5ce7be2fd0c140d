"""IMAP before login, as dialogues; each also with the client sending one octet at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.gate.rig import Gate, Shard
from tests.gate.script import play

CLEAR = 'IMAP4rev1 LITERAL+ SASL-IR ID IDLE STARTTLS LOGINDISABLED'
TLS = 'IMAP4rev1 LITERAL+ SASL-IR ID IDLE AUTH=PLAIN'
OPEN = 'IMAP4rev1 LITERAL+ SASL-IR ID IDLE STARTTLS AUTH=PLAIN'

DIALOGUES = {
    'any_state': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: a1 CAPABILITY
        S: * CAPABILITY {TLS}
        S: a1 OK CAPABILITY completed
        C: a2 noop
        S: a2 OK NOOP completed
        C: a3 ID ("name" "Delta Chat")
        S: * ID NIL
        S: a3 OK ID completed
        C: a4 ID NIL
        S: * ID NIL
        S: a4 OK ID completed
        C: a5 LOGOUT
        S: * BYE Logging out
        S: a5 OK LOGOUT completed
        END
        """,
    ),
    'login_as_delta_chat_does': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: A0001 LOGIN "alice@chat.example" "right"
        S: A0001 OK Logged in
        LOGIN proto=imap user=alice@chat.example password=right tag=A0001 tls=True
        C: echo
        S: echo
        """,
    ),
    'login_name_is_made_canonical': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: 1 LOGIN Alice@CHAT.example right
        S: 1 OK Logged in
        LOGIN user=alice@chat.example
        """,
    ),
    'quoted_escapes_and_8_bit': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: a LOGIN "alice@chat.example" "a \\\\"b\\\\\\\\c {{5}}\\xc3\\xa9"
        S: a NO [AUTHENTICATIONFAILED] Authentication failed
        LOGIN password=a\\x20"b\\\\c\\x20{{5}}\\xc3\\xa9
        C: b LOGIN alice@chat.example \\xff%
        S: b BAD LOGIN takes a user name and a password
        C: b LOGIN alice@chat.example p\\xff]
        S: b NO [AUTHENTICATIONFAILED] Authentication failed
        LOGIN password=p\\xff]
        C: c LOGIN alice@chat.example ""
        S: c NO [AUTHENTICATIONFAILED] Authentication failed
        LOGIN password=
        """,
    ),
    'bare_line_feeds': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C> a NOOP\\nb LOGIN alice@chat.example right\\n
        S: a OK NOOP completed
        S: b OK Logged in
        """,
    ),
    'synchronizing_literals': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: a LOGIN {{18}}
        S: + OK
        C> alice@chat.example {{5}}\\r\\n
        S: + OK
        C> right\\r\\n
        S: a OK Logged in
        LOGIN user=alice@chat.example password=right
        """,
    ),
    'non_synchronizing_literals': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C> a LOGIN {{18+}}\\r\\nalice@chat.example {{7+}}\\r\\na\\r\\nb" x\\r\\n
        S: a NO [AUTHENTICATIONFAILED] Authentication failed
        LOGIN user=alice@chat.example password=a\\r\\nb"\\x20x
        C> b LOGIN alice@chat.example {{3+}}\\r\\na\\x00b\\r\\n
        S: b BAD LOGIN takes a user name and a password
        C> c LOGIN {{18+}}\\r\\nalice@chat.example{{5+}}\\r\\nright\\r\\n
        S: c BAD LOGIN takes a user name and a password
        """,
    ),
    'literals_nobody_wants': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: a LOGIN {{1025}}
        S: a BAD [TOOBIG] Literal too large
        C: b APPEND INBOX {{10}}
        S: b NO Please log in first
        C: c XYZZY {{10}}
        S: c BAD Unknown command
        C> d APPEND INBOX {{4+}}\\r\\nabcd\\r\\n
        S: d NO Please log in first
        C: e APPEND INBOX {{1000000+}}
        S: e BAD [TOOBIG] Literal too large
        S: * BYE Literal too large
        END
        """,
    ),
    'authenticate_plain': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        ; NUL alice@chat.example NUL right
        C: a AUTHENTICATE PLAIN
        S: +\\x20
        C: AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
        S: a OK Logged in
        LOGIN user=alice@chat.example password=right tag=a
        """,
    ),
    'authenticate_plain_initial_response': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: a authenticate plain AGFsaWNlQGNoYXQuZXhhbXBsZQByaWdodA==
        S: a OK Logged in
        """,
    ),
    'authenticate_refused': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: a AUTHENTICATE PLAIN
        S: +\\x20
        C: *
        S: a BAD Cancelled
        C: b AUTHENTICATE XOAUTH2 abcd
        S: b NO [CANNOT] Mechanism not supported
        C: c AUTHENTICATE PLAIN ???
        S: c BAD Not base64
        C: d AUTHENTICATE PLAIN =
        S: d BAD Not a PLAIN response
        ; bob NUL alice NUL right: for somebody else
        C: e AUTHENTICATE PLAIN Ym9iAGFsaWNlAHJpZ2h0
        S: e BAD Not a PLAIN response
        """,
    ),
    'wrong_password_and_foreign_name_are_told_alike': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: a LOGIN alice@chat.example wrong
        S: a NO [AUTHENTICATIONFAILED] Authentication failed
        C: b LOGIN alice@other.example right
        S: b NO [AUTHENTICATIONFAILED] Authentication failed
        """,
    ),
    'temporary_trouble_never_says_authentication': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: a LOGIN alice@chat.example busy
        S: a NO [UNAVAILABLE] Temporary trouble, try again later
        C: b LOGIN alice@chat.example many
        S: b NO [LIMIT] Too many sessions
        C: c LOGIN alice@chat.example right
        S: c OK Logged in
        """,
    ),
    'pipelined_behind_login': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C> a LOGIN alice@chat.example right\\r\\nb SELECT INBOX\\r\\n
        S: a OK Logged in
        S: b SELECT INBOX
        """,
    ),
    'pipelined_behind_a_denied_login': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C> a LOGIN alice@chat.example wrong\\r\\nb NOOP\\r\\nc LOGIN alice@chat.example right\\r\\n
        S: a NO [AUTHENTICATIONFAILED] Authentication failed
        S: b OK NOOP completed
        S: c OK Logged in
        """,
    ),
    'plain_port_before_tls': (
        'imap',
        f"""
        S: * OK [CAPABILITY {CLEAR}] ready
        C: a CAPABILITY
        S: * CAPABILITY {CLEAR}
        S: a OK CAPABILITY completed
        C: b LOGIN alice@chat.example right
        S: b NO [PRIVACYREQUIRED] Use STARTTLS first
        C: c LOGIN {{18}}
        S: c NO [PRIVACYREQUIRED] Use STARTTLS first
        C: d AUTHENTICATE PLAIN
        S: d NO [PRIVACYREQUIRED] Use STARTTLS first
        """,
    ),
    'starttls': (
        'imap',
        f"""
        S: * OK [CAPABILITY {CLEAR}] ready
        C: a STARTTLS
        S: a OK Begin TLS negotiation now
        TLS
        C: b CAPABILITY
        S: * CAPABILITY {TLS}
        S: b OK CAPABILITY completed
        C: c STARTTLS
        S: c BAD TLS is active already
        C: d LOGIN alice@chat.example right
        S: d OK Logged in
        LOGIN tls=True
        C: echo
        S: echo
        """,
    ),
    'not_before_login': (
        'imaps',
        f"""
        S: * OK [CAPABILITY {TLS}] ready
        C: a SELECT INBOX
        S: a NO Please log in first
        C: b UID FETCH 1:* (FLAGS)
        S: b NO Please log in first
        C: c XYZZY
        S: c BAD Unknown command
        C: nonsense
        S: nonsense BAD Syntax error
        C: (
        S: * BAD Syntax error
        C> \\r\\n
        S: * BAD Syntax error
        C: d NOOP now
        S: d BAD No argument allowed
        C: e LOGIN alone
        S: e BAD LOGIN takes a user name and a password
        C: f LOGIN
        S: f BAD LOGIN takes a user name and a password
        C: g IDLE
        S: g NO Please log in first
        S: * BYE Too many bad commands
        END
        """,
    ),
    'http': (
        'imap',
        f"""
        S: * OK [CAPABILITY {CLEAR}] ready
        C: GET / HTTP/1.1
        S: * BYE This port speaks IMAP
        END
        """,
    ),
    'client_hello': (
        'imap',
        f"""
        S: * OK [CAPABILITY {CLEAR}] ready
        C> \\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03
        S: * BYE This port speaks IMAP
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


def test_plaintext_login_when_allowed(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    shard, gate = start_shard(), start_gate(policy__plaintext_login=True)
    with gate.client('imap') as client:
        play(
            f"""
            S: * OK [CAPABILITY {OPEN}] ready
            C: a LOGIN alice@chat.example right
            S: a OK Logged in
            LOGIN tls=False
            """,
            client,
            shard,
        )


def test_an_ip_literal_relay_takes_unquoted_names_with_brackets(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    shard, gate = start_shard(), start_gate(domain='192.0.2.1')
    for name in ('u@[192.0.2.1]', '"u@[192.0.2.1]"', 'u@192.0.2.1'):
        with gate.client('imaps') as client:
            play(
                f"""
                S: * OK [CAPABILITY {TLS}] ready
                C: a LOGIN {name} "right"
                S: a OK Logged in
                LOGIN user=u@[192.0.2.1]
                """,
                client,
                shard,
            )


def test_what_was_injected_before_tls_is_not_heard(
    start_gate: Callable[..., Gate], start_shard: Callable[..., Shard]
) -> None:
    start_shard()
    gate = start_gate()
    with gate.client('imap') as client:
        play(
            f"""
            S: * OK [CAPABILITY {CLEAR}] ready
            C> a STARTTLS\\r\\nb LOGIN mallory@chat.example right\\r\\n
            S: a OK Begin TLS negotiation now
            TLS
            C: c NOOP
            S: c OK NOOP completed
            """,
            client,
        )
    assert gate.counts['logins'] == 0


def test_a_literal_begun_before_tls_is_forgotten(start_gate: Callable[..., Gate]) -> None:
    gate = start_gate(policy__plaintext_login=True)
    with gate.client('imap') as client:
        play(
            f"""
            S: * OK [CAPABILITY {OPEN}] ready
            C: a AUTHENTICATE PLAIN
            S: +\\x20
            C: *
            S: a BAD Cancelled
            C: b STARTTLS
            S: b OK Begin TLS negotiation now
            TLS
            C: c CAPABILITY
            S: * CAPABILITY {TLS}
            S: c OK CAPABILITY completed
            """,
            client,
        )


@pytest.mark.parametrize('flood', [b'a' * 9000, b'a LOGIN "' + b'x' * 9000])
def test_a_line_without_end_is_cut_off(flood: bytes, start_gate: Callable[..., Gate]) -> None:
    gate = start_gate()
    with gate.client('imaps') as client:
        client.line()
        client.send(flood)
        assert client.line() == b'* BAD Line too long'
        assert client.line() == b'* BYE Line too long'
        assert client.ended()


def test_many_small_literals_are_too_long_together(start_gate: Callable[..., Gate]) -> None:
    gate = start_gate()
    with gate.client('imaps') as client:
        client.line()
        client.send(b'a LOGIN ' + (b'{1000+}\r\n' + b'x' * 1000 + b' ') * 9 + b'\r\n')
        assert client.line() == b'a BAD [TOOBIG] Literal too large'
        assert client.line() == b'* BYE Literal too large'
        assert client.ended()


def test_guessing_is_slowed_down_and_then_ended(
    start_gate: Callable[..., Gate],
    start_shard: Callable[..., Shard],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('madmail.gate.imap_prelogin.FAILURE_DELAY', 0.1)
    start_shard()
    gate = start_gate()
    with gate.client('imaps') as client:
        client.line()
        client.send(b'a LOGIN alice@chat.example wrong\r\n' * 10 + b'b NOOP\r\n')
        for _ in range(10):
            assert client.line() == b'a NO [AUTHENTICATIONFAILED] Authentication failed'
        assert client.line() == b'* BYE Too many failures'
        assert client.ended()
    assert gate.counts['logins_denied'] == 10
