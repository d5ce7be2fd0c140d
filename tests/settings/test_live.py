"""Stored rows laid over settings: all together, and none that keeps others from counting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from madmail.settings import Settings, overlay
from madmail.settings.declarations import SETTINGS

FILE = {'listen.imap': '0.0.0.0:143', 'listen.submission': '0.0.0.0:587'}


def ports(settings: Settings) -> list[int]:
    return [settings[f'listen.{name}'][0].port for name in ('imap', 'submission')]


def test_rows_that_fit_only_together_count_together() -> None:
    settings = Settings.defaults(FILE)
    swapped = {'listen.imap': '0.0.0.0:587', 'listen.submission': '0.0.0.0:143'}
    assert overlay(settings, swapped, generation=True) == {}
    assert ports(settings) == [587, 143]
    rows = {'accounts.username_max_length': '2', 'accounts.username_min_length': '1'}
    assert overlay(settings, rows) == {}
    assert ports(settings) == [587, 143]  # of the generation, which stays
    assert overlay(settings, rows, generation=True) == {}
    assert ports(settings) == [143, 587]
    assert settings.source('listen.imap') == 'file'


def test_a_row_that_does_not_fit_is_left_out_with_a_reason() -> None:
    settings = Settings.defaults(FILE)
    rows = {
        'listen.imap': '0.0.0.0:587',
        'listen.smtp': '0.0.0.0:2525',
        'domain': 'other.example',
        'limits.quota': 'top secret',
        'limits.of_another_version': '1',
        'tls.mode': 'file',  # without a file
        'accounts.username_min_length': '5',
    }
    unusable = overlay(settings, rows, generation=True)
    assert unusable.keys() == rows.keys() - {'listen.smtp', 'accounts.username_min_length'}
    assert 'is also in' in unusable['listen.imap']
    assert 'top secret' not in str(unusable)
    assert ports(settings) == [143, 587]
    assert settings['listen.smtp'][0].port == 2525
    assert settings['tls.mode'] == 'self_signed'
    assert settings['accounts.username_min_length'] == 5
    # rows that fit behind another one
    rows |= {'tls.cert_file': '/c', 'tls.key_file': '/k', 'listen.submission': '0.0.0.0:1587'}
    unusable = overlay(settings, rows, generation=True)
    assert not unusable.keys() & {'tls.mode', 'listen.imap'}
    assert settings['tls.mode'] == 'file'


def test_what_the_file_says_is_told_under_a_row() -> None:
    settings = Settings.defaults(FILE)
    assert settings.configured('listen.http') == ()  # left out of the file
    settings.store('listen.http', '0.0.0.0:80')
    assert settings.configured('listen.http') == ()
    settings.store('listen.http', None)
    assert settings['listen.http'] == ()


@given(st.dictionaries(st.sampled_from(sorted(SETTINGS)), st.text(max_size=12), max_size=20))
def test_any_rows_leave_settings_that_fit(rows: dict[str, str]) -> None:
    settings = Settings.defaults(FILE)
    unusable = overlay(settings, rows, generation=True)
    assert unusable.keys() | settings.stored().keys() == rows.keys()
    assert not unusable.keys() & settings.stored().keys()
    again = Settings(settings.given)
    assert again.lay(settings.stored()) == {}  # checked once more
    assert overlay(settings, {}, generation=True) == {}
    assert all(settings[name] == settings.configured(name) for name in SETTINGS)
