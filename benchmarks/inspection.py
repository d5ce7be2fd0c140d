"""CPU time of the encryption gate, as JSON on standard output.

`python benchmarks/inspection.py [--repeat N]`: microseconds of CPU a message,
the best of N runs, for messages of 3 KB, 140 KB and 30 MB as current clients
send them, fed in chunks of 64 KiB; and the longest single `feed`.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'message')]

import forms  # noqa: E402

from madmail.message.inspection import Direction, Inspection, Rules  # noqa: E402

CHUNK = 65536  # octets
SIZES = {'3 KB': 1850, '140 KB': 103_000, '30 MB': 22_600_000}  # octets of SEIPD payload


def run(chunks: list[bytes]) -> tuple[float, float]:
    """CPU seconds of the whole message and of its longest chunk."""
    longest = 0.0
    begin = time.process_time()
    inspection = Inspection(
        Direction.OUT, Rules(max_size=0), reverse_path=forms.ALICE, recipients=1, own=forms.ALICE
    )
    for chunk in chunks:
        before = time.process_time()
        inspection.feed(chunk)
        longest = max(longest, time.process_time() - before)
    verdict = inspection.finish()
    spent = time.process_time() - begin
    assert verdict.reply is None, verdict
    return spent, longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--repeat', type=int, default=200)
    arguments = parser.parse_args()
    results = {}
    for name, payload in SIZES.items():
        keys = forms.pkesk6() + forms.pkesk6()
        message = forms.encrypted(keys + forms.seipd2(payload))
        chunks = [message[at : at + CHUNK] for at in range(0, len(message), CHUNK)]
        repeat = max(3, arguments.repeat * 3000 // max(3000, len(message) // 40))
        runs = [run(chunks) for _ in range(repeat)]
        results[name] = {
            'octets': len(message),
            'cpu_us': round(min(spent for spent, _ in runs) * 1e6),
            'longest_feed_us': round(min(longest for _, longest in runs) * 1e6),
            'runs': repeat,
        }
    facts = {'python': platform.python_version(), 'chunk': CHUNK, 'messages': results}
    print(json.dumps(facts, indent=2))


if __name__ == '__main__':
    main()
