"""A against B: two revisions, environments or cards, each run by a whole pibench of its own, taking turns.

The only honest way to compare times on a shared machine: both sides are there at the same time, session i of one is
paired with session i of the other, and within a pair inferences alternate in random order (see turnstile.py).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pibench.documents import read_yaml
from pibench.errors import EXIT_FAILED, EXIT_OK, PartyError, UsageError
from pibench.records.files import load_record
from pibench.records.git import NoAnswer, Refused, ask, git, git_state
from pibench.records.record import Record, Session
from pibench.run.fromsuite import near
from pibench.session.turnstile import Turnstile, variables

SESSIONS = 36  # pairs: enough for 3 % where pairs scatter by 2.5 % (docs/statistics.md)
PATIENCE_S = 600.0  # a party waits for the other side's inference, so the suite's own patience will not do
TURN_MODULES = (Path("pibench/session/turn.py"), Path("pibench/mpc/turn.py"))  # today, and before the rooms
ENTRY = "import sys; from pibench.cli import main; sys.exit(main())"
GIT_TIMEOUT_S = 120.0
INSTALL_TIMEOUT_S = 1800.0
POLL_S = 0.1
TAIL_BYTES = 2000


@dataclass(frozen=True)
class Side:
    """One side: a source tree, an interpreter whose packages it uses, and what to call it."""

    name: str  # base or head
    label: str
    tree: Path
    python: str
    suite: Path
    top: Path | None = None  # of the checkout, where `tree` is a folder in it

    @property
    def takes_turns(self) -> bool:
        """Whether this revision knows turnstiles; an older one is interleaved by whole sessions instead."""
        return not self.ships_pibench or any((self.tree / module).is_file() for module in TURN_MODULES)

    @property
    def ships_pibench(self) -> bool:
        """Whether the tree is pibench's own; in anybody else's, this pibench runs what the tree holds."""
        return (self.tree / "pibench" / "cli.py").is_file()

    def import_path(self) -> str:
        """Return where its modules are imported from: its tree first, wherever else they may be installed."""
        places = [self.tree, self.tree / "src", self.top or self.tree, (self.top or self.tree) / "src"]
        places += [] if self.ships_pibench else [Path(__file__).resolve().parents[2]]
        return os.pathsep.join(dict.fromkeys(str(place) for place in places if place.is_dir()))

    def command(self, record: Path, sessions: int, more: Sequence[str]) -> list[str]:
        """Return the command of its run."""
        wanted = ["--sessions", str(sessions), "--record", str(record), "--quiet", *more]
        return [self.python, "-c", ENTRY, "run", str(self.suite), *wanted]


Tell = Callable[[str], None]


def run_pairs(
    base: Side, head: Side, folder: Path, sessions: int, more: Sequence[str], seed: int, *, settle: bool = True
) -> tuple[Record, Record]:
    """Run `sessions` pairs; returns both records, session i of one made beside session i of the other."""
    folder.mkdir(parents=True, exist_ok=True)
    for side in (base, head) if settle else ():
        _settle(side, folder / "settle.json", more)
    if base.takes_turns and head.takes_turns:
        return _side_by_side(base, head, folder, sessions, [*more, "--seed", str(seed)], seed)
    return _one_after_the_other(base, head, folder, sessions, more, seed)


def _settle(side: Side, path: Path, more: Sequence[str]) -> None:
    """Run a side once for nothing: trained checkpoints, compiled bytecode and kernels are there for both, or for none.

    Without this a fresh worktree against a tree in use looks 1 to 2 % slower than it is.
    """
    with tempfile.TemporaryFile() as output:
        process = _start(side, side.command(path, 1, [*more, "--inferences", "1"]), "", output)
        try:
            process.wait()
        finally:
            _end(process)
        _check(side, process.returncode, output)
    path.unlink(missing_ok=True)


def _side_by_side(
    base: Side, head: Side, folder: Path, sessions: int, more: Sequence[str], seed: int
) -> tuple[Record, Record]:
    paths = {side.name: folder / f"{side.name}.json" for side in (base, head)}
    with Turnstile((base.name, head.name), seed) as turnstile, contextlib.ExitStack() as stack:
        running = {}
        for side in (base, head):
            output = stack.enter_context(tempfile.TemporaryFile())
            process = _start(side, side.command(paths[side.name], sessions, more), turnstile.address, output)
            stack.callback(_end, process)
            running[side.name] = (side, process, output)
        while running:
            for name, (side, process, output) in list(running.items()):
                if process.poll() is not None:
                    turnstile.gone(name)
                    del running[name]
                    _check(side, process.returncode, output)
            time.sleep(POLL_S)
    return load_record(paths[base.name]), load_record(paths[head.name])


def _one_after_the_other(
    base: Side, head: Side, folder: Path, sessions: int, more: Sequence[str], seed: int
) -> tuple[Record, Record]:
    """Interleave whole sessions: coarser, but every revision with a `run` can do it."""
    import random

    chance = random.Random(seed)
    found: dict[str, Record] = {}
    for pair in range(sessions):
        for side in chance.sample([base, head], k=2):
            path = folder / f"{side.name}-{pair}.json"
            with tempfile.TemporaryFile() as output:
                process = _start(side, side.command(path, 1, [*more, "--seed", str(seed + pair)]), "", output)
                try:
                    process.wait()
                finally:
                    _end(process)
                _check(side, process.returncode, output)
            found[side.name] = _joined(found.get(side.name), load_record(path), pair)
    return found[base.name], found[head.name]


def _joined(record: Record | None, more: Record, pair: int) -> Record:
    """Return the record with another run's sessions added to its cases."""
    if record is None:
        return more
    for case in more.cases:
        old = record.case(case.id)
        added = [_renumbered(session, pair) for session in case.sessions]
        status, error = (case.status, case.error) if case.status != "done" else (old.status, old.error)
        update = {"sessions": (*old.sessions, *added), "status": status, "error": error}
        record = record.with_case(old.model_copy(update=update))
    return record


