"""An hour's worth of inferences in one session: `python ci/soak.py --inferences 10000`.

One pair of parties (and their dealer) serves them all over loopback at full rate, with material made as it goes.
Memory, open files, sockets and threads of every process are sampled; the first tenth of the inferences is warm-up. Exit
status 1 if memory grew by 1 % or more, if files, sockets or threads grew at all, or if the last fifth was slower than
the first by a tenth.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import torch
from own_model import tiny
from safetensors.torch import save_file

from pibench.lowering.lower import lower
from pibench.lowering.reference import evaluate
from pibench.session import children
from pibench.session.session import SessionPlan, run_session

MEMORY_GROWTH, SLOWER = 0.01, 0.10
SAMPLE_S = 1.0


class Samples:
    """What every process of the session holds, once a second."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self.rows: dict[str, list[dict[str, int]]] = defaultdict(list)
        self.warm = False  # a tenth of the inferences is over: imports and compilation are
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            for role, pid in list(self.pids.items()):
                if self.warm and (row := look(pid)):
                    self.rows[role].append(row)

    def end(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()


def look(pid: int) -> dict[str, int]:
    """Return resident memory, files, sockets and threads of a process; nothing once it is gone."""
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        return {
            "memory_kb": int(status["VmRSS"].split()[0]), "files": len(files), "threads": int(status["Threads"]),
            "sockets": sum(name.startswith("socket:") for name in files),
        }  # fmt: skip
    except (OSError, KeyError, ValueError):
        return {}


def judge(samples: Samples, online_s: list[float]) -> list[str]:
    """Return what grew."""
    problems = []
    for role, rows in samples.rows.items():
        warm = rows[:-1]
        fifth = max(1, len(warm) // 5)
        for name in warm[0] if warm else ():
            first, last = (statistics.median(r[name] for r in part) for part in (warm[:fifth], warm[-fifth:]))
            print(f"{role:7} {name:10} {first:12.0f} -> {last:12.0f}  {last / max(first, 1) - 1:+.2%}")
            if last > first * (1 + (MEMORY_GROWTH if name == "memory_kb" else 0)):
                problems.append(f"{role}: {name} grew from {first:.0f} to {last:.0f}")
    warm_s = online_s[len(online_s) // 10 :]
    fifth = max(1, len(warm_s) // 5)
    first_s, last_s = statistics.median(warm_s[:fifth]), statistics.median(warm_s[-fifth:])
    print(f"online: first fifth {first_s * 1e3:.3f} ms, last fifth {last_s * 1e3:.3f} ms, {last_s / first_s - 1:+.1%}")
    return problems + ([f"latency grew by {last_s / first_s - 1:.1%}"] if last_s > first_s * (1 + SLOWER) else [])


def plan(args: argparse.Namespace, folder: Path) -> tuple[SessionPlan, torch.Tensor]:
    """Return the session, and its answers in plaintext."""
    torch.manual_seed(0)
    program, weights = lower(tiny().eval(), (1, 8, 8))
    images = torch.rand(args.inferences + 1, 1, 8, 8)
    save_file(weights, folder / "weights.safetensors")
    save_file({"images": images}, folder / "images.safetensors")
    made = SessionPlan(
        protocol=args.protocol, program=program.to_json(), masks=None, weights=str(folder / "weights.safetensors"),
        images=str(folder / "images.safetensors"), inferences=args.inferences, offline_chunk=100, timeout_s=120.0,
        deadline_s=7200.0,
    )  # fmt: skip
    return made, evaluate(program, weights, images)


def main() -> int:
    """Soak, and say what grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inferences", type=int, default=10_000)
    parser.add_argument("--protocol", default="masked")
    args = parser.parse_args()
    samples = Samples()
    start = children.Children.start

    def watched(these: Any, job: Any, *rest: Any) -> Any:
        child = start(these, job, *rest)
        samples.pids[job.role] = child.process.pid
        return child

    children.Children.start = watched  # type: ignore[method-assign]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        soak, reference = plan(args, Path(folder))
        result = run_session(soak, lambda _, done: setattr(samples, "warm", done >= args.inferences // 10))
    samples.end()
    error = float((torch.tensor(result.logits).flatten(0, 1) - reference).abs().max())
    online_s = [tally["time_s"] for tally in result.online["client"]]
    problems = judge(samples, online_s) + ([f"a logit is off by {error}"] if error > 0.05 else [])
    print(f"{len(online_s)} inferences in {time.monotonic() - begun:.0f} s, worst logit error {error:.2g}")
    for problem in problems:
        print(f"  {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
