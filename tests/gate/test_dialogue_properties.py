"""Whatever strangers send: no exception, no unbounded buffer, and chunks mean nothing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from madmail.gate.dialogue import Dialogue, Farewell, Step, Then, Verdict
from madmail.gate.imap_prelogin import ImapDialogue
from madmail.gate.smtp_prelogin import SmtpDialogue
from tests.gate.rig import settings

SETTINGS = settings()

IMAP_WORDS = [b'a', b' ', b'LOGIN', b'"', b'\\', b'{3}', b'{3+}', b'{99999+}', b'\r\n', b'\n',
              b'AUTHENTICATE', b'PLAIN', b'AGEAYg==', b'*', b'STARTTLS', b'ID', b'NIL', b'x@y',
              b'[', b']', b'(', b'\xff', b'\0', b'CAPABILITY', b'UID', b'LOGOUT']  # fmt: skip
SMTP_WORDS = [b'EHLO', b' ', b'x', b'\r\n', b'\n', b'\r', b'AUTH', b'PLAIN', b'LOGIN', b'AGEAYg==',
              b'*', b'MAIL FROM:<>', b'STARTTLS', b'QUIT', b'=', b'\xff', b'\0', b'BDAT 3',
              b'DATA', b'NOOP', b'GET / HTTP/1.1']  # fmt: skip


def transcript(dialogue: Dialogue, data: bytes, cuts: list[int], secure: bool) -> list[Step]:
    """All steps for `data` sent in chunks; refusing every login."""
    steps: list[Step] = []
    buffer = bytearray()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        buffer += data[start:end]
        while (step := dialogue.step(buffer, secure)) is not None:
            steps.append(step)
            if step.then is Then.LOGIN:
                steps.append(dialogue.refused(Verdict.DENIED))
            if steps[-1].then in (Then.CLOSE, Then.START_TLS):
                return steps
    return steps


@effort(max_examples=300, deadline=None)
@given(
    words=st.lists(st.sampled_from(IMAP_WORDS) | st.binary(max_size=8), max_size=40),
    cuts=st.lists(st.integers(0, 500), max_size=8),
    secure=st.booleans(),
)
def test_imap_steps_do_not_depend_on_chunks(
    words: list[bytes], cuts: list[int], secure: bool
) -> None:
    data = b''.join(words)
    whole = transcript(ImapDialogue(SETTINGS), data, [], secure)
    assert transcript(ImapDialogue(SETTINGS), data, cuts, secure) == whole
    assert all(step.say == b'' or step.say.endswith(b'\r\n') for step in whole)
    assert secure or not any(step.login for step in whole)


@effort(max_examples=300, deadline=None)
@given(
    words=st.lists(st.sampled_from(SMTP_WORDS) | st.binary(max_size=8), max_size=40),
    cuts=st.lists(st.integers(0, 500), max_size=8),
    secure=st.booleans(),
    inbound=st.booleans(),
)
def test_smtp_steps_are_well_formed(
    words: list[bytes], cuts: list[int], secure: bool, inbound: bool
) -> None:
    # Chunks may matter here in one place: what stands behind STARTTLS in the same write.
    data = b''.join(words)
    steps = transcript(SmtpDialogue(SETTINGS, inbound), data, cuts, secure)
    if b'STARTTLS' not in data.upper():
        assert steps == transcript(SmtpDialogue(SETTINGS, inbound), data, [], secure)
    for step in steps:
        for line in step.say.splitlines():
            assert line[:3].isdigit()
        assert step.login is None or (step.login.protocol == 'inbound') is inbound
    assert inbound or secure or not any(step.login for step in steps)


def test_every_farewell_is_one_line_that_names_nothing() -> None:
    for dialogue in (ImapDialogue(SETTINGS), SmtpDialogue(SETTINGS, True)):
        for reason in Farewell:
            line = dialogue.farewell(reason)
            assert line.startswith((b'* BYE ', b'421 '))
            assert line.count(b'\r\n') == 1


def test_only_a_real_denial_says_authentication() -> None:
    # Delta Chat shows a wrong-password notice for that word, in whatever case.
    for dialogue in (ImapDialogue(SETTINGS), SmtpDialogue(SETTINGS, False)):
        for verdict in Verdict:
            said = b'authentication' in dialogue.refused(verdict).say.lower()
            assert said is (verdict is Verdict.DENIED)
