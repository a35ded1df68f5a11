"""Random faults over a running suite: `python ci/faults.py --faults 200`.

A suite of two protocols runs on a small network; a fault of a random kind strikes at a random moment of it; the run is
resumed from its record, and struck again. After every strike: the run ended within its bound, no process of it is left,
the record on disk can be read, holds every session that was finished before and none that is wrong, and the message
names the cause. Exit status 1 if any of this did not hold.
"""

from __future__ import annotations

import _thread
import argparse
import os
import random
import re
import resource
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from sabotage import Saboteur

from pibench.errors import PibenchError
from pibench.links.link import PROFILES, Link
from pibench.records.files import load_record
from pibench.records.record import SCHEMA, Machine, Record, SuiteInfo
from pibench.run import runner
from pibench.run.listener import Listener
from pibench.run.prepare import preparer
from pibench.run.settings import CasePlan, OwnModel, RunPlan
from pibench.session import children, session
from pibench.session.launch import Nurseries

TIMEOUT_S, DEADLINE_S = 10.0, 60.0
SESSIONS = 2  # of one run
BOUND_S = SESSIONS * (DEADLINE_S + 10.0)  # of one run, beyond which it hangs
OWN = OwnModel("own_model:tiny", (1, 8, 8))
CLOSED = r"closed the connection|connection to the peer broke|cannot connect|did not connect|handshake"
SILENT = r"said nothing for|did not connect in time|was not done after"
STALLED = rf"still in|{SILENT}"


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how it strikes, and what the message must say of it."""

    name: str
    strike: Callable[[Scene], bool]
    says: str


@dataclass
class Scene:
    """A run in progress, as a fault finds it."""

    chance: random.Random
    pids: dict[str, int] = field(default_factory=dict)  # of the session that runs
    link: Saboteur | None = None
    victim: str = ""

    def signal(self, number: int) -> bool:
        """Send a signal to a random process of the session."""
        if not self.pids:
            return False
        self.victim = self.chance.choice(sorted(self.pids))
        with suppress(OSError):
            if b"pibench" not in Path(f"/proc/{self.pids[self.victim]}/cmdline").read_bytes():
                return False  # long gone, and its number is somebody else's
            os.kill(self.pids[self.victim], number)
            return True
        return False

    def cut(self, how: str) -> bool:
        """Do something to the connection between the parties."""
        return self.link is not None and self.link.strike(how, self.chance)


def interrupt(scene: Scene) -> bool:
    """Press Ctrl-C."""
    _thread.interrupt_main()
    return True


def fill_disk(scene: Scene) -> bool:
    """Let no file of the harness grow any more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, resource.RLIM_INFINITY))
    return True


def jump(scene: Scene) -> bool:
    """Turn the harness's clock back or forward by days."""
    shift, now = scene.chance.choice((-1, 1)) * 1e6, _TIME
    time.time = lambda: now() + shift
    return True


def skew(scene: Scene) -> bool:
    """Have the client's next session run another number of inferences, as another version might."""

    def other(plan: Any, role: str, *rest: Any) -> Any:
        job = _JOB(plan, role, *rest)
        session._job = _JOB
        return replace(job, inferences=job.inferences + 1) if role == "server" else job

    session._job = other
    return True


_TIME, _JOB = time.time, session._job
KINDS = (
    Kind("kill", lambda s: s.signal(signal.SIGKILL), r"{victim}: killed by SIGKILL"),
    Kind("terminate", lambda s: s.signal(signal.SIGTERM), r"{victim}: killed by SIGTERM"),
    Kind("stall", lambda s: s.signal(signal.SIGSTOP), STALLED),
    Kind("cut", lambda s: s.cut("cut"), SILENT),
    Kind("half-close", lambda s: s.cut("half-close"), rf"{CLOSED}|{SILENT}"),
    Kind("reset", lambda s: s.cut("reset"), CLOSED),
    Kind("truncate", lambda s: s.cut("truncate"), rf"{CLOSED}|{SILENT}"),
    Kind("insert", lambda s: s.cut("insert"), rf"{SILENT}|another point|logit|class|peer|{CLOSED}"),
    Kind("corrupt", lambda s: s.cut("corrupt"), rf"{SILENT}|another point|logit|class|peer|{CLOSED}"),
    Kind("interrupt", interrupt, r"interrupted"),
    Kind("full disk", fill_disk, r"File too large|cannot be written|No space|no room"),
    Kind("clock jump", jump, r""),
    Kind("version skew", skew, r"disagree on the number of inferences"),
)


class Watch(Listener):
    """Strikes once, a random time after the first session has begun."""

    def __init__(self, kind: Kind, scene: Scene, after_s: float) -> None:
        self._kind, self._scene = kind, scene
        self._timer = threading.Timer(after_s, self._strike)
        self.struck = False

    def started(self, case: CasePlan, index: int, done: int, total: int) -> None:
        """Start the clock."""
        if self._timer.ident is None:
            self._timer.start()

    def _strike(self) -> None:
        self.struck = self._kind.strike(self._scene)

    def end(self) -> None:
        """Strike no more."""
        self._timer.cancel()


