"""`pibench ci init`: write a workflow for one's own repository: exact gate, time side by side, comment, records."""

from __future__ import annotations

import argparse
from pathlib import Path

from pibench.errors import EXIT_OK, UsageError

WORKFLOW = Path(".github/workflows/pibench.yml")
TEMPLATE = """\
# Written by `pibench ci init`. Two jobs: `gate` holds what is counted (bytes, rounds, ReLUs) against a baseline on any
# runner; `time` lets the base and the head of a pull request take turns on one runner, which alone judges time there.
# The baseline: pibench run SUITE && pibench gate --update --baseline BASELINE, then commit that file.
name: pibench
on:
  pull_request:
  push:
    branches: [@BRANCH@]
permissions:
  contents: read
  pull-requests: write # for the comment
env:
  PIBENCH: pibench # what pip installs: a release, or git+https://... of a commit
  SUITE: @SUITE@
  BASELINE: @BASELINE@
defaults:
  run:
    shell: bash # with pipefail

jobs:
  gate:
    runs-on: ubuntu-latest
    timeout-minutes: 45
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {python-version: "3.11"}
      - name: Install
        run: | # your own package too, where there is one; a module in the folder needs no installation
          python -m pip install "$PIBENCH"
          if [ -f pyproject.toml ]; then python -m pip install -e .; fi
      - name: Measure
        run: pibench run "$SUITE" --record record.json --quiet
      - name: Gate
        run: | # status 1: a regression; 2: a case failed or is missing; the first run has no baseline yet
          if [ -f "$BASELINE" ]; then
            pibench gate record.json --baseline "$BASELINE" --time never --format markdown | tee report.md
          else
            echo "No baseline yet: pibench gate --update --baseline $BASELINE" | tee report.md
          fi
      - name: Summary
        if: always()
        run: cat report.md >> "$GITHUB_STEP_SUMMARY"
      - name: Comment # the gate's table beside the change; forks have no right to write and are passed over
        if: always() && github.event_name == 'pull_request' && github.event.pull_request.head.repo.fork == false
        env: {GH_TOKEN: "${{ github.token }}"}
        run: gh pr comment "${{ github.event.number }}" --body-file report.md
      - uses: actions/upload-artifact@v4 # the raw samples: `pibench compare`, `pibench report` read them anywhere
        if: always()
        with: {name: pibench-records, path: record.json}

  time:
    if: github.event_name == 'pull_request'
    runs-on: ubuntu-latest
    timeout-minutes: 60
    steps:
      - uses: actions/checkout@v4
        with: {fetch-depth: 0} # both revisions
      - uses: actions/setup-python@v5
        with: {python-version: "3.11"}
      - name: Install
        run: |
          python -m pip install "$PIBENCH"
          if [ -f pyproject.toml ]; then python -m pip install -e .; fi
      - name: Base against head
        run: |
          base="origin/${{ github.base_ref }}"
          pibench ab "$base" --suite "$SUITE" --format markdown | tee -a "$GITHUB_STEP_SUMMARY"
      - uses: actions/upload-artifact@v4
        if: always()
        with: {name: pibench-pairs, path: .pibench/ab, include-hidden-files: true}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add = parser.add_argument
    add("what", choices=["init"], help="write the workflow")
    add("--suite", default="quick", help="what it measures: a suite's name, or a file of this repository")
    add("--baseline", default="ci/baseline.json", help="where the baseline lies (default ci/baseline.json)")
    add("--branch", default="main", help="the branch that pushes are measured on (default main)")
    add("-o", "--output", type=Path, default=WORKFLOW, help=f"default {WORKFLOW}")
    add("--force", action="store_true", help="write over a workflow that is there")


def run(args: argparse.Namespace) -> int:
    """Write the workflow; refuse to overwrite one, or to name a suite that is not there."""
    from pibench.suite import load_suite

    load_suite(args.suite)
    if args.output.exists() and not args.force:
        raise UsageError("there is a workflow already", where=str(args.output), remedy="--force writes over it")
    text = TEMPLATE.replace("@SUITE@", args.suite).replace("@BASELINE@", args.baseline).replace("@BRANCH@", args.branch)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text, encoding="utf-8")
    print(f"wrote {args.output}: an exact gate for {args.suite}, and time by `pibench ab`")
    print(f"next: pibench run {args.suite} && pibench gate --update --baseline {args.baseline}, and commit both files")
    return EXIT_OK
