"""Properties of the gate over generated input."""

import itertools
import re

import forms as f
from gate_corpus import CORPUS, Case, cases, cut, inspect
from hypothesis import given, settings
from hypothesis import strategies as st

from madmail.message import header
from madmail.message.inspection import Direction, Inspection, Rules, Verdict

TEXT = b' Dear Bob, see you at nine. '
VALID = [
    f.encrypted(f.pkesk3() + f.seipd1(200)),
    f.around(f.armor(f.skesk6() + f.seipd2(100), crc=False)),
    f.encrypted(f.pkesk6() + f.seipd2(201)),
    (CORPUS / 'valid/relay-sample.eml').read_bytes(),
    (CORPUS / 'valid/older-deltachat.eml').read_bytes(),
    f.join(),
]
INCOMING = [
    (CORPUS / 'valid' / f'{name}.eml').read_bytes()
    for name in ('thunderbird', 'base64-part', 'quoted-printable-part', 'armor-version-header')
]
VALUES = {
    b'from': rb' ?<?[aA]lice@example\.org>?',
    b'date': rb'[A-Za-z0-9 ,:+()-]{1,45}',
    b'message-id': rb'<[!-;=?-~]+>',
    b'mime-version': rb'1\.0',
    b'subject': rb'\[\.\.\.\]',
    b'chat-version': rb'[0-9.]+',
    b'references': rb'(<[!-;=?-~]+>\s*)+',
    b'in-reply-to': rb'(<[!-;=?-~]+>\s*)+',
    b'to': rb'"hidden-recipients": ;|[!-~]+@[!-~]+( [!-~]+@[!-~]+)*',
    b'content-type': rb'[^ ]+; ?protocol="?[^" ]+"?;\s*boundary="?[^"]+"?;?|'
    rb'multipart/mixed;\s*boundary="?[^"]+"?;?',
    b'autocrypt': rb'addr=[^;]+;(\s*prefer-encrypt=[a-z]+;)?\s*keydata=[A-Za-z0-9+/=\s]+',
    b'auto-submitted': rb'[a-z-]+',
    b'chat-disposition-notification-to': rb'<?alice@example\.org>?',
    b'secure-join': rb'[a-zA-Z0-9_-]+',
    b'secure-join-invitenumber': rb'[a-zA-Z0-9_-]+',
    b'chat-is-post-message': rb'1',
}
LINES = re.compile(
    rb"""(?:
      --[^\r\n]{1,72}(?:--)?
    | content-type:\s*(?:application/(?:pgp-encrypted|octet-stream)|text/plain)
      (?:;\s*(?:charset|name)="?[a-z0-9.-]+"?)*;?
    | content-transfer-encoding:\s*[78]bit
    | content-description:\s*(?:pgp/mime\ version\ identification|openpgp\ encrypted\ message)
    | content-disposition:\s*(?:inline|attachment)(?:;\s*filename="?[a-z.-]+"?)?;?
    | version:\ 1
    | secure-join:\ v[cg]-request
    | -----(?:begin|end)\ pgp\ message-----
    | [a-z0-9+/]{1,76}={0,2}
    | =[a-z0-9+/]{4}
    )?[ \t]*""",
    re.IGNORECASE | re.VERBOSE,
)


def gate(message: bytes, direction: Direction = Direction.OUT) -> tuple[Verdict, bytes]:
    own = f.ALICE if direction is Direction.OUT else ''
    inspection = Inspection(direction, Rules(), reverse_path=f.ALICE, recipients=1, own=own)
    return inspect(inspection, [message])


def only_allowed_places(kept: bytes) -> bool:
    """Whether every line is of the few known forms."""
    block, _, body = kept.partition(b'\r\n\r\n')
    fields = header.parse(block + b'\r\n\r\n')
    assert fields is not None
    for name, value, _ in fields:
        if not re.fullmatch(VALUES[name], header.unfold(value), re.IGNORECASE):
            return False
    return all(LINES.fullmatch(line) for line in body.split(b'\r\n'))


