"""Material kept on disk serves a later run of the same program and model, once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks_for_tests as networks
import numpy as np
import pytest
import torch
from masked_pair import Outcome, run_masked
from two_threads import channel_pair

from pibench.errors import MaterialError, TransportError
from pibench.links.meter import Meter
from pibench.lowering.program import Weights
from pibench.lowering.reference import evaluate
from pibench.mpc.masked import protocol as masked
from pibench.mpc.masked.sources.counter import Counter
from pibench.mpc.masked.sources.shelf import Shelf
from pibench.mpc.protocol import CLIENT, SERVER, Party

pytestmark = pytest.mark.timeout(120)


def run(
    folder: Path, count: int, ahead: int = 0, name: str = "residual",
    change: Callable[[Weights], Weights] = dict, **options: Any,
) -> Outcome:  # fmt: skip
    program, weights = networks.program_of(name)
    weights = change(weights)
    images = [torch.randn(1, *networks.SHAPE) for _ in range(count)]
    outcome = run_masked(program, weights, images, keep_dir=str(folder), deal_ahead=ahead, **options)
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


def halved(weights):
    return {name: w * 0.5 for name, w in weights.items()}


def other_biases(weights):
    return {name: w + 1.0 if w.dim() == 1 else w for name, w in weights.items()}


def other_constants(weights):
    """Coefficients c2, c1 and another c0 a channel."""
    c0 = torch.tensor([[0.0], [0.0], [1.0]])
    return {name: w + c0 if w.shape == (3, 4) else w for name, w in weights.items()}


@pytest.mark.parametrize(
    ("name", "change"), [("residual", halved), ("residual", other_biases), ("poly", other_constants)]
)
def test_another_model_does_not_use_it(tmp_path, name, change):
    run(tmp_path, 1, ahead=1, name=name)
    before = items(tmp_path)
    outcome = run(tmp_path, 1, name=name, change=change)
    assert outcome.offline[SERVER].total.received_bytes > 500
    assert not before["server"] & items(tmp_path)["server"]


def test_what_the_server_dealt_does_not_serve_who_trusts_a_dealer(tmp_path):
    run(tmp_path, 1, ahead=1, provider="first-party")
    before = items(tmp_path)
    run(tmp_path, 1, provider="dealer")
    assert items(tmp_path) == before
    assert before["server"]


def test_another_plan_of_the_same_program_does_not_use_it(tmp_path, monkeypatch):
    run(tmp_path, 1, ahead=1)
    before = items(tmp_path)
    plan_program = masked.plan_program

    def otherwise(program, options, batch):
        plan = plan_program(program, options, batch)
        return replace(plan, values={**plan.values, plan.output.name: replace(plan.output, bits=plan.output.bits + 1)})

    monkeypatch.setattr(masked, "plan_program", otherwise)
    run(tmp_path, 1)
    assert items(tmp_path) == before


def test_an_item_missing_on_one_side_is_not_used(tmp_path):
    run(tmp_path, 1, ahead=1)
    next(tmp_path.glob("*/client/item-*")).unlink()
    assert run(tmp_path, 1).offline[CLIENT].total.sent_bytes > 1000


def test_an_item_missing_on_one_side_does_not_keep_others_from_being_used(tmp_path):
    run(tmp_path, 1, ahead=2)
    oldest, newest = sorted(tmp_path.glob("*/server/item-*"), key=lambda path: path.stat().st_mtime_ns)
    os.unlink(next(tmp_path.glob(f"*/client/{oldest.name}")))
    run(tmp_path, 1)
    assert items(tmp_path)["server"] == {newest.name}
    assert run(tmp_path, 1).offline[CLIENT].total.sent_bytes < 1000
    assert items(tmp_path) == {"server": set(), "client": set()}


@pytest.mark.parametrize("announced", [-1, 2, 1 << 36])
def test_a_client_believes_no_count_of_items_that_it_did_not_ask_for(tmp_path, announced):
    left, right = channel_pair((Meter(), Meter()), timeout_s=5)
    program, _ = networks.program_of("residual")
    client = masked.MaskedProtocol(program, Party(CLIENT, left, Meter(), options={"keep_dir": str(tmp_path)}))
    right.send(np.array([announced], np.int64))
    with pytest.raises(TransportError, match=f"offers {announced} kept items for 1 inferences"):
        client.source._choose(1)


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


def copy_back(folder: Path, copy: Path, role: str) -> None:
    """Put back what one party's folder held when it was copied."""
    (live,), (kept,) = folder.glob(f"*/{role}"), copy.glob(f"*/{role}")
    shutil.rmtree(live)
    shutil.copytree(kept, live)


