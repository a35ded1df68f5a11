"""What the verdicts are worth, by experiment: A against A, A against A with a known delay, planted changes, overhead.

    python ci/experiments.py all --keep FOLDER     # everything; a second call goes on where the first stopped
    python ci/experiments.py slower --keep FOLDER --minutes 10   # a part of it, and no comparison begun after that
    python ci/experiments.py judge --keep FOLDER   # only the verdicts, from the records kept there

Sessions are real: `pibench ab` runs them in pairs, the head from a copy of this tree whose online phase is slower by a
known share (busy waiting, inside the phase). Consecutive pairs are dealt out to comparisons of as many pairs as `ab`
has by default, each judged as `ab` judges. docs/statistics.md holds the figures of one such run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pibench.records.compare import Comparison, Options, Verdict, compare
from pibench.records.files import load_record
from pibench.records.gate import judge, slim
from pibench.records.pairs import log_ratios, paired_ratio
from pibench.records.power import Rule
from pibench.records.record import Case, Record, Session
from pibench.records.stats import signed_rank_exact
from pibench.run.ab import SESSIONS, Side, adapted_suite, paired, run_pairs

TREE = Path(__file__).resolve().parents[1]
SUITE = """\
name: experiment
networks: [{network}]
protocols: [{protocol}]
sessions: 2
inferences: {inferences}
warmups: 2
accuracy_images: 100
train_missing: true
"""
# what is replaced, in which file, by what; each text must occur exactly once
SLOW = ("pibench/session/party.py", "            logits = runner.online(batch)\n", """\
            import time
            began = time.perf_counter()
            logits = runner.online(batch)
            until = time.perf_counter() + {share} * (time.perf_counter() - began)
            while time.perf_counter() < until:
                pass
""")  # fmt: skip
SLEEP = (SLOW[0], SLOW[1], """\
            import time
            began = time.perf_counter()
            logits = runner.online(batch)
            time.sleep({share} * (time.perf_counter() - began))
""")  # fmt: skip
TABLES = "pibench/mpc/masked/gadgets/relu_truth_tables.py"
ROUND = [
    (TABLES, "        c = backend.open_masked(x,", "        import numpy as np\n\n"
     "        yield Await(1)\n        yield Send(np.zeros(1, np.uint8))\n        c = backend.open_masked(x,"),
    (TABLES, "        c = backend.unpack((yield Await(self.size * window.open_bytes))", "        import numpy as np\n\n"
     "        yield Send(np.zeros(1, np.uint8))\n        yield Await(1)\n"
     "        c = backend.unpack((yield Await(self.size * window.open_bytes))"),
]  # fmt: skip
BYTE = [
    (TABLES, "        yield Send(backend.host(backend.answer(bits, theirs, share.table)))",
     "        import numpy as np\n\n        answer = backend.host(backend.answer(bits, theirs, share.table))\n"
     "        yield Send(np.concatenate([answer, np.zeros(n, np.uint8)]))"),
    (TABLES, "reply = backend.lift((yield Await(n)))", "reply = backend.lift((yield Await(2 * n))[:n].copy())"),
]  # fmt: skip
CHANGES = {  # what the head does more than the base
    "same": [],
    "sleep3": [(*SLEEP[:2], SLEEP[2].format(share=0.03))],
    "slower5": [(*SLOW[:2], SLOW[2].format(share=0.05))],
    "slower10": [(*SLOW[:2], SLOW[2].format(share=0.10))],
}


def patched(folder: Path, *changes: tuple[str, str, str]) -> Path:
    """Return a copy of this tree with the changes."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TREE / "pibench", folder / "pibench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("networks", "suites", "zoo", "pyproject.toml"):
        (folder / name).symlink_to(TREE / name)
    (TREE / ".pibench" / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / ".pibench").mkdir()
    (folder / ".pibench" / "checkpoints").symlink_to(TREE / ".pibench" / "checkpoints")
    for name, old, new in changes:
        path = folder / name
        text = path.read_text("utf-8")
        if text.count(old) != 1:
            raise SystemExit(f"{name} holds {text.count(old)} times: {old!r}; the experiment needs an update")
        path.write_text(text.replace(old, new), "utf-8")
    return folder


def side(name: str, tree: Path, args: argparse.Namespace) -> Side:
    """Return one side of an experiment."""
    text = SUITE.format(network=args.network, protocol=args.protocol, inferences=args.inferences)
    suite = adapted_suite(text, TREE / "suites" / "experiment.yaml", tree / ".pibench" / "ab-suites" / name)
    return Side(name, str(tree), tree, sys.executable, suite)


def run_side_by_side(kind: str, pairs: int, args: argparse.Namespace) -> None:
    """Run pairs of one kind in chunks, keeping both records of each."""
    head = patched(args.keep / f"tree-{kind}", *CHANGES[kind])
    base, settled = patched(args.keep / "tree-base"), False
    done = sum(len(load_record(path).cases[0].sessions) for path in args.keep.glob(f"{kind}-*/base.json"))
    while done < pairs and time.monotonic() < args.until:
        count = min(args.size, pairs - done)  # one `ab` a comparison: what all its sessions share, it alone shares
        folder = args.keep / f"{kind}-{done:04d}"
        began = time.monotonic()
        sides = side("base", base, args), side("head", head, args)
        run_pairs(*sides, folder, count, [], seed=done + 1, settle=not settled)
        done, settled = done + count, True
        print(f"{kind}: {done}/{pairs} pairs, {(time.monotonic() - began) / count:.1f} s a pair", flush=True)


