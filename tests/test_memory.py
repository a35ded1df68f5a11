"""A case that will not fit is refused beforehand, with its estimate."""

import pytest

from pibench.errors import PartyError
from pibench.mpc.protocol import Cost, held_bytes
from pibench.mpc.spec import load, spec_of
from pibench.run.memory import PARTIES, PROCESS_BYTES, RING_COPIES, estimate_bytes, free_bytes, refuse_what_will_not_fit

DEALT = Cost(dealer_bytes=1_000_000_000, offline_client_bytes=7)


def test_material_counts_for_every_batch_that_is_kept():
    assert held_bytes(DEALT, DEALT, 5, {}) - held_bytes(DEALT, DEALT, 2, {}) == 2 * 3_000_000_000
    assert estimate_bytes(0, 10) == PARTIES * PROCESS_BYTES + 10 * RING_COPIES


# (sent a batch, of that by the largest operation, parameters, batches) and the resident bytes of both parties, the
# pages shared with the process that they were forked from (200 MB) counted once: measured on minionn-c10,
# drd-c100-57k and a network of overlapping max pools.
MEASURED = [
    ("crypten", 42.4e6, 15.2e6, 164_954, 1, 415e6),
    ("crypten-cached", 42.4e6, 15.2e6, 164_954, 4, 1_022e6),
    ("crypten-cached", 38.5e6, 7.6e6, 2_818_340, 4, 857e6),
    ("crypten-cached", 520e6, 440e6, 202_570, 1, 2_684e6),
    ("crypten-cached", 520e6, 440e6, 202_570, 4, 7_946e6),
]


@pytest.mark.parametrize(("protocol", "sent", "largest", "parameters", "batches", "resident"), MEASURED)
def test_estimates_for_crypten_are_within_a_factor_of_one_and_a_half(
    protocol, sent, largest, parameters, batches, resident
):
    held = load(spec_of(protocol).holds)(Cost(server_bytes=int(sent)), Cost(server_bytes=int(largest)), batches, {})
    assert 1 / 1.5 < estimate_bytes(held, parameters) / resident < 1.5


def test_what_does_not_fit_is_refused_with_its_estimate():
    refuse_what_will_not_fit(6 * 10**9, 0, 3, free=10**10)
    with pytest.raises(
        PartyError, match=r"about 20\.5 GB \(20\.0 GB of material and working memory for 10 batches\), 10\.0 GB are"
    ):
        refuse_what_will_not_fit(2 * 10**10, 0, 10, free=10**10)


def test_what_is_free_is_the_least_of_machine_and_group(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable:    2048 kB\n")
    assert free_bytes(tmp_path / "meminfo", tmp_path) == 2048 << 10
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert free_bytes(tmp_path / "meminfo", tmp_path) == 600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(tmp_path / "meminfo", tmp_path) == 2048 << 10
    assert free_bytes(tmp_path / "nothing", tmp_path / "nothing") is None
