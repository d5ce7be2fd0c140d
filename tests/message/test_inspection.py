"""The gate as its callers see it: order of refusals, limits, policy switches, cost."""

import itertools
import sys
import tracemalloc
from collections.abc import Callable, Iterator

import forms as f
import pytest
from gate_corpus import CORPUS, cut, inspect

from madmail.message.inspection import Direction, Inspection, Rules, Verdict

LOOSE = Rules(require_encryption=False)


def gate(
    message: bytes,
    direction: Direction = Direction.OUT,
    rules: Rules | None = None,
    size: int = 0,
    **more: object,
) -> tuple[Verdict, bytes]:
    own = f.ALICE if direction is Direction.OUT else ''
    facts: dict = {'reverse_path': f.ALICE, 'recipients': 1, 'own': own, **more}
    inspection = Inspection(direction, rules or Rules(), **facts)
    return inspect(inspection, cut(message, size) if size else [message])


def line(verdict: Verdict) -> str:
    assert verdict.reply is not None, 'accepted'
    return verdict.reply.line().decode().rstrip()


# -- replies


def test_replies_have_the_texts_clients_look_for() -> None:
    plain = b'From: alice@example.org\r\nSubject: hi\r\n\r\nhello\r\n'
    assert line(gate(plain)[0]) == '523 Encryption Needed: Invalid Unencrypted Mail'
    assert line(gate(plain, Direction.IN)[0]) == '523 Encryption Needed: Invalid Unencrypted Mail'
    foreign = f.encrypted().replace(b'<alice@', b'<mallory@')
    assert (
        line(gate(foreign)[0])
        == '500 5.7.1 Invalid FROM <mallory@example.org> for <alice@example.org>'
    )
    assert line(gate(b'nonsense\r\n')[0]) == '554 5.6.0 Malformed data'
    big = gate(f.encrypted(), rules=Rules(max_size=1000))[0]
    assert line(big).startswith('552 5.3.4 ')
    looping = b'Received: x\r\n' * 26 + f.encrypted()
    assert line(gate(looping, Direction.IN)[0]).startswith('554 5.4.6 ')


def test_refusal_is_known_before_the_end_and_swallows_the_rest() -> None:
    inspection = Inspection(Direction.OUT, Rules(), reverse_path=f.ALICE, recipients=1)
    assert (
        inspection.feed(b'From: <alice@example.org>\r\nContent-Type: text/plain\r\n\r\nhi') == b''
    )
    assert inspection.refused is not None
    assert inspection.feed(b'more' * 100000) == b''
    assert inspection.finish().reply == inspection.refused


def test_foreign_from_is_told_before_missing_encryption() -> None:
    plain = b'From: mallory@example.org\r\n\r\nhello\r\n'
    assert line(gate(plain)[0]).startswith('500 ')


def test_login_and_mail_from_must_both_be_the_from() -> None:
    assert gate(f.encrypted(), own='alice@example.org')[0].reply is None
    assert line(gate(f.encrypted(), own='bob@example.org')[0]).startswith('500 ')
    assert line(gate(f.encrypted(), reverse_path='bob@example.org')[0]).startswith('500 ')
    upper = f.encrypted().replace(b'alice@', b'ALICE@')
    assert gate(upper, reverse_path='Alice@Example.org')[0].reply is None


def test_incoming_from_that_differs_loses_its_reverse_path() -> None:
    assert not gate(f.encrypted(), Direction.IN)[0].null_sender
    assert gate(f.encrypted(), Direction.IN, reverse_path='list@example.net')[0].null_sender
    assert not gate(f.encrypted(), Direction.IN, reverse_path='')[0].null_sender


def test_verdict_tells_from_and_message_id() -> None:
    verdict, _ = gate(f.encrypted())
    assert verdict.from_address == f.ALICE
    assert verdict.message_id == '<7c1d4a52-96f5-4b53-8a3f-0d7be0a2f6a1@localhost>'


def test_header_block_is_kept_for_signature_checks() -> None:
    inspection = Inspection(Direction.IN, Rules(), reverse_path=f.ALICE, recipients=1)
    message = b'Received: x\r\n' + f.encrypted()
    inspection.feed(message)
    assert inspection.raw_header == message[: message.index(b'\r\n\r\n') + 4]


