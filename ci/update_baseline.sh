#!/usr/bin/env bash
# Measure suites/ci.yaml and make it the baseline, after a change that is meant to change what is sent.
# The change stands in the diff of ci/baseline.json: say in the commit why it is right.
set -eu
cd "$(dirname "$0")/.."
PIBENCH=${PIBENCH:-.venv/bin/pibench}
"$PIBENCH" run suites/ci.yaml --quiet "$@"
"$PIBENCH" gate latest --baseline ci/baseline.json --update
