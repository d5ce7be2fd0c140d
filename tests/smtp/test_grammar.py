"""Command lines: the corpora, and what must hold for any octets."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail.smtp import grammar
from madmail.smtp.grammar import Command, MailFrom
from madmail.smtp.grammar import Path as Mailbox
from madmail.smtp.reply import Reply

CORPORA = Path(__file__).parent.parent / 'corpora' / 'smtp'

PARSERS: dict[str, Callable[[bytes], Any]] = {
    'MAIL': grammar.mail_from,
    'RCPT': grammar.rcpt_to,
    'UTF8RCPT': lambda argument: grammar.rcpt_to(argument, utf8=True),
    'EHLO': grammar.helo,
    'HELO': grammar.helo,
    'BDAT': grammar.bdat,
    'AUTH': grammar.auth,
    'NOOP': lambda argument: argument,
}


def corpus(name: str) -> Iterator[tuple[bytes, str]]:
    for line in (CORPORA / name).read_text().split('\n'):
        if line and not line.startswith('#'):
            command, meaning = line.split('\t=>\t')
            yield command.encode('latin-1').decode('unicode_escape').encode('latin-1'), meaning


def parse(line: bytes) -> Any:
    buffer = bytearray(line + b'\r\nNEXT')
    taken = grammar.take_line(buffer)
    assert taken == line
    assert buffer == b'NEXT'
    command = grammar.command(taken)
    return PARSERS[command.verb](command.argument) if isinstance(command, Command) else command


def shown(result: Any) -> str:
    if isinstance(result, MailFrom):
        words = [result.path.address if result.path else 'null']
        words += [f'size={result.size}'] if result.size >= 0 else []
        words += [name for name in ('eight_bit', 'utf8') if getattr(result, name)]
        return ' '.join(words)
    if isinstance(result, Mailbox):
        return result.address
    if isinstance(result, grammar.Chunk):
        return f'{result.size} last' if result.last else f'{result.size}'
    if isinstance(result, grammar.Auth):
        return f'{result.mechanism} {result.initial}'
    return result.decode()


@pytest.mark.parametrize(('line', 'meaning'), list(corpus('valid')))
def test_valid_commands(line: bytes, meaning: str) -> None:
    result = parse(line)
    assert not isinstance(result, Reply), result
    assert shown(result) == meaning


@pytest.mark.parametrize(('line', 'reply'), list(corpus('invalid')))
def test_invalid_commands(line: bytes, reply: str) -> None:
    result = parse(line)
    assert isinstance(result, Reply)
    assert result.line().decode().startswith(reply + ' ')


# -- lines


def feed(octets: bytes, step: int) -> tuple[list[bytes | Reply], bytes]:
    buffer, lines = bytearray(), []
    for start in range(0, len(octets), step):
        buffer += octets[start : start + step]
        while (line := grammar.take_line(buffer)) is not None:
            lines.append(line)
            if isinstance(line, Reply):
                return lines, b''
    return lines, bytes(buffer)


line_noise = st.lists(st.sampled_from([b'\r\n', b'\r', b'\n', b'NOOP', b' ', b'\0'])).map(b''.join)


@given(line_noise)
def test_lines_are_the_same_one_octet_at_a_time(octets: bytes) -> None:
    assert feed(octets, 1) == feed(octets, 3) == feed(octets, max(len(octets), 1))


@given(line_noise)
def test_lines_lose_nothing(octets: bytes) -> None:
    lines, rest = feed(octets, 5)
    if not any(isinstance(line, Reply) for line in lines):
        assert b''.join(line + b'\r\n' for line in lines) + rest == octets  # type: ignore[operator]


@pytest.mark.parametrize('octets', [b'NOOP\n', b'\n', b'NO\rOP\r\n', b'NOOP\r\r\n', b'NOOP\rQ'])
@pytest.mark.parametrize('step', [1, 2, 99])
def test_bare_line_ends_are_fatal(octets: bytes, step: int) -> None:
    assert feed(octets, step)[0] == [grammar.BARE_LINE_END]


@pytest.mark.parametrize('step', [1, 100, 9999])
def test_line_length_is_limited(step: int) -> None:
    longest = b'A' * (grammar.LINE_LIMIT - 2)
    assert feed(longest + b'\r\n', step) == ([longest], b'')
    assert feed(longest + b'A\r\n', step)[0] == [grammar.LINE_TOO_LONG]
    assert feed(b'A' * grammar.LINE_LIMIT, step)[0] == [grammar.LINE_TOO_LONG]


def test_whole_path_is_limited() -> None:
    longest = '.'.join(['d' * 62] * 4)
    assert grammar.mailbox(f'{"a" * 2}@{longest}') is not None
    assert grammar.mailbox(f'{"a" * 3}@{longest}') is None


# -- what must hold for any octets


@given(st.binary(max_size=300))
def test_no_octets_raise(octets: bytes) -> None:
    grammar.command(octets)
    for parser in PARSERS.values():
        parser(octets)
    grammar.plain(octets)
    grammar.decode64(octets)


local_parts = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=0, max_size=20)


@given(local_parts)
def test_any_local_part_can_be_quoted_and_has_one_form(local: str) -> None:
    quoted = '"' + local.replace('\\', '\\\\').replace('"', '\\"') + '"'
    every = '"' + ''.join('\\' + c for c in local) + '"'
    path = grammar.rcpt_to(f'TO:<{quoted}@x.example>'.encode())
    assert isinstance(path, Mailbox)
    assert grammar.rcpt_to(f'TO:<{every}@x.example>'.encode()) == path
    again = grammar.rcpt_to(f'TO:<{path.address}>'.encode())
    assert again == path, 'the normal form is stable'


@given(st.ip_addresses())
def test_every_address_literal_is_a_domain(ip: Any) -> None:
    text = f'[{ip}]' if ip.version == 4 else f'[IPv6:{ip.exploded}]'
    found = grammar.mailbox(f'a@{text}')
    assert found is not None
    assert grammar.mailbox(f'a@{found.domain}') == found
    assert grammar.helo(text.encode()) == text.encode()


# -- AUTH


@given(st.binary())
def test_base64_has_one_form(octets: bytes) -> None:
    assert grammar.decode64(b64encode(octets)) == octets
    assert grammar.decode64(b64encode(octets) + b'=') is None
    assert grammar.decode64(b' ' + b64encode(octets)) is None


@pytest.mark.parametrize(
    ('response', 'user', 'password'),
    [
        (b'\0a@b\0pw', 'a@b', b'pw'),
        (b'a@b\0a@b\0pw', 'a@b', b'pw'),
        (b'\0\xc3\xbc\0\xff', 'ü', b'\xff'),
    ],
)
def test_plain(response: bytes, user: str, password: bytes) -> None:
    assert grammar.plain(response) == (user, password)


@pytest.mark.parametrize(
    'response',
    [
        b'',
        b'\0',
        b'\0\0',
        b'a\0b',
        b'\0a\0',
        b'\0\0b',
        b'other\0a\0b',
        b'\0a\0b\0',
        b'\0\xff\0b',
        b'\0' + b'a' * 321 + b'\0b',
    ],
)
def test_malformed_plain(response: bytes) -> None:
    assert grammar.plain(response) is None
