"""Every `*.dialogue` beside this file is played against a running relay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dialogues.driver import Play, options
from tests.system.relay import Relay

SCRIPTS = sorted(Path(__file__).parent.glob('*/*.dialogue'))


@pytest.fixture(scope='module')
def relay_with(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[dict[str, object]], Relay]]:
    """One relay for each set of options, shared by the scripts that want it."""
    relays: dict[str, Relay] = {}

    def get(wanted: dict[str, object]) -> Relay:
        key = repr(sorted(wanted.items()))
        if key not in relays:
            relays[key] = Relay(tmp_path_factory.mktemp('relay'), wanted).start()
        return relays[key]

    yield get
    for relay in relays.values():
        relay.stop()


@pytest.mark.parametrize('script', SCRIPTS, ids=[f'{s.parent.name}/{s.stem}' for s in SCRIPTS])
def test_dialogue(script: Path, relay_with: Callable[[dict[str, object]], Relay]) -> None:
    Play(relay_with(options(script))).run(script)
