"""Compiled kernels are compiled once a machine: a second process finds all of them on disk.

A kernel made in a function, over objects that differ from process to process, is compiled anew by each and kept each
time; nothing else would show it than seconds before every session.
"""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from numba.core.dispatcher import Dispatcher
from pibench.mpc.backends.choice import prepare_host
import torch
from pibench.training.winograd import convolve_in_tiles
prepare_host()
convolve_in_tiles(torch.ones(1, 8, 4, 4, requires_grad=True), torch.ones(8, 8, 3, 3)).sum().backward()
convolve_in_tiles(torch.ones(1, 8, 4, 4), torch.ones(8, 8, 3, 3, requires_grad=True)).sum().backward()
for name, module in list(sys.modules.items()):
    if name.startswith("pibench."):
        for found in vars(module).values():
            if isinstance(found, Dispatcher) and found.stats.cache_misses:
                print(found.__module__, found.__name__)
"""


def test_a_second_process_compiles_no_kernel() -> None:
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=110, check=True)
    assert done.stdout == ""
