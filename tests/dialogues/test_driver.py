"""The driver itself: a wrong answer fails a script, with its place and what was said."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import cast

import pytest

from tests.dialogues.driver import Failed, Play, options
from tests.system.relay import Relay


class Scripted:
    """Stands for a relay: a greeting, one prepared answer to each line, then the end."""

    domain = 'chat.example'

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers

    def connect(self, name: str, timeout: float) -> socket.socket:
        ours, theirs = socket.socketpair()

        def serve() -> None:
            with contextlib.suppress(OSError), theirs, theirs.makefile('rb') as lines:
                for number, answer in enumerate(self.answers, 1):
                    theirs.sendall(answer)
                    if number < len(self.answers):
                        lines.readline()

        threading.Thread(target=serve, daemon=True).start()
        return ours

    def credentials(self, name: str) -> tuple[str, str]:
        return f'{name}@chat.example', 'pass-word'


def play(tmp_path: Path, script: str, *answers: bytes) -> Play:
    path = tmp_path / 'x.dialogue'
    path.write_text(script)
    play = Play(cast(Relay, Scripted(*answers)))
    play.run(path)
    return play


def test_lines_literals_and_captures(tmp_path: Path) -> None:
    script = (
        '# a comment\n'
        'c = imaps\n'
        'c <~ \\* OK\n'
        'c -> 1 FETCH ${alice}\n'
        'c <... \\* 1 FETCH \\(BODY\\[\\] \\{(?P<size>\\d+)\\}\\r\\nab\\r\\n\\)$\n'
        'c <~ 1 OK ${size}$\n'
        'c <& .*BODY\n'
        'c <! .*FLAGS\n'
    )
    answer = b'* 2 EXISTS\r\n* 1 FETCH (BODY[] {4}\r\nab\r\n)\r\n1 OK 4\r\n'
    done = play(tmp_path, script, b'* OK\r\n', answer)
    assert done.variables['size'] == '4'


@pytest.mark.parametrize(
    ('step', 'answer', 'complaint'),
    [
        ('c <~ 250', b'550 no\r\n', r"expected /250/, got '550 no'"),
        ('c <- 250 ok', b'250 okay\r\n', "expected '250 ok'"),
        ('c <... 250[ ]', b'250-a\r\n', 'connection closed'),
        ('c <& .*FLAGS', b'* 1 FETCH\r\n', 'no line matches'),
        ('c quiet 0.2', b'surprise\r\n', 'expected silence'),
        ('c quiet 0.2', b'', 'connection closed'),
        ('c eof', b'surprise\r\n', 'expected the end'),
        ('c <~ 250', b'250 ok\n', 'does not end in CRLF'),
        ('c <? 250', b'250 ok\r\n', 'unknown directive'),
        ('d <~ 250', b'250 ok\r\n', "no connection 'd'"),
        ('c -> ${nobody}', b'250 ok\r\n', "no variable 'nobody'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, step: str, answer: bytes, complaint: str
) -> None:
    with pytest.raises(Failed) as caught:
        play(tmp_path, f'c = submissions\n{step}\n', answer)
    assert 'x.dialogue:2: ' in str(caught.value)
    assert complaint in str(caught.value)


def test_unwanted_lines_fail(tmp_path: Path) -> None:
    script = 'c = submissions\nc <... 250[ ]\nc <! 250-AUTH\n'
    with pytest.raises(Failed, match='unwanted'):
        play(tmp_path, script, b'250-AUTH\r\n250 ok\r\n')


def test_options_of_a_script(tmp_path: Path) -> None:
    path = tmp_path / 'x.dialogue'
    path.write_text('# relay a=b\nrelay limits.send_burst=2 policy.x=false\nc = smtp\n')
    assert options(path) == {'limits.send_burst': 2, 'policy.x': False}
