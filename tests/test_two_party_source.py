"""Material without a third party: right answers for every operation, declared costs, messages that say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import masked_pair
import networks_for_tests as networks
import numpy as np
import pytest
import torch
from masked_pair import run_masked
from scipy import stats
from test_protocol_masked import ULP, close, identity_relu

from pibench.errors import PibenchError, TransportError
from pibench.mpc.masked.gadgets.relu_truth_tables import Tables
from pibench.mpc.masked.sources import two_party
from pibench.mpc.masked.sources.source import Material
from pibench.mpc.masked.sources.transferred import sign_layout
from pibench.mpc.masked.total_cost import operation_cost, planned
from pibench.mpc.protocol import CLIENT, SERVER, Cost

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", networks.everything())
def test_every_operation_agrees_with_plaintext(name: str, batch: int) -> None:
    program, weights = networks.program_of(name)
    images = [torch.randn(batch, *networks.SHAPE)]
    close(run_masked(program, weights, images, provider="two-party"), program, weights, images)


@pytest.mark.parametrize("options", [{"range_bits": 8}, {"range_bits": 16}])
@pytest.mark.parametrize("name", ["residual", "max pool"])
def test_every_choice_gives_the_same_answers(name: str, options: dict[str, Any]) -> None:
    program, weights = networks.program_of(name)
    images = [torch.randn(2, *networks.SHAPE)]
    close(run_masked(program, weights, images, provider="two-party", **options), program, weights, images)


def test_relu_is_within_one_unit_over_its_whole_range() -> None:
    n = 20_000
    program, weights = identity_relu(n)
    spread = torch.rand(n, dtype=torch.float64) * 12
    x = torch.sign(torch.randn(n)) * torch.minimum(2.0**spread, torch.tensor(2.0**12 - 1))
    x[:6] = torch.tensor([0.0, ULP, -ULP, 2.0**12 - 1, -(2.0**12) + 1, -0.5])
    image = (x.double() * 2**16).round().div(2**16).view(1, 1, 1, n)
    outcome = run_masked(program, weights, [image], provider="two-party")
    error = (outcome.logits[0].double() - image.clamp(min=0)).abs().max().item()
    assert error <= ULP * 1.0001 + 2.0**-12  # logits come as float32


@pytest.mark.parametrize("name", ["residual", "culled", "poly"])
def test_declared_cost_is_what_the_transport_counts(name: str) -> None:
    program, weights = networks.program_of(name)
    outcome = run_masked(program, weights, [torch.randn(2, *networks.SHAPE)], provider="two-party")
    options = {"provider": "two-party"}
    declared = sum((operation_cost(program, op, 2, options) for op in program), Cost())
    server, client = outcome.offline[SERVER].total, outcome.offline[CLIENT].total
    assert (server.sent_bytes, client.sent_bytes) == (declared.offline_server_bytes, declared.offline_client_bytes)
    assert server.rounds == client.rounds == declared.offline_rounds == 3
    assert declared.dealer_bytes == 0
    asked = [outcome.setup[rank].total for rank in (SERVER, CLIENT)]
    assert [t.sent_bytes for t in asked] == [declared.setup_server_bytes, declared.setup_client_bytes]
    assert [t.rounds for t in asked] == [declared.setup_rounds] * 2
    for op in program:
        want = operation_cost(program, op, 2, options).offline_server_bytes
        parts = [t for (_, _, site), t in outcome.offline[SERVER].parts.items() if site == (op.site or op.name)]
        assert sum(part.sent_bytes for part in parts) == want, op.name


def test_rounds_do_not_grow_with_depth() -> None:
    options = {"provider": "two-party"}
    found = []
    for name in ("residual", "culled"):
        program, _ = networks.program_of(name)
        found.append(sum((operation_cost(program, op, 1, options) for op in program), Cost()).offline_rounds)
    assert found == [3, 3]


def test_a_large_batch_goes_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a party could not hold all at once: the same answers, two messages a window and the client's last."""
    monkeypatch.setattr(two_party, "WINDOW_BYTES", 1)
    program, weights = networks.program_of("residual")
    images = [torch.randn(2, *networks.SHAPE)]
    outcome = run_masked(program, weights, images, provider="two-party")
    close(outcome, program, weights, images)
    declared = sum((operation_cost(program, op, 2, {"provider": "two-party"}) for op in program), Cost())
    assert outcome.offline[CLIENT].total.rounds == declared.offline_rounds > 9


