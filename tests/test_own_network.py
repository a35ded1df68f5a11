"""A person's own network: factories, checkpoints of other projects, and whose error it is when something fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from pibench.cli import main
from pibench.errors import DataError, UsageError
from pibench.run.prepare import Prepared, prepare_instance, prepare_model
from pibench.run.settings import Needs, OwnModel
from pibench.training.foreign import fitted, read_state

CODE = """
import torch
from torch import nn

MASK = torch.arange(512).reshape(1, 8, 8, 8) % 3 == 0

class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.alphas = nn.Parameter(MASK.float())

    def forward(self, x):
        return self.alphas * x.relu() + (1 - self.alphas) * x

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.stem, self.head = nn.Conv2d(1, 8, 1), nn.Linear(512, 10)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(self.b(self.a(self.stem(x)).relu()).relu().flatten(1))

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))

def gated():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), Gate(), nn.Flatten(), nn.Linear(512, 10))

def hub():
    made = net()
    made[1].running_mean.copy_(torch.linspace(-1, 1, 8))
    made[1].running_var.copy_(torch.linspace(0.1, 9, 8))
    return made

def parallel():
    return nn.DataParallel(net())

def chatty():
    print("hello from the factory")
    return net()

def pair():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()
        def forward(self, x):
            return x.mean((2, 3)), self.net(x)
    return Two()

def needs_argument(width):
    return nn.Linear(width, 10)

def raises():
    raise RuntimeError("no licence")

def leaves():
    raise SystemExit(3)

def misspelt():
    return nn.Sequential(nn.Conv2D(1, 8, 3))