def pool(kind: str, args: argparse.Namespace) -> tuple[Record, Record] | None:
    """Return all pairs of one kind as two records."""
    base = head = None
    for folder in sorted(args.keep.glob(f"{kind}-*")):
        one, other = paired(load_record(folder / "base.json"), load_record(folder / "head.json"))
        if base is None or head is None:
            base, head = one, other
        else:
            base, head = joined(base, one), joined(head, other)
    return (base, head) if base and head else None


def joined(record: Record, more: Record) -> Record:
    """Return the record with the other's sessions after its own."""
    case = record.cases[0]
    return record.with_case(case.model_copy(update={"sessions": (*case.sessions, *more.cases[0].sessions)}))


def only(record: Record, sessions: list[Session]) -> Record:
    """Return the record with these sessions."""
    case: Case = record.cases[0].model_copy(update={"sessions": tuple(sessions)})
    return record.with_case(case)


def verdicts(base: Record, head: Record, size: int) -> list[tuple[Verdict, float]]:
    """Return verdict and ratio of every run of `size` consecutive pairs."""
    found = []
    for start in range(0, len(base.cases[0].sessions) - size + 1, size):
        one, other = (only(r, list(r.cases[0].sessions[start : start + size])) for r in (base, head))
        found.append(outcome(compare(one, other, Options.of(["online_s"], paired=True))))
    return found


def outcome(comparison: Comparison) -> tuple[Verdict, float]:
    """Return the verdict on the online time, and the ratio."""
    row = comparison.rows[0]
    return row.verdict, row.ratio.point if row.ratio else float("nan")


def slowed(session: Session, factor: float) -> Session:
    """Return the session with its online times multiplied."""
    inferences = [i.model_copy(update={"online_s": i.online_s * factor}) for i in session.inferences]
    return session.model_copy(update={"inferences": tuple(inferences)})


def resampled(
    base: Record, head: Record, size: int, count: int, *, in_pairs: bool, factor: float = 1.0
) -> list[tuple[Verdict, float]]:
    """Return verdicts of comparisons put together from real sessions of the same code, the head's times multiplied.

    Pairs: pairs drawn with replacement, sides swapped by coin. Otherwise sessions of both sides, shuffled and split.
    """
    rng, found = np.random.default_rng(1), []
    left, right = base.cases[0].sessions, head.cases[0].sessions
    for _ in range(count):
        if in_pairs:
            chosen = rng.integers(len(left), size=size)
            coins = rng.integers(2, size=size)
            one = [(left, right)[coin][i] for i, coin in zip(chosen, coins, strict=True)]
            other = [(right, left)[coin][i] for i, coin in zip(chosen, coins, strict=True)]
        else:
            mixed = [[*left, *right][i] for i in rng.permutation(len(left) + len(right))[: 2 * size]]
            one, other = mixed[:size], mixed[size:]
        other = [slowed(session, factor) for session in other]
        if in_pairs:
            found.append(ruled(one, other))
            continue
        options = Options.of(["online_s"], seed=int(rng.integers(1 << 30)))
        found.append(outcome(compare(only(base, one), only(head, other), options)))
    return found


def ruled(base: list[Session], head: list[Session]) -> tuple[Verdict, float]:
    """Return whether the rule of `ab` calls pairs different: its verdict, without the estimates of either side."""
    times = [[[i.online_s for i in s.inferences if not i.warmup] for s in side] for side in (base, head)]
    ratio, p, rule = paired_ratio(*times), signed_rank_exact(list(log_ratios(*times))).p, Rule()
    if p < rule.alpha and ratio.low > 1 + rule.tolerance:
        return Verdict.WORSE, ratio.point
    return Verdict.BETTER if p < rule.alpha and ratio.high < 1 / (1 + rule.tolerance) else Verdict.UNCLEAR, ratio.point


def summary(name: str, found: list[tuple[Verdict, float]]) -> dict[str, object]:
    """Return one line of the result."""
    ratios = [ratio for _, ratio in found]
    counted = {str(v): sum(1 for verdict, _ in found if verdict is v) for v in Verdict}
    return {
        "experiment": name, "comparisons": len(found), "verdicts": {k: n for k, n in counted.items() if n},
        "median_ratio": round(float(np.median(ratios)), 4), "lowest": round(min(ratios), 4),
        "highest": round(max(ratios), 4),
    }  # fmt: skip


