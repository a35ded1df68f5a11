"""Run the workflow that `pibench ci init` writes, step by step, in a scratch repository of somebody else.

    python ci/own_repository.py [--python ENV/bin/python]

Without `--python` a wheel is built from this tree and installed into an empty environment first (minutes). The
repository has a module of its own, a suite, a baseline and two commits; the second one plants a step in rounds. What
must be found: the gate's step ends with 1 and its report names `rounds` and the commit; `pibench history` names it too;
`pibench ab main` compares that repository's trees and writes nothing elsewhere. Exit status 1 if any of it is not so.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parents[1]
SUITE = """\
name: mine
networks: [{model: "mynet:make", input: [1, 8, 8]}]
protocols: [masked]
sessions: 1
inferences: 2
warmups: 1
accuracy_images: 0
"""
NET = """\
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), %snn.Flatten(), nn.Linear(256, 4))
"""
STEP = "nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), "


class Scratch:
    """The repository, and the environment that its steps run in."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self.python = folder, python
        path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
        self.env = {**kept, "PATH": path, "GIT_CONFIG_GLOBAL": os.devnull}

    def sh(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a step as a runner does: bash, -e, pipefail."""
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env | env, capture_output=True, text=True, timeout=900, check=False
        )
        print(f"$ {script.strip()}\n{done.stdout}{done.stderr}[status {done.returncode}]", flush=True)
        return done

    def git(self, *words: str) -> str:
        """Run git, as nobody."""
        who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
        return subprocess.run(
            ["git", *who, *words], cwd=self.folder, env=self.env, check=True, capture_output=True, text=True
        ).stdout.strip()

    def job(self, name: str, base: str) -> dict[str, subprocess.CompletedProcess[str]]:
        """Run the steps of a job in order, as long as they pass; those that run always, always."""
        workflow = yaml.safe_load((self.folder / ".github/workflows/pibench.yml").read_text("utf-8"))
        for left in ("record.json", "report.md"):  # a checkout is clean
            (self.folder / left).unlink(missing_ok=True)
        env = {**workflow["env"], "PIBENCH": "pibench", "GITHUB_STEP_SUMMARY": str(self.folder.parent / "summary.md")}
        done, failed = {}, False
        for step in workflow["jobs"][name]["steps"]:
            ours = "run" in step and "gh " not in step["run"]  # a pull request's comment needs a server
            if ours and (not failed or step.get("if") == "always()") and step["name"] != "Install":
                done[step["name"]] = self.sh(step["run"].replace("${{ github.base_ref }}", base), **env)
                failed = failed or done[step["name"]].returncode != 0
        return done


def environment(folder: Path) -> Path:
    """Return the interpreter of an empty environment into which this tree's wheel is installed."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=HERE, check=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env/bin/python"
    subprocess.run([str(python), "-m", "pip", "install", "-q", *map(str, folder.glob("*.whl"))], check=True)
    return python


def main() -> int:
    """Make the repository, run its workflow on both commits, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--python", type=Path, help="of an environment that pibench is installed in")
    parser.add_argument("--counted", action="store_true", help="without the steps that measure time side by side")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        scratch = Scratch(folder / "project", args.python.absolute() if args.python else environment(folder))
        found = check(scratch, timed=not args.counted)
    for what, holds in found.items():
        print(f"{'found' if holds else 'MISSED'}: {what}")
    return 0 if all(found.values()) else 1


def check(scratch: Scratch, *, timed: bool) -> dict[str, Any]:
    """Return what the workflow should find, and whether it did; `timed`: with `pibench ab` too."""
    project = scratch.folder
    (project / "suites").mkdir(parents=True)
    (project / "suites/mine.yaml").write_text(SUITE, encoding="utf-8")
    (project / "mynet.py").write_text(NET % "", encoding="utf-8")
    (project / ".gitignore").write_text(".pibench/\nrecord.json\nreport.md\n__pycache__/\n", encoding="utf-8")
    scratch.git("init", "-q", "-b", "main")
    scratch.git("add", "-A")
    scratch.git("commit", "-qm", "one layer")
    scratch.sh("pibench ci init --suite suites/mine.yaml")
    scratch.sh("pibench run suites/mine.yaml -q && pibench gate --update --baseline ci/baseline.json")
    scratch.git("add", "-A")
    scratch.git("commit", "-qm", "workflow and baseline")
    origin = project.parent / "origin"
    shutil.copytree(project / ".git", origin)
    scratch.git("remote", "add", "origin", str(origin))
    scratch.git("fetch", "-q", "origin")
    first = scratch.job("gate", "main")
    scratch.git("checkout", "-qb", "feature")
    (project / "mynet.py").write_text(NET % STEP, encoding="utf-8")
    scratch.git("commit", "-qam", "a second layer")
    commit = scratch.git("rev-parse", "HEAD")
    second, report = scratch.job("gate", "main"), (project / "report.md").read_text("utf-8")
    scratch.sh("pibench run suites/mine.yaml -q")
    history = scratch.sh("pibench history masked -m rounds").stdout
    found = {
        "the first commit passes the gate": first["Gate"].returncode == 0,
        "the second one fails it with status 1": second["Gate"].returncode == 1,
        "the report names rounds": bool(re.search(r"\brounds\b", report)),
        "the report names the commit": commit[:10] in report,
        "the summary holds the report": report in (project.parent / "summary.md").read_text("utf-8"),
        "history names the commit": commit[:10] in history,
    }
    if timed:
        job = scratch.job("time", "main")["Base against head"]
        by_hand = scratch.sh("pibench ab main --suite suites/mine.yaml --sessions 1")
        found["ab of the workflow finds rounds"] = job.returncode == 1 and "rounds" in job.stdout
        found["ab by hand finds rounds"] = by_hand.returncode == 1 and "rounds" in by_hand.stdout
    found["nothing but .pibench was left"] = scratch.git("status", "--porcelain") == ""
    return found


if __name__ == "__main__":
    raise SystemExit(main())
