"""The longest ID that RFC 2971 allows is read before login, and not kept."""

import pytest

from madmail.gate.dialogue import Then
from madmail.gate.imap_prelogin import ID_LIMIT, LINE_LIMIT, ImapDialogue
from madmail.settings import Settings

LONGEST = b'a1 ID (' + b' '.join(b'"%030d" "%01024d"' % (n, n) for n in range(30)) + b')\r\n'


def converse(octets: bytes, size: int) -> tuple[bytes, bool, int]:
    """What is said, whether the connection closes, and the most that was kept."""
    dialogue = ImapDialogue(Settings.defaults())
    buffer = bytearray()
    said, most = b'', 0
    for start in range(0, len(octets), size):
        buffer += octets[start : start + size]
        while (step := dialogue.step(buffer, True)) is not None:
            said += step.say
            if step.then is Then.CLOSE:
                return said, True, most
        most = max(most, len(buffer))
    return said, False, most


@pytest.mark.parametrize('size', [1, 7, 1000, 8192, 10_000, 65_536])
def test_the_longest_id_is_answered_and_the_dialogue_goes_on(size: int) -> None:
    said, closed, most = converse(LONGEST + b'a2 NOOP\r\n', size)
    assert said == b'* ID NIL\r\na1 OK ID completed\r\na2 OK NOOP completed\r\n'
    assert not closed
    assert most <= LINE_LIMIT + size


@pytest.mark.parametrize('size', [1, 1000, 8192])
def test_an_endless_id_ends_the_connection(size: int) -> None:
    said, closed, _ = converse(b'a1 ID (' + b'x' * (ID_LIMIT + 2 * LINE_LIMIT), size)
    assert closed
    assert b'BYE' in said


def test_any_other_command_keeps_its_limit() -> None:
    _, closed, _ = converse(b'a1 NOOP ' + b'x' * LINE_LIMIT, 1000)
    assert closed
