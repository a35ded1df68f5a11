"""Every cell of a report as comma-separated values: raw numbers, units in the headings, nothing where nothing is."""

from __future__ import annotations

import csv
import io
from typing import Any

from pibench.reporting.cells import KINDS, Cell
from pibench.reporting.view import View

COLUMNS = (
    "run", "machine", "network", "title", "method", "dataset", "protocol", "link", "rtt_ms", "mbit_s", "device",
    "batch", "threads", "status", "relu_count", "macs", "macs_merged", "macs_run", "parameters", "relu_rounds",
    "accuracy_percent", "accuracy_n", "accuracy_origin", "private_accuracy_percent", "private_accuracy_n", "agreeing",
    "compared", "max_abs_logit_error", "online_s", "online_low_s", "online_high_s", "sessions", "inferences",
    "server_sent_bytes", "client_sent_bytes", "rounds", *(f"{kind}_s" for kind in KINDS), "offline_s",
    "offline_sent_bytes", "setup_s", "setup_sent_bytes", "peak_rss_bytes",
)  # fmt: skip


def to_csv(view: View) -> str:
    """Return the cells of a view, one line each under a heading."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(cell) for cell in view.cells)
    return out.getvalue()


def _row(cell: Cell) -> dict[str, Any]:
    own = {"online_s", "agreeing"}
    same = {name: getattr(cell, name) for name in COLUMNS if hasattr(cell, name) and name not in own}
    row: dict[str, Any] = {
        **same, "run": cell.run_id, "machine": cell.machine_key, "server_sent_bytes": cell.server_bytes,
        "client_sent_bytes": cell.client_bytes, "max_abs_logit_error": cell.logit_error,
    }  # fmt: skip
    if cell.score:
        row |= {"accuracy_percent": cell.score.percent, "accuracy_n": cell.score.n}
        row |= {"accuracy_origin": cell.score.origin}
    if cell.private:
        row |= {"private_accuracy_percent": cell.private.percent, "private_accuracy_n": cell.private.n}
    if cell.agreeing:
        row |= {"agreeing": cell.agreeing[0], "compared": cell.agreeing[1]}
    if cell.usable and cell.online:
        row |= {"online_s": cell.online.point, "online_low_s": cell.online.low, "online_high_s": cell.online.high}
        row |= {"sessions": cell.online.n_sessions, "inferences": cell.online.n}
        row |= {f"{kind}_s": value for kind, value in cell.kinds.items()} if cell.sites else {}
    if cell.offline:
        row |= {"offline_s": cell.offline.seconds, "offline_sent_bytes": cell.offline.sent_bytes}
    if cell.setup:
        row |= {"setup_s": cell.setup.seconds, "setup_sent_bytes": cell.setup.sent_bytes}
    return row