def test_valid_messages_have_text_in_allowed_places_only() -> None:
    for message in VALID:
        verdict, kept = gate(message)
        assert verdict.reply is None
        assert only_allowed_places(kept)
    assert not only_allowed_places(VALID[0] + b'Dear Bob\r\n')


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(VALID),
    st.integers(0, 10**6),
    st.sampled_from(['flip', 'insert', 'delete', 'repeat']),
    st.integers(0, 255),
)
def test_mutations_open_no_place_for_text(message: bytes, at: int, how: str, octet: int) -> None:
    at %= len(message)
    if how == 'flip':
        message = message[:at] + bytes([octet]) + message[at + 1 :]
    elif how == 'insert':
        message = message[:at] + bytes([octet]) + message[at:]
    elif how == 'delete':
        message = message[:at] + message[at + 1 :]
    else:
        message = message[:at] + message[at : at + octet] + message[at:]
    verdict, kept = gate(message)
    if verdict.reply is None:
        assert only_allowed_places(kept)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(VALID + INCOMING),
    st.integers(0, 10**6),
    st.sampled_from([TEXT, TEXT + b'\r\n', b'\r\n' + TEXT + b'\r\n', b'X-Text:' + TEXT + b'\r\n']),
    st.sampled_from(list(Direction)),
)
def test_inserted_text_is_refused_or_dropped(
    message: bytes, at: int, text: bytes, direction: Direction
) -> None:
    at %= len(message) + 1
    verdict, kept = gate(message[:at] + text + message[at:], direction)
    if verdict.reply is not None:
        return
    block, _, body = kept.partition(b'\r\n\r\n')
    assert TEXT.strip() not in body
    if direction is Direction.OUT:
        # Other mail programs' headers are their own; ours have no room for text.
        assert TEXT.strip() not in block


CASES = cases()


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CASES), st.lists(st.integers(0, 10**6), max_size=6))
def test_cuts_change_nothing(case: Case, positions: list[int]) -> None:
    data = case.octets
    edges = sorted({0, len(data), *(at % (len(data) + 1) for at in positions)})
    chunks = [data[a:b] for a, b in itertools.pairwise(edges)]
    one = inspect(case.inspection(), [data])
    other = inspect(case.inspection(), chunks)
    assert one[0] == other[0]
    if one[0].reply is None:
        assert one[1] == other[1]


FRAGMENTS = st.sampled_from(
    [
        f.current_headers() + b'\r\n',
        b'--' + f.BOUNDARY.encode(),
        b'--',
        b'\r\n',
        b'\r',
        b'\n',
        b'\0',
        b' ',
        f.PART_1,
        f.PART_2,
        f.PART_2.replace(b'7bit', b'base64'),
        f.PART_2.replace(b'7bit', b'quoted-printable'),
        b'\r\nVersion: 1\r\n',
        f.BEGIN + b'\r\n',
        f.END,
        f.lines(f.PACKETS_1[:96]),
        f.lines(f.PACKETS_2[:300], 76),
        b'=AAAA\r\n',
        b'A' * 500,
        b'=\r\n',
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(FRAGMENTS, max_size=12).map(b''.join),
        st.lists(FRAGMENTS, max_size=12).map(
            lambda parts: f.current_headers() + b'\r\n' + b''.join(parts)
        ),
    ),
    st.sampled_from(list(Direction)),
    st.booleans(),
    st.sampled_from([1, 2, 3, 50, 1000]),
)
def test_any_octets_get_a_verdict_independent_of_cuts(
    data: bytes, direction: Direction, required: bool, size: int
) -> None:
    rules = Rules(require_encryption=required)

    def run(chunks: list[bytes]) -> tuple[Verdict, bytes]:
        inspection = Inspection(direction, rules, reverse_path=f.ALICE, recipients=1, own=f.ALICE)
        return inspect(inspection, chunks)

    whole, pieces = run([data]), run(cut(data, size))
    assert whole[0]._replace(rest=b'') == pieces[0]._replace(rest=b'')
    if whole[0].reply is None:
        assert whole[1] == pieces[1]