class Campaign:
    """Strike after strike."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        self._path = folder / "record.json"
        cases = tuple(CasePlan(network=OWN.name, protocol=name) for name in ("masked", "plaintext"))
        self._plan = RunPlan(
            suite=SuiteInfo(name="faults"), cases=cases, sources={OWN.name: OWN}, sessions=1, inferences=3,
            accuracy_images=0, timeout_s=TIMEOUT_S, deadline_s=DEADLINE_S,
        )  # fmt: skip
        self.seen: Counter[str] = Counter()
        self.missed = 0
        self.wrong: list[str] = []
        self.slowest_s = 0.0
        self._pids: list[int] = []
        self.session_s = 3.0
        self._spy()

    def _spy(self) -> None:
        start = children.Children.start

        def watched(these: Any, job: Any, *rest: Any) -> Any:
            child = start(these, job, *rest)
            self._pids.append(child.process.pid)
            if self.scene is not None:
                self.scene.pids[job.role] = child.process.pid
            return child

        children.Children.start = watched  # type: ignore[method-assign]
        self.scene: Scene | None = None

    def strike(self, kind: Kind, nurseries: Nurseries) -> None:
        """Run (or go on with) the suite under one fault, and look at what is left."""
        before = self._record()
        scene = self.scene = Scene(self._chance)
        watch = Watch(kind, scene, self._chance.uniform(0.0, self.session_s))
        run = runner.Run(self._plan, self._path, before, preparer(self._plan.sources, lambda _: None), watch)
        run.nurseries = lambda _: nullcontext(nurseries)  # these outlast the run
        run.opener = lambda link, any_socket: setattr(scene, "link", Saboteur(link)) or scene.link  # type: ignore[func-returns-value,return-value]
        start, said = time.monotonic(), ""
        try:
            run.execute()
        except (PibenchError, KeyboardInterrupt) as error:
            said = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        watch.end()
        self._restore()
        self._look(kind, watch, scene, before, said, time.monotonic() - start)

    def _restore(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        time.time, session._job = _TIME, _JOB  # a strike that came too late must not hit the next run

    def _record(self) -> Record:
        """Return the record to go on with, or a new one."""
        if self._path.exists() and not (old := load_record(self._path)).finished:
            return old
        if self._path.exists() and any(case.status == "failed" for case in old.cases):
            return old.model_copy(update={"finished": False})
        self._path.unlink(missing_ok=True)
        return Record(
            schema=SCHEMA, id="faults", created_utc="2026-11-20T12:00:00Z", pibench_version="0", seed=0,
            suite=self._plan.suite, machine=Machine(key="k"),
        )  # fmt: skip

    def _look(self, kind: Kind, watch: Watch, scene: Scene, before: Record, said: str, took_s: float) -> None:
        """Check everything that must hold after a strike."""
        self.slowest_s = max(self.slowest_s, took_s)
        after = load_record(self._path)
        told = said + " ".join(case.error or "" for case in after.cases)
        felt = bool(said) or any(case.status != "done" for case in after.cases)
        problems = [f"took {took_s:.0f} s"] if took_s > BOUND_S else []
        problems += [f"process {pid} is left" for pid in self._pids if not gone(pid)]
        problems += lost(before, after)
        problems += [f"{case.id}: done, yet {why}" for case in after.cases if (why := false(case))]
        if watch.struck and felt and kind.says:
            wanted = kind.says.format(victim=scene.victim or "nobody")
            problems += [] if re.search(wanted, told) else [f"the message does not name the cause: {told[:600]}"]
        elif not watch.struck or (not felt and kind.says):
            self.missed += 1  # too late: the suite was done
            self.session_s = 0.8 * took_s  # so long does a run take now
            kind = replace(kind, name="")
        if kind.name:
            self.seen[kind.name] += 1
        self._pids.clear()
        self.wrong += [f"{kind.name or 'missed'}: {problem}" for problem in problems]
        for problem in problems:
            print(f"  {kind.name}: {problem}", flush=True)


def gone(pid: int) -> bool:
    """Whether a process has ended, or does so within a moment."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def lost(before: Record, after: Record) -> list[str]:
    """Return the sessions that were finished and are not in the record any more."""
    have = {(case.id, s.index): s for case in after.cases for s in case.sessions}
    return [
        f"{case.id} session {s.index} is lost or changed"
        for case in before.cases for s in case.sessions if have.get((case.id, s.index)) != s
    ]  # fmt: skip


def false(case: Any) -> str:
    """Say why a case that is called done is not."""
    if case.status != "done":
        return ""
    errors = [s.correctness.max_abs_logit_error for s in case.sessions]
    return "" if all(e is not None and e <= case.tolerance for e in errors) else f"its errors are {errors}"


def main() -> int:
    """Strike as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    PROFILES["loopback"] = Link(name="loopback", how="none")
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        Nurseries(["pibench.mpc.masked.protocol", "pibench.mpc.plaintext.protocol"]) as nurseries,
    ):
        os.chdir(folder)
        campaign = Campaign(Path(folder), args.seed)
        campaign.strike(Kind("none", lambda s: False, ""), nurseries)  # everything imported, everything compiled
        first = time.monotonic()
        campaign.strike(Kind("none", lambda s: False, ""), nurseries)
        campaign.session_s = (time.monotonic() - first) * 0.8
        campaign.seen.clear()
        campaign.missed = 0
        while campaign.seen.total() < args.faults and time.monotonic() - start < args.minutes * 60:
            kind = campaign._chance.choice(KINDS)
            campaign.strike(kind, nurseries)
            if campaign.seen.total() % 10 == 0:
                print(f"{campaign.seen.total()} faults after {time.monotonic() - start:.0f} s", flush=True)
    print(
        f"{campaign.seen.total()} faults ({dict(campaign.seen)}), {campaign.missed} came too late; "
        f"{len(campaign.wrong)} problems; slowest run {campaign.slowest_s:.1f} s of {BOUND_S:.0f} s"
    )
    return int(bool(campaign.wrong))


if __name__ == "__main__":
    sys.exit(main())