def judge_all(args: argparse.Namespace) -> None:
    """Print and keep the verdicts on everything that was run."""
    lines = []
    for kind in CHANGES:
        if (both := pool(kind, args)) is None:
            continue
        size = min(args.size, len(both[0].cases[0].sessions))
        lines.append(summary(f"{kind}, real, {size} pairs", verdicts(*both, size)))
        if kind == "same":
            lines.append(summary("same, pairs resampled", resampled(*both, size, 200, in_pairs=True)))
            lines.append(summary("same, sessions resampled", resampled(*both, size, 200, in_pairs=False)))
            for factor in (1.03, 1.05, 1.10):
                found = resampled(*both, size, 100, in_pairs=True, factor=factor)
                lines.append(summary(f"same x {factor}, pairs resampled", found))
        pairs = Options.of(["online_s"], paired=True)
        print(kind, "all pairs:", outcome(compare(*both, pairs)), flush=True)
    for line in lines:
        print(json.dumps(line))
    (args.keep / "verdicts.json").write_text(json.dumps(lines, indent=1) + "\n")


def planted(args: argparse.Namespace) -> None:
    """Show that the gate catches a round, a byte and 3 % of sleep, each by the measure that should."""
    base = run_once(patched(args.keep / "tree-base"), args, "planted-base")
    baseline = slim(base)
    for name, changes in (("round", ROUND), ("byte", BYTE)):
        record = run_once(patched(args.keep / f"tree-{name}", *changes), args, f"planted-{name}")
        show(f"one more {name} per ReLU, gate", judge(record, baseline, time=False))
    head = patched(args.keep / "tree-sleep", *CHANGES["sleep3"])
    sides = side("base", patched(args.keep / "tree-base"), args), side("head", head, args)
    records = paired(*run_pairs(*sides, args.keep / "planted-sleep", args.size, [], seed=7))
    show("3 % of sleep, ab", compare(*records, Options.of(None, paired=True)))


def run_once(tree: Path, args: argparse.Namespace, name: str) -> Record:
    """Run one tree alone."""
    path = args.keep / f"{name}.json"
    path.unlink(missing_ok=True)
    command = side(name, tree, args).command(path, 2, [])
    subprocess.run(
        command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, stdout=subprocess.DEVNULL, check=False
    )
    return load_record(path)


def show(name: str, comparison: Comparison) -> None:
    """Print what a comparison found worse."""
    worse = comparison.of(Verdict.WORSE, Verdict.FAILED, Verdict.MISSING)
    what = [f"{row.measure.name} {row.base} -> {row.head} {row.verdict} {' '.join(row.notes[:1])}" for row in worse]
    print(f"{name}: {'; '.join(what) or 'nothing found'}", flush=True)


def overhead(args: argparse.Namespace) -> None:
    """Print the clock's resolution, the meter's price, and what a session of the null protocol costs."""
    from pibench.links.meter import Meter

    ticks = [time.perf_counter() for _ in range(200_000)]
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    smallest = min(step for step in steps if step > 0)
    print(f"clock: smallest step {smallest * 1e9:.0f} ns, median {sorted(steps)[len(steps) // 2] * 1e9:.0f} ns")
    meter, count = Meter(), 100_000
    with meter.phase():
        began = time.perf_counter()
        for number in range(count):
            with meter.op("relu", "S1", f"site{number % 20}"):
                meter.sent(8)
        print(f"meter: {(time.perf_counter() - began) / count * 1e6:.2f} us an operation marked and a message counted")
    with tempfile.TemporaryDirectory():
        args.protocol = "plaintext"
        record = run_once(patched(args.keep / "tree-base"), args, "overhead")
    for session in record.cases[0].sessions:
        online = [i.online_s for i in session.inferences if not i.warmup]
        waits = [max(i.server.wait_s, i.client.wait_s) for i in session.inferences if not i.warmup]
        print(
            f"null protocol: online {np.median(online) * 1e3:.2f} ms (waiting {np.median(waits) * 1e3:.2f} ms), "
            f"session {session.wall_s:.2f} s for {sum(online) * 1e3:.0f} ms of online"
        )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["all", "same", "slower", "judge", "planted", "overhead"])
    parser.add_argument("--keep", type=Path, required=True, help="folder for trees and records")
    parser.add_argument("--network", default="digits-full")
    parser.add_argument("--protocol", default="masked")
    parser.add_argument("--inferences", type=int, default=25)
    parser.add_argument("--size", type=int, default=SESSIONS, help="pairs a comparison")
    parser.add_argument("--comparisons", type=int, default=20, help="real comparisons of A with A")
    parser.add_argument("--kind", action="append", choices=[*CHANGES][1:], help="of slowdown (default: all)")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no comparison after so long")
    args = parser.parse_args()
    args.until = time.monotonic() + 60 * args.minutes
    args.keep = args.keep.resolve()
    args.keep.mkdir(parents=True, exist_ok=True)
    if args.what in ("all", "same"):
        run_side_by_side("same", args.comparisons * args.size, args)
    if args.what in ("all", "slower"):
        for kind in args.kind or [kind for kind in CHANGES if kind != "same"]:
            run_side_by_side(kind, args.comparisons // 2 * args.size, args)
    if args.what in ("all", "judge"):
        judge_all(args)
    if args.what in ("all", "planted"):
        planted(args)
    if args.what in ("all", "overhead"):
        overhead(args)


if __name__ == "__main__":
    main()
