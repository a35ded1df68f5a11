"""What a sign alone tells the client, by the formula of its rounding: the figures of docs/delphi.md."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_masked_attack import explained, shallow
from torch import nn

from pibench.mpc.spec import spec_of

RUNS, FRACTION_BITS, PART_BITS = 3000, 16, 46


def attacked(dropped_bits: int) -> tuple[float, float, int, int]:
    """Return AUC, R^2, and how many ReLUs a client finds of those that are active, from one image many times."""
    torch.manual_seed(1)
    rng, unit = np.random.default_rng(1), 2**FRACTION_BITS
    net = shallow(nn.ReLU())
    image, conv, head = torch.randn(1, 1, 6, 6), net[0], net[-1]
    weight, bias = (conv.weight * unit).round().double(), (conv.bias * unit**2).round().double()
    x = nn.functional.conv2d((image * unit).round().double(), weight, bias).flatten().long().detach().numpy()
    part = rng.integers(0, 1 << PART_BITS, (RUNS, x.size))  # the client's own
    y = np.where(x >= 0, (x >> FRACTION_BITS) + (part % unit < x % unit), 0)
    if dropped_bits:
        y = np.where((x >= 0) & (x < 1 << dropped_bits) & (part % (1 << dropped_bits) > x), 0, y)
    logits = y @ (head.weight.double() * unit).round().long().detach().numpy().T
    logits = (logits - rng.integers(0, unit, logits.shape) >> FRACTION_BITS) + 1
    low = (part % (1 << max(FRACTION_BITS, dropped_bits))).astype(np.float64)
    seen, told = ((v - v.mean(0)) / v.std(0) for v in (low, logits.astype(np.float64)))
    found, active = np.abs(seen.T @ told / RUNS).max(1), x >= 0
    auc = float((found[active][:, None] > found[~active][None]).mean())
    return auc, explained(low, logits.astype(np.float64)), int((found > 4.5 / RUNS**0.5).sum()), int(active.sum())


def test_a_sign_alone_tells_which_relus_are_active_and_its_trust_says_so() -> None:
    auc, r2, found, active = attacked(0)
    assert auc == pytest.approx(0.90, abs=0.02)
    assert r2 == pytest.approx(0.09, abs=0.02)
    assert (found, active) == (19, 34)
    assert attacked(28)[1] == pytest.approx(0.65, abs=0.02)
    delphi = spec_of("delphi")
    assert "rounding" in delphi.arrangement({"sign_only": True}).trust.line
    assert "rounding" not in delphi.arrangement({}).trust.line
