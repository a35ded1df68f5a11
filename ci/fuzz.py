"""Fuzz every format for as long as one likes: `python ci/fuzz.py --inputs 100000 [--format card ...]`.

Finds (unexpected exceptions, inputs that take seconds, memory beyond a bound) are written to tests/corpus/<format>/ and
counted; the exit status is 1 if there are any. The memory bound is the kernel's: address space above what is in use.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import fuzzing

ROOM_BYTES = 1 << 30  # what one input may take on top
HANG_S = 30


def main() -> int:
    """Fuzz the chosen formats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="a format")
    parser.add_argument("--format", action="append", choices=sorted(fuzzing.READERS), help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    return 1 if sum(fuzz(name, args.inputs, args.seed) for name in args.format or fuzzing.READERS) else 0


def fuzz(name: str, inputs: int, seed: int) -> int:
    """Try many inputs of one format; returns the number of distinct finds."""
    chance, counts, finds = random.Random(f"{name}/{seed}"), {"taken": 0, "refused": 0}, set[str]()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for known in fuzzing.seeds(name):  # imports what there is to import, before memory is bounded
            fuzzing.try_one(name, known, Path(folder))
        _bound_memory()
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, _hang)
        for _ in range(inputs):
            data = fuzzing.one_input(name, chance)
            signal.setitimer(signal.ITIMER_PROF, HANG_S)  # of computing, so that a busy machine is no find
            signal.alarm(20 * HANG_S)
            try:
                counts[fuzzing.try_one(name, data, Path(folder))] += 1
            except fuzzing.Find as find:
                _keep(name, data, find, finds)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{name}: {inputs} inputs in {time.monotonic() - start:.0f} s, {counts['taken']} taken, "
        f"{counts['refused']} refused, {len(finds)} finds, peak {peak} MiB",
        flush=True,
    )
    return len(finds)


def _keep(name: str, data: bytes, find: Exception, finds: set[str]) -> None:
    """Write down the first input of each kind of find."""
    kind = f"{type(find.__cause__).__name__}{str(find)[:60]}"
    if kind in finds:
        return
    finds.add(kind)
    folder = fuzzing.CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"find-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    print(f"  {find} -> {path}", flush=True)


def _bound_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, resource.RLIM_INFINITY))


def _hang(*_: object) -> None:
    raise fuzzing.Find(f"took more than {HANG_S} s")


if __name__ == "__main__":
    sys.exit(main())