# -- limits


def test_size_is_met_exactly_and_outweighs_other_refusals() -> None:
    message = f.encrypted()
    assert gate(message, rules=Rules(max_size=len(message)))[0].reply is None
    assert gate(message, rules=Rules(max_size=0))[0].reply is None
    for size in (0, 1, 700):
        verdict, _ = gate(message, rules=Rules(max_size=len(message) - 1), size=size)
        assert line(verdict).startswith('552')
        verdict, _ = gate(b'nonsense\r\n' * 200, rules=Rules(max_size=1999), size=size)
        assert line(verdict).startswith('552')


def test_many_session_keys_pass_up_to_the_limit() -> None:
    keys = f.pkesk6() * 5000
    assert gate(f.encrypted(keys + f.seipd2()))[0].reply is None
    assert line(gate(f.encrypted(keys + f.pkesk6() + f.seipd2()))[0]).startswith('523')


@pytest.mark.parametrize('direction', list(Direction))
def test_post_quantum_session_keys_pass_in_their_exact_form(direction: Direction) -> None:
    fingerprint = b'\x21\6' + f.octets(32)
    kem_768, kem_1024 = f.octets(32 + 1088), f.octets(56 + 1568)
    wrapped = b'\x28' + f.octets(40)
    in_clear = b'\x29\x09' + f.octets(40)

    def code(data: bytes) -> int:
        reply = gate(f.encrypted(data), direction=direction)[0].reply
        return reply.code if reply else 0

    assert code(f.pkesk6(35, kem_768 + wrapped, fingerprint) + f.seipd2()) == 0
    assert code(f.pkesk6(35, kem_768 + wrapped) + f.pkesk6() + f.seipd2()) == 0
    assert code(f.pkesk6(36, kem_1024 + wrapped, fingerprint) + f.seipd2()) == 0
    assert code(f.pkesk3(35, kem_768 + in_clear) + f.pkesk3() + f.seipd1()) == 0
    assert code(f.pkesk3(36, kem_1024 + in_clear) + f.seipd1()) == 523
    assert code(f.pkesk6(35, kem_768 + wrapped + b'x') + f.seipd2()) == 523
    assert code(f.pkesk6(35, kem_768[1:] + wrapped) + f.seipd2()) == 523
    assert code(f.pkesk6(35, kem_1024 + wrapped) + f.seipd2()) == 523


def test_bounded_stretches_of_the_body() -> None:
    good = f.armor(f.PACKETS_1)
    assert gate(f.around(good, preamble=b' \r\n' * 1000))[0].reply is None
    assert line(gate(f.around(good, preamble=b' \r\n' * 9000))[0]).startswith('523')
    assert gate(f.around(good, epilogue=b'\r\n' * 1000))[0].reply is None
    assert line(gate(f.around(good, epilogue=b'\r\n' * 9000))[0]).startswith('523')


# -- Secure-Join, reports


def test_securejoin_can_be_switched_off_and_has_few_recipients() -> None:
    assert gate(f.join())[0].kind == 'securejoin'
    assert line(gate(f.join(), rules=Rules(securejoin=False))[0]).startswith('523')
    assert gate(f.join(), recipients=5)[0].reply is None
    assert line(gate(f.join(), recipients=6)[0]).startswith('523')


def test_securejoin_leaves_no_free_header() -> None:
    message = f.join(subject=b'Secret', headers=b'X-Text: Secret\r\nComments: Secret\r\n')
    for direction in (Direction.OUT, Direction.IN):
        verdict, kept = gate(message, direction)
        assert verdict.kind == 'securejoin'
        assert b'Secret' not in kept
        assert b'Secure-Join-Invitenumber: ' in kept


