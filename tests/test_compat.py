"""CrypTen is imported on today's torch without a sound."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.timeout(100)
def test_import_is_silent_and_leaves_its_counters_off() -> None:
    code = (
        "from pibench.mpc.crypten.compat import crypten\n"
        "c = crypten()\n"
        "assert c.cfg.communicator.verbose is False and c.cfg.encoder.precision_bits == 16\n"
        "import logging\n"
        "logging.info('heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