def _renumbered(session: Session, pair: int) -> Session:
    return session.model_copy(update={"index": pair, "order": pair})


def paired(base: Record, head: Record) -> tuple[Record, Record]:
    """Keep the sessions that both sides finished, in the same order: a pair without a partner proves nothing."""
    for case in base.cases:
        other = next((c for c in head.cases if c.id == case.id), None)
        if other is None:
            continue
        shared = sorted({s.index for s in case.sessions} & {s.index for s in other.sessions})
        base = base.with_case(case.model_copy(update={"sessions": _picked(case.sessions, shared)}))
        head = head.with_case(other.model_copy(update={"sessions": _picked(other.sessions, shared)}))
    return base, head


def _picked(sessions: Sequence[Session], indexes: Sequence[int]) -> tuple[Session, ...]:
    by_index = {session.index: session for session in sessions}
    return tuple(by_index[index] for index in indexes)


def _start(side: Side, command: list[str], address: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = variables(address, side.name) | {"PYTHONPATH": side.import_path()}
    try:
        return subprocess.Popen(
            command, cwd=side.tree, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise UsageError(f"cannot start {side.python}: {error.strerror}", where=side.name) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run that is still going: asked first, so that it ends its parties."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _check(side: Side, status: int, output: IO[bytes]) -> None:
    """Raise unless the run came to its end; a failed case (status 2) is the comparison's to report."""
    if status in (EXIT_OK, EXIT_FAILED):
        return
    output.seek(0, 2)
    output.seek(max(0, output.tell() - TAIL_BYTES))
    tail = "\n".join(f"  | {line}" for line in output.read().decode("utf-8", "replace").splitlines()[-8:])
    raise PartyError(f"{side.name} ({side.label}) ended with status {status}\n{tail}", where=str(side.tree))


@contextlib.contextmanager
def tree_of(revision: str, cwd: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Give a revision's tree and its name: a folder as it is, anything else as a git worktree, removed afterwards."""
    if Path(revision).is_dir():
        yield Path(revision).resolve(), _label(Path(revision))
        return
    top = Path(_git(cwd, "rev-parse", "--show-toplevel"))
    commit = _git(cwd, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="pibench-ab-") as folder:
        tree = Path(folder) / commit[:10]
        _git(top, "worktree", "add", "--detach", "--quiet", str(tree), commit)
        try:
            _share_checkpoints(top, tree)
            yield tree, f"{revision} ({commit[:10]})"
        finally:
            git(top, "worktree", "remove", "--force", str(tree))


def _label(folder: Path) -> str:
    """Return what to call a folder: its name, and the commit that it stands at."""
    state = git_state(folder)
    if not state.commit:
        return str(folder)
    return f"{folder.resolve().name} ({state.commit[:10]}{', with changes' if state.dirty else ''})"


def own_environment(tree: Path, tell: Tell) -> str:
    """Build an environment from a tree's own requirements; returns its interpreter."""
    folder = tree / ".pibench" / "venv"
    python = folder / "bin" / "python"
    tell(f"installing {tree.name} into an environment of its own")
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", str(tree)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise UsageError(
                f"{tree.name} cannot be installed: {last[0]}", remedy="name interpreters with --python-base/-head"
            )
    return str(python)


def requirements(tree: Path) -> Any:
    """Return what a tree's pyproject asks for, None where it has none."""
    import tomllib

    try:
        return tomllib.loads((tree / "pyproject.toml").read_text("utf-8")).get("project", {}).get("dependencies")
    except (OSError, ValueError):
        return None


def adapted_suite(text: str, home: Path, folder: Path, card: str | None = None) -> Path:
    """Write the suite that lies at `home` for one side, into `folder`.

    With patience for the other side, and for one card only where cards are compared. Weights that it names keep their
    place: a relative path would mean another file there.
    """
    import yaml

    data, _ = read_yaml(home, text.encode())
    for entry in data["networks"]:
        if isinstance(entry, dict) and entry.get("weights"):
            entry["weights"] = str(near(Path(entry["weights"]), home).resolve())
    data["timeout_s"] = max(float(data.get("timeout_s", 60.0)), PATIENCE_S)
    if card is not None:
        data["networks"] = [card]
    path = folder / f"{data['name']}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def as_one_card(record: Record, name: str) -> Record:
    """Return the record with every network called `name`, so that two cards' cases can be matched."""
    cases = [c.model_copy(update={"id": "/".join([name, *c.id.split("/")[1:]])}) for c in record.cases]
    return record.model_copy(update={"cases": tuple(cases)})


def _share_checkpoints(top: Path, tree: Path) -> None:
    """Let a worktree use what was trained here: the same card has the same weights on both sides."""
    trained = top / ".pibench" / "checkpoints"
    if trained.is_dir():
        (tree / ".pibench").mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (tree / ".pibench" / "checkpoints").symlink_to(trained)


def _git(folder: Path | None, *arguments: str) -> str:
    try:
        return ask(folder, *arguments, timeout_s=GIT_TIMEOUT_S)
    except Refused as error:
        what = str(error) or f"there is no revision {arguments[-1].split('^')[0]!r}"
        raise UsageError(what, where="git", remedy="name a commit, branch or tag, or a folder") from error
    except NoAnswer as error:
        raise UsageError(f"git does not answer: {error}", remedy="give folders instead of revisions") from error
