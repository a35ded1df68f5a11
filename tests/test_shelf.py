"""Material kept on disk serves a later run of the same program and model, once."""

from __future__ import annotations

from pathlib import Path

import networks_for_tests as networks
import pytest
import torch
from masked_pair import Outcome, run_masked

from pibench.errors import MaterialError
from pibench.lowering.reference import evaluate
from pibench.mpc.masked.shelf import Shelf
from pibench.mpc.protocol import CLIENT, SERVER

pytestmark = pytest.mark.timeout(120)


def run(folder: Path, count: int, ahead: int = 0, scale: float = 1.0) -> Outcome:
    program, weights = networks.program_of("residual")
    weights = {name: w * scale for name, w in weights.items()}
    images = [torch.randn(1, *networks.SHAPE) for _ in range(count)]
    outcome = run_masked(program, weights, images, keep_dir=str(folder), deal_ahead=ahead)
    for logits, image in zip(outcome.logits, images, strict=True):
        assert (logits - evaluate(program, weights, image)).abs().max() < 2**-8
    return outcome


def items(folder: Path) -> dict[str, set[str]]:
    return {role: {p.name for p in folder.glob(f"*/{role}/item-*")} for role in ("server", "client")}


def test_kept_material_is_used_in_place_of_fresh_material_and_is_gone(tmp_path):
    first = run(tmp_path, 1, ahead=2)
    kept = items(tmp_path)
    assert len(kept["server"]) == 2
    assert kept["server"] == kept["client"]
    second = run(tmp_path, 2)
    assert items(tmp_path) == {"server": set(), "client": set()}
    told = first.offline[CLIENT].total.sent_bytes
    assert second.offline[CLIENT].total.sent_bytes < 0.01 * told  # nothing but which items it has
    third = run(tmp_path, 1)  # nothing is left: dealt afresh
    assert third.offline[CLIENT].total.sent_bytes > 0.3 * told


def test_another_model_does_not_use_it(tmp_path):
    run(tmp_path, 1, ahead=1)
    before = items(tmp_path)
    outcome = run(tmp_path, 1, scale=0.5)
    assert outcome.offline[SERVER].total.received_bytes > 1000
    assert not before["server"] & items(tmp_path)["server"]


def test_an_item_missing_on_one_side_is_not_used(tmp_path):
    run(tmp_path, 1, ahead=1)
    next(tmp_path.glob("*/client/item-*")).unlink()
    assert run(tmp_path, 1).offline[CLIENT].total.sent_bytes > 1000


def test_an_item_is_deleted_before_it_is_used_and_never_comes_twice(tmp_path):
    shelf = Shelf(tmp_path, "server", "a program")
    shelf.put(b"x" * 16, {"a": torch.ones(3).numpy()})
    assert shelf.items() == [b"x" * 16]
    assert shelf.take(b"x" * 16)["a"].sum() == 3
    assert not list(tmp_path.rglob("item-*"))
    with pytest.raises(MaterialError, match="used already"):
        shelf.take(b"x" * 16)


def test_a_damaged_item_is_refused_by_name(tmp_path):
    shelf = Shelf(tmp_path, "client", "a program")
    shelf.put(b"y" * 16, {"a": torch.ones(3).numpy()})
    path = next(tmp_path.rglob("item-*"))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(MaterialError, match="is damaged"):
        shelf.take(b"y" * 16)


def test_programs_do_not_share_a_shelf(tmp_path):
    Shelf(tmp_path, "server", "one").put(b"z" * 16, {"a": torch.ones(1).numpy()})
    assert Shelf(tmp_path, "server", "two").items() == []


def test_kept_files_are_the_owners_alone(tmp_path):
    run(tmp_path, 1, ahead=1)
    for path in tmp_path.rglob("*.safetensors"):
        assert path.stat().st_mode & 0o077 == 0
