"""Say for every case of a record whether its time adds up; exit status 1 where it does not.

`python ci/explain_links.py RECORD`, with a record of `pibench run suites/links.yaml` from a quiet machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pibench.records.files import load_record
from pibench.run.explain import EXPLAINED, explain


def main(argv: list[str]) -> int:
    """Print one line a case."""
    found = list(explain(load_record(Path(argv[1]))))
    print(f"{'case':56} {'measured':>10} {'explained':>10} = {'compute':>9} + {'latency':>9} + {'transfer':>9}   off")
    for row in found:
        parts = f"{row.compute_s:8.4f}s + {row.latency_s:8.4f}s + {row.transfer_s:8.4f}s"
        print(f"{row.case:56} {row.measured_s:9.4f}s {row.explained_s:9.4f}s = {parts} {row.off:+6.0%}")
    return int(not found or any(abs(row.off) > EXPLAINED for row in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
