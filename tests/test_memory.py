"""A case that will not fit is refused beforehand, with its estimate."""

import pytest

from pibench.errors import PartyError
from pibench.run.memory import PARTIES, PROCESS_BYTES, estimate_bytes, free_bytes, refuse_what_will_not_fit

DECLARED = {"dealer_bytes": 1_000_000_000, "offline_server_bytes": 0, "offline_client_bytes": 7}


def test_material_counts_for_every_batch_that_is_kept():
    assert estimate_bytes(DECLARED, 1000, 5) - estimate_bytes(DECLARED, 1000, 2) == 3_000_000_000
    assert estimate_bytes(dict.fromkeys(DECLARED, 0), 0, 5) == PARTIES * PROCESS_BYTES


def test_what_does_not_fit_is_refused_with_its_estimate():
    refuse_what_will_not_fit(DECLARED, 0, 3, free=10**10)
    with pytest.raises(
        PartyError, match=r"at least 10\.5 GB \(10\.0 GB of material for 10 batches\), 10\.0 GB are free"
    ):
        refuse_what_will_not_fit(DECLARED, 0, 10, free=10**10)


def test_what_is_free_is_the_least_of_machine_and_group(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:    2048 kB\n")
    assert free_bytes(tmp_path / "meminfo", tmp_path) == 2048 << 10
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert free_bytes(tmp_path / "meminfo", tmp_path) == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(tmp_path / "meminfo", tmp_path) == 2048 << 10
    assert free_bytes(tmp_path / "nothing", tmp_path / "nothing") is None
