"""Checkpoints: what was saved comes back with its metadata; anything else is refused in words."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pibench.errors import DataError
from pibench.networks.build import build
from pibench.networks.card import load_card
from pibench.networks.spec import ResNetSpec
from pibench.run.prepare import prepare_card
from pibench.run.settings import Needs
from pibench.training.checkpoint import load_checkpoint, packed, read_metadata, save_checkpoint, unpacked
from pibench.training.metadata import differences
from pibench.training.runs import load_into

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    state = {**STATE, "mask": torch.tensor([True, False]), "count": torch.tensor(3)}
    save_checkpoint(tmp_path / "a" / "x.safetensors", state, {"card": "x", "accuracy": 12.5, "history": [{"epoch": 1}]})
    loaded, meta = load_checkpoint(tmp_path / "a" / "x.safetensors")
    assert all(torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype for name, value in state.items())
    assert meta == {"card": "x", "accuracy": 12.5, "history": [{"epoch": 1}]}
    assert read_metadata(tmp_path / "a" / "x.safetensors") == meta


def test_strided_and_shared_tensors_are_saved(tmp_path: Path) -> None:
    base = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "x.safetensors", {"a": base, "b": base, "c": base[:, 1]}, {})
    loaded, _ = load_checkpoint(tmp_path / "x.safetensors")
    assert torch.equal(loaded["b"], base)
    assert torch.equal(loaded["c"], base[:, 1])


def test_others_may_read_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", STATE, {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, STATE, {"n": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(DataError, match="No space left on device"):
        save_checkpoint(path, STATE, {"n": 2})
    assert read_metadata(path) == {"n": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


@given(st.binary(max_size=64))
def test_damaged_files_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    path.write_bytes(data)
    for read in (load_checkpoint, read_metadata):
        with contextlib.suppress(DataError):  # and nothing else
            read(path)


def test_cut_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, STATE, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="not a readable safetensors file"):
        load_checkpoint(path)
    with pytest.raises(DataError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_half_precision_goes_into_a_float32_module(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.safetensors", {name: value.half() for name, value in STATE.items()}, {"card": "x"})
    module = nn.Linear(3, 2)
    assert load_into(module, tmp_path / "x.safetensors") == {"card": "x"}
    assert torch.equal(module.weight, STATE["weight"])
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({**STATE, "bias": torch.zeros(3)}, "bias is 3, not 2"),
        ({"weight": STATE["weight"]}, "bias is missing"),
        ({**STATE, "more": torch.zeros(1)}, r"more \(1\) is unknown"),
    ],
)
def test_checkpoints_of_another_shape_are_refused(tmp_path: Path, state: dict[str, torch.Tensor], message: str) -> None:
    save_checkpoint(tmp_path / "x.safetensors", state, {})
    with pytest.raises(DataError, match=message):
        load_into(nn.Linear(3, 2), tmp_path / "x.safetensors")


SPEC = ResNetSpec.model_validate(
    {"family": "resnet", "base_width": 4, "multipliers": [2], "blocks": [1, 1], "classes": 3, "input": [1, 8, 8]}
)
# what changes no tensor's shape
SHAPELESS: list[dict[str, Any]] = [{"culled": [2]}, {"thinning": "bottom"}, {"stem_stride": 2}, {"stem_relu": False}]


def changed(**fields: Any) -> ResNetSpec:
    return ResNetSpec.model_validate({**SPEC.model_dump(), **fields})


@pytest.mark.parametrize("short", [True, False], ids=["as-trained", "as-reduced"])
@pytest.mark.parametrize("fields", SHAPELESS, ids=lambda fields: next(iter(fields)))
def test_checkpoints_of_another_function_are_refused(tmp_path: Path, short: bool, fields: dict[str, Any]) -> None:
    path, other = tmp_path / "x.safetensors", changed(**fields)
    save_checkpoint(path, build(other).state_dict(), {"network": other.model_dump(exclude_defaults=short)})
    load_into(build(other), path, other)
    load_into(build(SPEC), path)  # nobody says what it should be
    [(name, value)] = fields.items()
    with pytest.raises(DataError, match=re.escape(f"{name} is {value}, not {getattr(SPEC, name)}")):
        load_into(build(SPEC), path, SPEC)


def test_a_run_refuses_given_weights_of_another_function(tmp_path: Path) -> None:
    card = load_card("digits-culled")
    other = type(card.network).model_validate({**card.network.model_dump(), "culled": []})
    save_checkpoint(tmp_path / "x.safetensors", build(other).state_dict(), {"network": other.model_dump()})
    with pytest.raises(DataError, match=r"culled is \[\], not"):
        prepare_card(card, tmp_path, Needs(1, 1, 0), lambda _: None, tmp_path / "x.safetensors")


def test_networks_are_told_apart_by_what_they_compute() -> None:
    one, same = changed(culled=[1, 2]), {"network": changed(culled=[2, 1]).model_dump()}
    assert differences(same, one) == {}
    assert differences({}, one) == {}  # made elsewhere
    assert differences({"network": {"family": "vgg"}}, one) == {"family": ("vgg", "resnet")}
    assert differences({"network": "?"}, one) == {"family": (None, "resnet")}
    assert differences({"network": {**one.model_dump(), "later": 7}}, one) == {"later": (7, None)}


@given(st.integers(0, 1000))
def test_eight_bits_are_off_by_half_a_step_of_their_row_at_most(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 3, 2, 2, generator=rng) * torch.tensor([0.0, 1e-3, 1.0, 50.0, 3.0])[:, None, None, None]
    back = unpacked(packed({"w": weight}, "int8"))
    steps = weight.flatten(1).abs().amax(1) / 127
    assert list(back) == ["w"]
    assert bool(((back["w"] - weight).flatten(1).abs().amax(1) <= steps / 2 * 1.001 + 1e-12).all())


def test_smaller_forms_leave_masks_and_vectors_alone(tmp_path: Path) -> None:
    state = {"w": torch.randn(4, 3), "bn": torch.randn(4), "mask": torch.rand(4, 3) > 0.5}
    for form, dtype in (("float16", torch.float16), ("int8", torch.int8)):
        small = packed({**state, "bn.num_batches_tracked": torch.tensor(3)}, form)  # type: ignore[arg-type]
        assert small["w"].dtype == dtype
        assert torch.equal(small["bn"], state["bn"])
        assert torch.equal(small["mask"], state["mask"])
        assert "bn.num_batches_tracked" not in small
        save_checkpoint(tmp_path / "x.safetensors", small, {})
        assert torch.allclose(load_checkpoint(tmp_path / "x.safetensors")[0]["w"].float(), state["w"], atol=0.02)