@pytest.mark.parametrize("roles", [("server", "client"), ("server",), ("client",)])
def test_a_restored_folder_brings_nothing_back(tmp_path, roles):
    """Of both parties, items would serve twice: two masked images would differ by exactly the images' difference."""
    folder, copy = tmp_path / "kept", tmp_path / "copy"
    run(folder, 1, ahead=2)
    shutil.copytree(folder, copy)
    run(folder, 1)
    for role in roles:
        copy_back(folder, copy, role)
    told = run(folder, 1).offline[CLIENT].total.sent_bytes
    assert told > 1000  # fresh material
    assert not items(folder)["server"]  # what the client still has, the server never offers again


@pytest.mark.parametrize("moved", ["folder", "state"])
def test_a_copy_made_before_anything_was_taken_is_not_served_elsewhere(moved, tmp_path, monkeypatch):
    """Under another name, or with a state that starts anew, its items would be taken a second time."""
    folder, copy = tmp_path / "kept", tmp_path / "copy"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run(folder, 1, ahead=2)
    waiting = items(folder)["server"]
    assert waiting
    shutil.copytree(folder, copy)
    run(folder, 1)
    if moved == "state":
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
    told = run(copy if moved == "folder" else folder, 1).offline[CLIENT].total.sent_bytes
    assert told > 1000, "fresh material"
    assert not items(copy if moved == "folder" else folder)["server"] & waiting


def test_a_party_whose_state_and_folder_are_set_back_is_told_by_its_peer(tmp_path, monkeypatch):
    folder, copy, state = tmp_path / "kept", tmp_path / "copy", tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    run(folder, 1, ahead=2)
    shutil.copytree(folder, copy)
    (client,) = folder.glob("*/client")
    before = Counter(client)._outside
    value = before.read_text() if before.exists() else ""
    run(folder, 1)
    copy_back(folder, copy, "client")
    before.write_text(value or "0")
    assert Counter(client).agrees
    assert run(folder, 1).offline[CLIENT].total.sent_bytes > 1000
    assert items(folder) == {"server": set(), "client": set()}


def test_what_a_killed_process_left_is_swept(tmp_path):
    shelf = Shelf(tmp_path, "server", "a program")
    shelf.put(b"x" * 16, {"a": torch.ones(3).numpy()})
    (item,) = tmp_path.rglob("item-*")
    old, new = item.with_name("item-ab.taken"), item.with_name("item-cd.taken")
    for path in (old, new):
        shutil.copy(item, path)
    os.utime(old, (0, 0))
    Shelf(tmp_path, "server", "a program")
    assert (old.exists(), new.exists(), item.exists()) == (False, True, True)  # another run may be taking the newer one


def test_files_and_folders_are_on_disk_before_material_is_used(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda handle: order.append(os.readlink(f"/proc/self/fd/{handle}")))
    shelf = Shelf(tmp_path, "server", "a program")
    shelf.put(b"x" * 16, {"a": torch.ones(3).numpy()})
    (item,) = tmp_path.rglob("item-*")
    assert order[-2:] == [str(item.with_suffix(".part")), str(item.parent)]
    order.clear()
    plain = Shelf._load
    monkeypatch.setattr(Shelf, "_load", lambda self, path: order.append("read") or plain(self, path))
    shelf.take(b"x" * 16)
    assert order[0] == str(item.parent)
    assert order.index("read") == len(order) - 1
    assert len([path for path in order if "taken" in path]) == 1  # the folder's counter; the other has a hash's name
