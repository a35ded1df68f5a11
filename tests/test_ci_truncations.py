"""ci/truncations.py in short form: it finds what is planted, and nothing else."""

from __future__ import annotations

import pytest
import torch
from ci_scripts import script

from pibench.mpc.masked.gadgets import extend, local

truncations = script("truncations")
pytestmark = pytest.mark.timeout(120)


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("name", truncations.NETWORKS)
def test_no_truncation_is_off(name):
    trial = truncations.trial(name, 20_000, drawn())
    assert (trial.off, trial.worst) == (0, 0)
    assert min(trial.at_bounds) > 0  # both ways of rounding occur, so the bounds are no wider than they must be


def test_planted_faults_are_found_in_every_kind_of_step():
    assert truncations.missed(drawn(), 10_000) == []


def test_both_parts_rounded_down_are_found(monkeypatch):
    """The protocol as it once was: low by up to two units."""
    for gadget in (extend, local):
        monkeypatch.setattr(gadget, "rounding_up", lambda shift: 0)
    assert truncations.trial("pair", 4_000, drawn()).off > 100
    assert truncations.trial("beside", 4_000, drawn()).off > 100


def test_a_planted_fault_that_is_missed_ends_it_before_any_figure(monkeypatch, capsys):
    monkeypatch.setattr(truncations, "bounds", lambda plan, weights, x: (x * 0 - 2**60, x * 0 + 2**60))
    assert truncations.main(["--values", "1000", "--planted", "1000"]) == 2
    assert capsys.readouterr().out.startswith("planted, and not found: too many in Tables")


def test_it_says_how_many_values_were_off(capsys):
    assert truncations.main(["--values", "5000", "--planted", "10000"]) == 0
    assert "5,000 values, 0 off" in capsys.readouterr().out