class Listening(masked_pair.Tapped):
    """Keeps all that its owner heard, offline too."""

    everything: ClassVar[list[Listening]] = []

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.everything.append(self)
        self.all_heard: list[bytes] = []

    def recv_into(self, into: Any) -> None:
        super().recv_into(into)
        self.all_heard.append(self.heard[-1])


def test_what_each_party_receives_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image 24 times: choices, corrections, what is told, and all that is sent online but the logits."""
    monkeypatch.setattr(masked_pair, "Tapped", Listening)
    Listening.everything = []
    n, times = 1984, 24
    program, weights = identity_relu(n)
    plan, gadgets = planned(program, 1, {"provider": "two-party"})
    outcome = run_masked(program, weights, [torch.full((1, 1, 1, n), 1.25)] * times, provider="two-party")
    layout = sign_layout(next(g for g in gadgets.values() if isinstance(g, Tables)))
    moved, told, back = layout.sizes(n)
    width = plan.windows["conv"].told_bytes
    heard = {len(data): b"" for channel in Listening.everything for data in channel.all_heard}
    for data in (data for channel in Listening.everything for data in channel.all_heard):
        heard[len(data)] += data
    for size in (4 * n * layout.asked, back, n * width, moved, told):
        counts = np.bincount(np.frombuffer(heard[size], np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6, size
    for rank in (SERVER, CLIENT):
        for k in range(3):
            data = np.frombuffer(b"".join(heard[k] for heard in outcome.heard[rank]), np.uint8)
            values = int(data.max()) + 1  # six or seven bits a byte in some messages
            assert values in (64, 128, 256)
            assert stats.chisquare(np.bincount(data, minlength=values)).pvalue > 1e-6


def test_kept_material_serves_a_later_run(tmp_path: Path) -> None:
    """Both parties' halves on disk; keys and transfers are of one connection and are never kept."""
    program, weights = networks.program_of("residual")
    images = [torch.randn(1, *networks.SHAPE)]
    options = {"provider": "two-party", "keep_dir": str(tmp_path)}
    close(run_masked(program, weights, images, **options, deal_ahead=1), program, weights, images)
    kept = list(tmp_path.rglob("item-*"))
    assert len(kept) == 2
    outcome = run_masked(program, weights, images, **options)
    close(outcome, program, weights, images)
    assert outcome.offline[SERVER].total.sent_bytes < 100  # names of items alone
    assert not list(tmp_path.rglob("item-*"))


def test_a_peer_that_stops_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopping(two_party.TwoPartyClient):
        def make(self, inferences: int) -> Iterator[Material]:
            self.party.peer.close()
            return iter(())

    monkeypatch.setattr(two_party, "CLIENT", Stopping)
    program, weights = networks.program_of("residual")
    with pytest.raises(TransportError):
        run_masked(program, weights, [torch.randn(1, *networks.SHAPE)], provider="two-party")


def test_parties_of_different_programs_do_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(two_party.TwoPartyClient):
        def __init__(self, plan: Any, gadgets: Any, party: Any) -> None:
            program, _ = networks.program_of("culled")
            super().__init__(*planned(program, 1, {"provider": "two-party"}), party)

    monkeypatch.setattr(two_party, "CLIENT", Other)
    program, weights = networks.program_of("residual")
    with pytest.raises(PibenchError):
        run_masked(program, weights, [torch.randn(1, *networks.SHAPE)], provider="two-party")
