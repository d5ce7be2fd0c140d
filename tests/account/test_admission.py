"""New accounts: rates of all shards together, room on the host, a number in all."""

from __future__ import annotations

from mmap import mmap
from pathlib import Path

import pytest

from madmail.account import admission, flood
from madmail.account.admission import Admission
from madmail.account.flood import SIZE, SLOTS, Flood, Limits, hash_key, origin, prepare
from madmail.account.shortage import HOLDS, Shortage, free_disk, free_memory
from madmail.settings import Settings

KEY = bytes(range(16))
NONE = Limits(0, 0, 0)


class Clock:
    def __init__(self, now: float = 6000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def shared() -> mmap:
    return mmap(-1, SIZE)


class Quiet:
    """A host with room; or short of something."""

    short = ''

    def what(self) -> str:
        return self.short


def keeper(shared: mmap, slot: int = 0, accounts: int = 0, **settings: object) -> Admission:
    return Admission(Settings.defaults(**settings), Quiet(), Flood(shared, slot), lambda: accounts)


# -- rates


def test_the_limit_of_an_address_holds_across_shards(shared: mmap) -> None:
    one, two = Flood(shared, 0), Flood(shared, SLOTS - 1)
    limits = Limits(3, 0, 0)
    here = origin('192.0.2.1', KEY)
    assert [view.take(here, limits) for view in (one, two, one, two, one)] == [
        *(True, True, True),
        *(False, False),
    ]
    assert two.take(origin('192.0.2.2', KEY), limits)


def test_a_network_has_a_wider_limit_of_its_own(shared: mmap) -> None:
    view = Flood(shared)
    limits = Limits(2, 5, 0)
    taken = [view.take(origin(f'192.0.2.{n}', KEY), limits) for n in range(1, 10)]
    assert taken == [True] * 5 + [False] * 4
    assert view.take(origin('192.0.3.1', KEY), limits)
    six = [view.take(origin(f'2001:db8:1:{n:x}::1', KEY), limits) for n in range(1, 8)]
    assert six == [True] * 5 + [False] * 2
    assert view.take(origin('2001:db8:2::1', KEY), limits)


def test_all_together_have_a_limit(shared: mmap) -> None:
    views = [Flood(shared, slot) for slot in range(4)]
    limits = Limits(2, 2, 10)
    taken = [views[n % 4].take(origin(f'10.{n}.0.1', KEY), limits) for n in range(15)]
    assert taken == [True] * 10 + [False] * 5


def test_a_refusal_counts_nothing_and_time_gives_room_again(shared: mmap) -> None:
    clock = Clock()
    view = Flood(shared, 0, clock)
    limits = Limits(2, 0, 0)
    here = origin('192.0.2.1', KEY)
    assert [view.take(here, limits) for _ in range(9)] == [True, True] + [False] * 7
    clock.now += 59.9
    assert not view.take(here, limits)
    clock.now += 60.2  # past the last minute's
    assert view.take(here, limits)


def test_the_operator_has_no_origin_and_no_limit_of_an_address(shared: mmap) -> None:
    view = Flood(shared)
    assert all(view.take((), Limits(1, 1, 0)) for _ in range(5))


def test_an_origin_is_of_the_network_and_keyed() -> None:
    assert origin('192.0.2.1', KEY)[1] == origin('192.0.2.250', KEY)[1]
    assert origin('192.0.2.1', KEY)[0] != origin('192.0.2.250', KEY)[0]
    assert origin('::ffff:192.0.2.1', KEY) == origin('192.0.2.1', KEY)
    assert origin('2001:db8:1:2::1', KEY)[0] == origin('2001:db8:1:2:9::1', KEY)[0]
    assert origin('2001:db8:1:2::1', KEY)[1] == origin('2001:db8:1:3::1', KEY)[1]
    assert origin('2001:db8:1::1', KEY)[1] != origin('2001:db8:2::1', KEY)[1]
    assert origin('192.0.2.1', KEY) != origin('192.0.2.1', bytes(16))


def test_the_key_is_made_once(shared: mmap) -> None:
    prepare(shared)
    key = hash_key(shared)
    prepare(shared)
    assert hash_key(shared) == key != bytes(flood.KEY_SIZE)


def test_a_map_too_small_and_a_slot_too_high_are_refused() -> None:
    with pytest.raises(ValueError, match='octets'):
        Flood(mmap(-1, 4096))
    with pytest.raises(ValueError, match='at most'):
        Flood(mmap(-1, SIZE), SLOTS)


# -- the number of accounts


def test_the_number_of_accounts_counts_all_shards_and_those_under_way(shared: mmap) -> None:
    first = keeper(shared, 0, 5, limits__accounts=10)
    second = keeper(shared, 1, 3, limits__accounts=10)
    assert first.enter(()) == second.enter(()) == ''
    assert first.enter(()) == second.enter(()) == 'accounts'
    second.leave()
    assert first.enter(()) == ''
    assert first.refused == {'accounts': 1}


# -- shortage


def test_a_short_host_refuses_before_anything_is_counted(shared: mmap) -> None:
    host = Quiet()
    door = Admission(
        Settings.defaults(limits__registrations_per_minute=1), host, Flood(shared), lambda: 0
    )
    host.short = 'disk'
    assert door.enter(()) == 'disk'
    host.short = ''
    assert door.enter(()) == ''
    assert door.enter(()) == 'flood'


def test_the_reserves_are_looked_at_once_in_a_while_and_when_they_change(tmp_path: Path) -> None:
    clock = Clock()
    settings = Settings.defaults(
        limits__disk_reserve=1, limits__memory_reserve=1, limits__load_per_core=0
    )
    host = Shortage(tmp_path, settings, now=clock)
    assert host.what() == ''
    settings.change('limits.disk_reserve', '900G')
    assert host.what() == 'disk'
    settings.change('limits.disk_reserve', '0')
    assert host.what() == ''
    gone = tmp_path / 'proc'
    gone.mkdir()
    host = Shortage(tmp_path, settings, now=clock, proc=gone)
    settings.change('limits.load_per_core', '1')
    assert host.what() == ''
    (gone / 'loadavg').write_text('9999.0 1 1 1/1 1\n')
    assert host.what() == ''
    clock.now += HOLDS
    assert host.what() == 'load'


def test_memory_is_the_host_s_or_the_control_group_s(tmp_path: Path) -> None:
    proc, group = tmp_path / 'proc', tmp_path / 'cgroup'
    (proc / 'self').mkdir(parents=True)
    (group / 'mail.slice').mkdir(parents=True)
    assert free_memory(proc, group) is None
    (proc / 'meminfo').write_text('MemTotal: 100 kB\nMemAvailable: 1000 kB\n')
    (proc / 'self' / 'cgroup').write_text('0::/mail.slice\n')
    assert free_memory(proc, group) == 1_024_000
    (group / 'mail.slice' / 'memory.max').write_text('max\n')
    (group / 'mail.slice' / 'memory.current').write_text('90000\n')
    (group / 'mail.slice' / 'memory.stat').write_text('anon 1\ninactive_file 5000\n')
    assert free_memory(proc, group) == 1_024_000
    (group / 'mail.slice' / 'memory.max').write_text('100000\n')
    assert free_memory(proc, group) == 15_000
    settings = Settings.defaults(
        limits__disk_reserve=0, limits__memory_reserve=15_001, limits__load_per_core=0
    )
    assert Shortage(tmp_path, settings, proc=proc, cgroup=group).what() == 'memory'


def test_a_real_disk_has_a_size(tmp_path: Path) -> None:
    assert 0 < free_disk(tmp_path) < 2**60
    assert free_memory() is None or free_memory() > 0


# -- accounts at first login


@pytest.mark.parametrize(
    ('jit', 'registration', 'expected'),
    [
        ('auto', 'open', True),
        ('auto', 'token', False),
        ('auto', 'closed', False),
        ('true', 'open', True),
        ('true', 'token', True),
        ('true', 'closed', True),
        ('false', 'open', False),
        ('false', 'closed', False),
    ],
)
def test_first_logins_make_accounts_by_their_own_switch(
    jit: str, registration: str, expected: bool
) -> None:
    settings = Settings.defaults(accounts__registration=registration)
    settings.change('accounts.jit', jit)
    assert admission.by_login(settings) is expected
