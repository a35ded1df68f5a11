"""`pibench party --deal --listen`: deals for sessions of two other hosts, which both dial it.

It is told the public structure of the network and nothing else: operations, shapes, masks. Whoever leads the run calls
it, as it calls the server's host, and has one dealer at a time.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from pibench.errors import UsageError
from pibench.hosts.asked import PackedMask, structure
from pibench.hosts.hosts import accepted
from pibench.hosts.lender import Lender
from pibench.session.job import Job


def structure_of(job: Job) -> dict[str, Any]:
    """Return what the dealer's host is told of the network of a job."""
    from safetensors.numpy import load_file

    masks = load_file(job.masks) if job.masks else {}
    packed = {name: {"shape": list(mask.shape), "bits": _packed(mask)} for name, mask in masks.items()}
    return {"program": job.program, "masks": packed}


def _packed(mask: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.packbits(mask.astype(bool)).tobytes()).decode()


def _unpacked(mask: PackedMask) -> np.ndarray[Any, Any]:
    count = math.prod(mask.shape)
    try:
        data = base64.b64decode(mask.bits, validate=True)
    except ValueError as error:
        raise UsageError("the job's network is malformed: a mask is no base64") from error
    if len(data) != -(-count // 8):
        raise UsageError("the job's network is malformed: a mask has another size than its shape says")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count).reshape(mask.shape)


class DealingHost(Lender):
    """Waits for callers, and deals for one session at a time."""

    def _job(self, values: dict[str, Any]) -> tuple[Job, str]:
        job = accepted(values, self._here(), {}, role="dealer")
        asked, masks = structure(job.remote), None
        if asked.masks:
            masks = self._write({name: _unpacked(mask) for name, mask in asked.masks.items()})
        return dataclasses.replace(job, program=asked.program, masks=masks), "dealing"

    def _write(self, masks: dict[str, np.ndarray[Any, Any]]) -> str:
        """Write the masks for the process that deals; one session's take the place of the last one's."""
        from safetensors.numpy import save_file

        path = Path(self._folder) / "masks.safetensors"
        save_file(masks, path)
        return str(path)
