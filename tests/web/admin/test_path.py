"""Where the admin API answers when its path is changed."""

from __future__ import annotations

from madmail.settings import Settings
from madmail.web.admin.path import LINGER, ApiPath


def test_a_former_path_answers_for_a_while() -> None:
    settings = Settings.defaults()
    now = [1000.0]
    path = ApiPath(settings, lambda: now[0])
    assert path.serves('/api/admin')
    assert not path.serves('/desk')
    settings.replace('admin.path', '/desk')
    now[0] += 500
    assert path.serves('/desk')
    assert path.serves('/api/admin')
    now[0] += LINGER - 1
    assert path.serves('/api/admin')
    now[0] += 1
    assert not path.serves('/api/admin')
    assert path.serves('/desk')


def test_only_the_last_path_lingers() -> None:
    settings = Settings.defaults()
    path = ApiPath(settings, lambda: 5.0)
    for one in ('/one', '/two'):
        settings.replace('admin.path', one)
        assert path.serves(one)
    assert path.serves('/one')
    assert not path.serves('/api/admin')
    assert not path.serves('/')
    assert not path.serves('')