"""


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prepared]:
    """Prepare a factory of a file in the current folder."""
    (tmp_path / "owncase.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "owncase", raising=False)

    def run(factory: str, tell: Callable[[str], None] = lambda _: None, **options: Any) -> Prepared:
        shape = options.pop("shape", (1, 8, 8))
        needs = Needs(4, 20, 0)
        return prepare_model(OwnModel(f"owncase:{factory}", shape, **options), tmp_path / "out", needs, tell)

    return run


def made(name: str) -> nn.Module:
    module: nn.Module = getattr(sys.modules["owncase"], name)()
    return module


def logits(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(images).double()


def test_trained_statistics_of_a_factory_stay(prepared: Callable[..., Prepared]) -> None:
    found = prepared("hub", dataset="digits")
    torch.testing.assert_close(torch.from_numpy(found.reference), logits(made("hub"), found.images), atol=1e-5, rtol=0)
    assert found.network.plain_accuracy is not None
    fresh = prepared("net", dataset="digits")
    assert fresh.network.plain_accuracy is None
    assert "as the factory made them" in str(fresh.network.note)


FAULTS = {
    "raises": r"--model owncase:raises: RuntimeError: no licence \(owncase.py:\d+\)",
    "needs_argument": r"needs_argument.*TypeError: .*width.*\(owncase.py:\d+\)",
    "misspelt": r"AttributeError: .*Conv2D.*\(owncase.py:\d+\)",
    "leaves": r"SystemExit: 3 \(owncase.py:\d+\)",
    "nett": "no 'nett'",
}


@pytest.mark.parametrize("factory", FAULTS)
def test_a_factorys_error_is_the_users_with_file_and_line(factory: str, prepared: Callable[..., Prepared]) -> None:
    with pytest.raises(UsageError, match=FAULTS[factory]) as error:
        prepared(factory)
    assert "\n" not in error.value.what
    assert error.value.exit_status == 4


def test_an_input_of_another_shape_names_the_layer_with_batchnorm_too(prepared: Callable[..., Prepared]) -> None:
    with pytest.raises(UsageError, match=r"module 0: Conv2d fails on an input of shape \(3, 32, 32\)"):
        prepared("net", shape=(3, 32, 32))


def test_what_a_factory_prints_is_none_of_the_answer(prepared: Callable[..., Prepared], capsys: Any) -> None:
    prepared("chatty")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "hello from the factory" in shown.err


def test_the_output_that_is_chosen_is_measured(prepared: Callable[..., Prepared]) -> None:
    with pytest.raises(UsageError, match="returns 2 tensors"):
        prepared("pair")
    assert prepared("pair", output="1").reference.shape[1] == 10
    assert prepared("pair", output="0").reference.shape[1] == 1


def _written(tmp_path: Path, form: str) -> Path:
    state = {name: value.clone() for name, value in made("net").state_dict().items()}
    path = tmp_path / f"{form.strip('.')}.pth"
    if form in ("module.", "_orig_mod.", "state_dict.", "model.", "module._orig_mod."):
        path = path.with_suffix(".safetensors")
        save_file({form + name: value for name, value in state.items()}, path)
    elif form == "averaged":
        torch.save(torch.optim.swa_utils.AveragedModel(made("net")).state_dict(), path)
    elif form == "half":
        torch.save({name: v.half() if v.is_floating_point() else v for name, v in state.items()}, path)
    elif form == "tar":
        torch.save({"epoch": 3, "best": 0.7, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    elif form == "options":
        beside = {"args": argparse.Namespace(lr=0.1, arch="resnet"), "best": np.float64(71.3), "epoch": np.int64(9)}
        torch.save({"state_dict": state, "optimizer": {"state": {}}, **beside}, path)
    else:
        torch.save({form: state, "epoch": 3} if form != "plain" else state, path)
    return path


@pytest.mark.parametrize(
    "form",
    ["plain", "state_dict", "model", "net", "snet", "ema_weights", "options", "tar",
     "averaged", "half", "module.", "_orig_mod.", "state_dict.",
     "model.", "module._orig_mod."],
)  # fmt: skip
def test_checkpoints_of_others_are_read(form: str, prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    prepared("net")
    said: list[str] = []
    found = prepared("net", said.append, weights=_written(tmp_path, form))
    tolerance = 2e-3 if form == "half" else 1e-5
    expected = logits(made("net"), found.images)
    torch.testing.assert_close(torch.from_numpy(found.reference), expected, atol=tolerance, rtol=0)
    assert any("every name" in line for line in said) == (form == "tar" or form == "averaged" or "." in form)


def test_a_wrapped_network_takes_weights_of_either(prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    prepared("net")
    one = prepared("parallel", weights=_written(tmp_path, "plain"))
    assert one.weights_digest == prepared("net", weights=_written(tmp_path, "module.")).weights_digest


def test_tied_weights_are_in_a_file_once(prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    prepared("net")
    trained = made("Tied")
    save_model(trained, str(tmp_path / "tied.safetensors"))
    found = prepared("Tied", weights=tmp_path / "tied.safetensors")
    torch.testing.assert_close(torch.from_numpy(found.reference), logits(trained, found.images), atol=1e-5, rtol=0)


def test_a_gated_network_and_its_alphas(prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    prepared("net")
    trained = made("gated")
    trained[1].alphas.data.zero_()[0, :2] = 1  # type: ignore[index, union-attr, operator]
    torch.save({"snet": trained.state_dict(), "acc": 0.7}, tmp_path / "best.pth.tar")
    assert prepared("gated").network.relu_count == 171
    found = prepared("gated", weights=tmp_path / "best.pth.tar")
    assert found.network.relu_count == 128
    torch.testing.assert_close(torch.from_numpy(found.reference), logits(trained, found.images), atol=1e-5, rtol=0)


def _spoilt(change: Callable[[dict[str, torch.Tensor]], Any]) -> dict[str, torch.Tensor]:
    state = {name: value.clone() for name, value in nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).state_dict().items()}
    change(state)
    return state


REFUSED: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "0.weight holds numbers that are not finite": lambda s: s["0.weight"].fill_(float("nan")),
    "0.bias holds numbers that are not finite": lambda s: s["0.bias"].fill_(float("inf")),
    "0.weight is int8: there is no scale": lambda s: s.update({"0.weight": s["0.weight"].to(torch.int8)}),
    r"stem.weight \(2x1x3x3\) is unknown; 0.weight is missing": lambda s: s.update({"stem.weight": s.pop("0.weight")}),
    "0.bias is 3, not 2": lambda s: s.update({"0.bias": torch.zeros(3)}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_no_weight_is_refused_by_name(words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        fitted(_spoilt(REFUSED[words]), nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), tmp_path / "weights.pth")


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(nn.Linear(2, 2), path)  # the module itself: its class would have to be imported and called
    with pytest.raises(DataError, match=r"more than tensors.*\n.*state_dict"):
        read_state(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(DataError, match="there are no weights in it"):
        read_state(path)


def test_a_modules_owner_finds_it_as_it_was(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    prepare_instance("mine", module, torch.randn(4, 1, 8, 8), None, tmp_path, Needs(4, 0, 0))
    assert all(child.training for child in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_the_good_network_of_a_suite_is_measured_beside_a_faulty_one(
    prepared: Callable[..., Prepared], tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "two.yaml").write_text(
        "name: two\nnetworks:\n- {model: 'owncase:raises', input: [1, 8, 8]}\n"
        "- {model: 'owncase:net', input: [1, 8, 8]}\nprotocols: [plaintext]\nsessions: 1\ninferences: 1\nwarmups: 0\n"
    )
    assert main(["run", "two.yaml", "-q", "--record", "two.json"]) == 2
    shown = capsys.readouterr()
    assert "no licence (owncase.py:" in shown.out + shown.err
    text = (tmp_path / "two.json").read_text()
    assert '"status":"done"' in text.replace(" ", "")