def test_reports_are_reduced_to_what_a_client_needs() -> None:
    message = (CORPUS / 'valid/report-whole-original.eml').read_bytes()
    verdict, kept = gate(message, Direction.IN, reverse_path='')
    assert verdict.kind == 'report'
    for text in (b'mail system at host', b'X-Queue', b'PGP MESSAGE', b'MIME-encapsulated'):
        assert text in message
        assert text not in kept
    for text in (
        b'Action: failed\r\n',
        b'Final-Recipient: rfc822; bob@example.org\r\n',
        b'Message-ID: <7c1d4a52-96f5-4b53-8a3f-0d7be0a2f6a1@localhost>\r\n',
    ):
        assert text in kept
    off = Rules(reports=False)
    assert line(gate(message, Direction.IN, off, reverse_path='')[0]).startswith('523')


def test_a_report_is_no_letter() -> None:
    message = (CORPUS / 'valid/report.eml').read_bytes()
    group = b'Final-Recipient: rfc822; bob@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n'
    at = message.index(b'Final-Recipient:')
    end = message.index(b'\r\n--report/1', at)

    def status(groups: bytes) -> tuple[Verdict, bytes]:
        return gate(message[:at] + groups + message[end:], Direction.IN, reverse_path='')

    letter = b'Diagnostic-Code: smtp;' + b'\r\n Dear Bob, how are you?' * 100 + b'\r\n'
    verdict, kept = status(group + letter)
    assert verdict.kind == 'report'
    assert b'Action: failed' in kept
    assert b'Dear Bob' not in kept
    verdict, kept = status((group + b'Remote-MTA: dns; Dear Bob\r\n\r\n') * 20)
    assert verdict.kind == 'report'
    assert kept.count(b'Final-Recipient:') == 20
    assert kept.count(b'Dear Bob') == 10
    for forged in (
        group.replace(b'bob@example.org', b'Dear Bob, how@are you'),
        group.replace(b'bob@', b'b' * 400 + b'@'),
        group.replace(b'5.1.1', b'5.1.1 ' + b'Dear Bob, how are you?' * 20),
    ):
        assert status(forged)[0].reply is not None


# -- where encryption is not required

PLAIN = (
    b'Received: from laptop ([198.51.100.23])\r\n\tby x\r\n'
    b'From: Alice <alice@example.org>\r\n'
    b'User-Agent: Example\r\n'
    b'Subject: hello\r\n'
    b'X-Other: kept\r\n'
    b'Bcc: <carol@example.com>\r\n'
    b'\r\n'
    b'Dear Bob\r\n'
)
SCRUBBED = b'From: Alice <alice@example.org>\r\nSubject: hello\r\nX-Other: kept\r\n\r\nDear Bob\r\n'


@pytest.mark.parametrize('size', [0, 1, 7])
def test_plain_mail_passes_without_revealing_fields(size: int) -> None:
    verdict, kept = gate(PLAIN, rules=LOOSE, size=size)
    assert verdict.reply is None
    assert verdict.kind == 'plain'
    assert kept == SCRUBBED


@pytest.mark.parametrize('size', [0, 1, 7])
@pytest.mark.parametrize(
    'message',
    [
        b'',
        b'\r\n',
        b'\n',
        b'no header at all',
        b'Subject: x',
        b'Subject: x\r\n',
        b'Subject: x\r\n\r\n',
        b'Subject: x\n\nbody\n',
        b'\r\nbody only\r\n',
        b'x' * 70000,
        b'Subject: ' + b'x' * 70000 + b'\r\n\r\nbody',
        b'A: b\r\rC: d\n\r\n\x80\xff',
        PLAIN,
    ],
)
def test_append_changes_nothing_even_of_odd_octets(message: bytes, size: int) -> None:
    verdict, kept = gate(message, Direction.APPEND, LOOSE, size=size or len(message) or 1)
    assert verdict.reply is None
    assert kept == message


def test_identity_holds_without_encryption() -> None:
    victim = PLAIN.replace(b'alice@', b'victim@')
    assert line(gate(victim, rules=LOOSE)[0]).startswith('500 5.7.1 Invalid FROM')
    second = PLAIN.replace(b'Subject', b'From: victim@example.org\r\nSubject')
    assert line(gate(second, rules=LOOSE)[0]).startswith('500 ')
    folded = PLAIN.replace(b'Alice <alice@', b'"alice@example.org"\r\n <victim@')
    assert line(gate(folded, rules=LOOSE)[0]).startswith('500 ')
    only_header = b'From: victim@example.org\r\n'
    assert line(gate(only_header, rules=LOOSE)[0]).startswith('500 ')
    spaced = PLAIN.replace(b'Subject', b'From : victim@example.org\r\nSubject')
    assert line(gate(spaced, rules=LOOSE)[0]).startswith('500 ')


