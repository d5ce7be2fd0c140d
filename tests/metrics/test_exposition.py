"""The figures as text: every family, sums over processes, and the page about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from madmail.metrics.exposition import FAMILIES, PREFIX, reference, text
from madmail.metrics.histogram import BOUNDS, Histogram, cumulative
from madmail.metrics.ledger import Ledger, add


def lag(*seconds: float) -> dict[str, Any]:
    histogram = Histogram()
    for each in seconds:
        histogram.observe(each)
    return histogram.as_dict()


def child(kind: str, index: int, **statistics: Any) -> dict[str, Any]:
    common = {'cpu_seconds': 1.5, 'exceptions': {'imap': 0}, 'lag': lag(0.0), 'resident_bytes': 10}
    return {'kind': kind, 'index': index, 'statistics': {**common, **statistics}}


def told(*children: dict[str, Any], past: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        'version': '1',
        'boot_time': 5,
        'registered_users': 3,
        'past': past or {},
        'starts': {'gate': 2},
        'children': list(children),
    }


def samples(page: str) -> dict[str, float]:
    found = {}
    for line in page.splitlines():
        if not line.startswith('#'):
            name, _, value = line.rpartition(' ')
            assert name not in found
            found[name] = float(value)
    return found


def test_sums_of_the_living_and_the_dead() -> None:
    gates = [child('gate', 0, logins=3, pipes=2, imap=1), child('gate', 1, logins=4, pipes=1)]
    past = {'gate': {'logins': 10, 'cpu_seconds': 0.5, 'exceptions': {'gate': 1}}}
    found = samples(text(told(*gates, past=past), {}))
    assert found['madmail_logins_total{result="accepted"}'] == 17
    assert found['madmail_process_cpu_seconds_total{kind="gate"}'] == 3.5
    assert found['madmail_exceptions_total{room="gate"}'] == 1
    assert found['madmail_exceptions_total{room="imap"}'] == 0, 'known before the first one'
    assert found['madmail_sessions{service="imap"}'] == 1
    assert found['madmail_sessions{service="smtp"}'] == 2
    assert found['madmail_processes{kind="gate"}'] == 2
    assert found['madmail_process_resident_bytes{kind="gate"}'] == 20


def test_notifications_are_told_by_result_and_a_pause_is_seen() -> None:
    counts = {'sent': 3, 'gone': 1, 'failed': 2}
    children = [
        child('courier', 0, push=counts, push_paused=True, traffic={'notified': 3}),
        child('shard', 0, push_waiting=4),
        child('shard', 1, push_waiting=5),
    ]
    past = {'courier': {'push': {'sent': 10}}}
    facts = {'traffic': {'sent': 1, 'received': 2, 'notified': 13}}
    found = samples(text(told(*children, past=past), facts))
    assert found['madmail_push_requests_total{result="sent"}'] == 13
    assert found['madmail_push_requests_total{result="gone"}'] == 1
    assert found['madmail_push_waiting'] == 9
    assert found['madmail_push_paused'] == 1
    assert found['madmail_messages_total{origin="sent"}'] == 1
    assert 'madmail_messages_total{origin="notified"}' not in found


def test_counts_never_go_back_when_a_process_ends() -> None:
    ledger = Ledger()
    before = told(child('gate', 0, logins=5, imap=2))
    ledger.ended('gate', before['children'][0]['statistics'])
    after = told(child('gate', 0, logins=1), past=ledger.past)
    was, now = samples(text(before, {})), samples(text(after, {}))
    for name, value in was.items():
        if name.split('{')[0].endswith(('_total', '_count', '_sum', '_bucket')):
            assert now[name] >= value, name
    assert now['madmail_sessions{service="imap"}'] == 0


def test_histograms_are_cumulative() -> None:
    page = text(told(child('shard', 0, durable=lag(0.0001, 0.002, 0.002, 99.0))), {})
    found = samples(page)
    name = 'madmail_message_durable_seconds'
    assert found[f'{name}_bucket{{le="0.0005"}}'] == 1
    assert found[f'{name}_bucket{{le="0.0025"}}'] == 3
    assert found[f'{name}_bucket{{le="30.0"}}'] == 3
    assert found[f'{name}_bucket{{le="+Inf"}}'] == found[f'{name}_count'] == 4
    assert cumulative([1, 2, 3]) == [1, 3, 6]
    assert sorted(BOUNDS) == list(BOUNDS)


def test_the_form_of_the_text() -> None:
    page = text(told(child('gate', 0)), {'disk_available_bytes': 5})
    assert page.endswith('# EOF\n')
    assert page.count('# TYPE ') == page.count('# HELP ') == len(set(page.split('# TYPE ')[1:]))
    assert '# TYPE madmail_logins counter' in page
    assert '# UNIT madmail_disk_available_bytes bytes' in page
    assert 'madmail_build_info{version="1"} 1' in page


def test_labels_cannot_break_out() -> None:
    page = text({**told(), 'version': 'a"b\\c\nd'}, {})
    assert r'version="a\"b\\c\nd"' in page


def test_adding() -> None:
    assert add({'a': 1, 'b': [1, 2]}, {'b': [3, 4], 'c': 5}) == {'a': 1, 'b': [4, 6], 'c': 5}


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[2] / 'docs' / 'reference' / 'metrics.md'
    assert page.read_text() == reference()
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert PREFIX == 'madmail_'
