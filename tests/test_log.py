"""The log is off by default, structured when on, and never personal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madmail import log


@pytest.fixture(autouse=True)
def _off_afterwards() -> Iterator[None]:
    yield
    log.configure('off')


def test_off_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    log.get('test').error('nothing to see')
    assert not log.enabled()
    assert capfd.readouterr() == ('', '')


def test_lines_are_structured_and_single(tmp_path: Path) -> None:
    log.configure(str(tmp_path / 'log'), 'info')
    logger = log.get('smtp')
    logger.info('refused', code=554, text='two words\nand a line "more"')
    logger.debug('not written')
    (line,) = (tmp_path / 'log').read_text().splitlines()
    time, level, room, event, *facts = line.split(' ', 5)
    assert time.endswith('Z')
    assert (level, room, event) == ('info', 'smtp', 'refused')
    assert facts == ['code=554', 'text="two words\\x0aand a line \\"more\\""']


def test_addresses_are_redacted_wherever_they_hide(tmp_path: Path) -> None:
    log.configure(str(tmp_path / 'log'), 'debug')
    logger = log.get('test')
    logger.error('from alice@example.org', peer='203.0.113.9', v6='2001:db8::7', l='[::1]:25')
    logger.error('literal', to='bob@[192.0.2.1]', mapped='::ffff:192.0.2.1')
    text = (tmp_path / 'log').read_text()
    for secret in ('alice', 'bob', '203.0.113.9', '2001:db8', '::1', '192.0.2.1'):
        assert secret not in text
    assert text.count('[address]') == 2


@given(st.emails(), st.ip_addresses(), st.text(alphabet=' =,;()', max_size=3))
def test_redaction_holds_for_any_address(mail: str, ip: object, around: str) -> None:
    text = log.redacted(f'x {around} {mail} {around}{ip}{around} y')
    assert '@' not in text
    assert str(ip) not in text


def test_times_and_fingerprints_stay_readable() -> None:
    text = 'took 12:30:59 of AB:CD:EF:01:23:45:67:89:AB:CD'
    assert log.redacted(text) == text


def test_exceptions_are_counted_even_when_off() -> None:
    logger = log.get('room-a')
    before = log.exceptions['room-a']
    try:
        raise ValueError('alice')
    except ValueError:
        logger.exception('broke')
    assert log.exceptions['room-a'] == before + 1


def test_exception_texts_are_not_written(tmp_path: Path) -> None:
    log.configure(str(tmp_path / 'log'))
    try:
        raise KeyError('subject of a mail')
    except KeyError:
        log.get('room-b').exception('broke')
    text = (tmp_path / 'log').read_text()
    assert 'KeyError' in text
    assert 'test_log.py:' in text
    assert 'subject' not in text


def test_reopen_follows_a_rotated_file(tmp_path: Path) -> None:
    path = tmp_path / 'log'
    log.configure(str(path))
    log.get('test').info('one')
    path.rename(tmp_path / 'log.1')
    log.reopen()
    log.get('test').info('two')
    assert 'two' in path.read_text()
    assert 'two' not in (tmp_path / 'log.1').read_text()


def test_a_log_that_cannot_be_opened_keeps_the_old_one(tmp_path: Path) -> None:
    log.configure(str(tmp_path / 'log'))
    with pytest.raises(OSError):
        log.configure(str(tmp_path / 'missing' / 'log'))
    log.get('test').info('still here')
    assert 'still' in (tmp_path / 'log').read_text()