def test_nul_and_size_hold_without_encryption() -> None:
    for direction in Direction:
        assert line(gate(PLAIN + b'\0', direction, LOOSE)[0]).startswith('554')
        assert line(gate(b'X: \0\r\n\r\n', direction, LOOSE)[0]).startswith('554')
        small = LOOSE._replace(max_size=10)
        assert line(gate(PLAIN, direction, small)[0]).startswith('552')


def test_incoming_plain_mail_loses_its_trace() -> None:
    verdict, kept = gate(PLAIN, Direction.IN, LOOSE, reverse_path='x@example.net')
    assert verdict.null_sender
    assert b'Received' not in kept
    assert b'User-Agent' in kept


# -- cost


def calls(run: Callable[[], object]) -> int:
    """Python and C calls made, a measure of work that does not depend on the machine."""
    count = itertools.count()
    sys.setprofile(lambda *_: next(count))
    try:
        run()
    finally:
        sys.setprofile(None)
    return next(count)


def stream(payload: int) -> Iterator[bytes]:
    yield f.current_headers() + b'\r\n'
    text = f.body(f.armor(f.pkesk6() + f.packet(18, b'\2\7\2\7' + f.octets(32 + payload))))
    yield from cut(text, 65536)


@pytest.mark.parametrize(
    'message',
    [
        lambda n: f.encrypted(f.pkesk6() + f.seipd2(300 * n)),
        lambda n: f.around(f.armor(f.pkesk6() + f.seipd2(30 * n), 1)),
        lambda n: f.encrypted(f.pkesk6() * n + f.seipd2(300)),
        lambda n: f.around(f.BEGIN + b'\r\n' + b'A' * 60 * n),
        lambda n: b'X: y\r\n' * n,
        lambda n: b'X' * 40 * n,
        lambda n: f.current_headers() + b'\r\n' + b'--' * 30 * n,
        lambda n: f.current_headers() + b'\r\n' + b'\r\n--x' * 15 * n,
        lambda n: f.encrypted(f.pkesk3() + b'\xd2' + b'\xe9' + f.octets(512) + b'\xe0a' * 20 * n),
        lambda n: f.join(epilogue=b'\r\n' * 20 * n),
    ],
)
@pytest.mark.parametrize('size', [1, 100])
def test_work_grows_with_the_message_only(message: Callable[[int], bytes], size: int) -> None:
    small, large = message(20), message(80)
    ratio = len(large) / len(small)
    one = calls(lambda: gate(small, Direction.IN, size=size))
    four = calls(lambda: gate(large, Direction.IN, size=size))
    assert four <= one * ratio * 1.3 + 500


def test_memory_does_not_grow_with_the_message() -> None:
    chunks = list(stream(6_000_000))
    inspection = Inspection(Direction.OUT, Rules(), reverse_path=f.ALICE, recipients=1)
    tracemalloc.start()
    try:
        for chunk in chunks:
            inspection.feed(chunk)
        verdict = inspection.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert verdict.reply is None
    assert peak < 600_000


def test_memory_of_hostile_streams_is_bounded() -> None:
    heads = (b'', f.current_headers() + b'\r\n', f.around(f.BEGIN + b'\r\n')[:-60])
    for head, filler in itertools.product(heads, (b'A', b'\r\n', b'A: b\r\n', b'AAAA\r\n', b'=')):
        inspection = Inspection(Direction.IN, Rules(), reverse_path=f.ALICE, recipients=1)
        inspection.feed(head)
        chunk = filler * (4096 // len(filler))
        tracemalloc.start()
        try:
            for _ in range(500):
                inspection.feed(chunk)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 400_000
        assert inspection.finish().reply is not None
