"""Networks of the mask papers from their own kind of checkpoint, in private: their count, and plaintext's classes.

SNL (Cho et al., ICML 2022) keeps a gate of 0 or 1 a pixel in `alphas`; AutoReP (Peng et al., ICCV 2023) a ReLU where
`alpha_aux` is positive and a polynomial of degree 2 elsewhere. Both lie in a ResNet of basic blocks.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from pibench.cli import main

CODE = """
import torch
import torch.nn.functional as F
from torch import nn


class Gated(nn.Module):  # SNL's
    def __init__(self, shape):
        super().__init__()
        self.alphas = nn.Parameter(torch.ones(1, *shape))

    def forward(self, x):
        gate = self.alphas.expand_as(x)
        return F.relu(x) * gate + (1 - gate) * x


class Indicator(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0).float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Replaced(nn.Module):  # AutoReP's
    def __init__(self, shape):
        super().__init__()
        self.alpha_aux = nn.Parameter(torch.ones(1, *shape))
        self.poly_para = nn.Parameter(torch.zeros(3, shape[0], 1, 1))
        self.scale_x, self.scale_x2 = 1.0, 0.1

    def forward(self, x):
        on = Indicator.apply(self.alpha_aux)
        square, linear, constant = self.poly_para
        poly = self.scale_x2 * square * x.pow(2) + self.scale_x * linear * x + constant
        return on * F.relu(x) + (1 - on) * poly


class Block(nn.Module):
    def __init__(self, act, inner, outer, size, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outer), nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.shortcut = nn.Sequential()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        self.act1, self.act2 = act((outer, size, size)), act((outer, size, size))

    def forward(self, x):
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return self.act2(out)


class ResNet(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.conv1, self.bn1, self.act = nn.Conv2d(1, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), act((4, 8, 8))
        self.layer1, self.layer2 = Block(act, 4, 4, 8, 1), Block(act, 4, 8, 4, 2)
        self.linear = nn.Linear(8, 10)

    def forward(self, x):
        out = self.layer2(self.layer1(self.act(self.bn1(self.conv1(x)))))
        return self.linear(F.avg_pool2d(out, 4).view(out.size(0), -1))


def snl():
    return ResNet(Gated)


def autorep():
    return ResNet(Replaced)
"""


def filled(module: torch.nn.Module, seed: int) -> int:
    """Give a network what training would have left, and return how many ReLUs its authors would count."""
    generator, kept = torch.Generator().manual_seed(seed), 0
    for name, value in module.state_dict().items():
        if name.endswith("alphas"):
            value.copy_(torch.rand(value.shape, generator=generator) < 0.3)
            kept += int(value.sum())
        elif name.endswith("alpha_aux"):
            value.normal_(-0.5, 1, generator=generator)
            kept += int((value > 0).sum())
        elif name.endswith("poly_para"):
            value.normal_(0.3, 0.3, generator=generator)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.is_floating_point() and value.dim() == 1:
            value.normal_(0.5 if name.endswith("weight") else 0, 0.2, generator=generator)
    return kept


@pytest.mark.timeout(150)
def test_masked_networks_of_the_papers_from_their_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ownmasked.py").write_text(CODE)
    (tmp_path / "small.yaml").write_text(
        "name: small\nnetworks: [digits-tiny]\nprotocols: [masked]\nsessions: 1\ninferences: 4\nwarmups: 0\n"
        "batches: [3]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = importlib.import_module("ownmasked")
    snl, autorep = own.snl(), own.autorep()
    kept = {"snl": filled(snl, 1), "autorep": filled(autorep, 2)}
    parallel = {f"module.{name}": value for name, value in snl.state_dict().items()}
    torch.save({"snet": parallel, "epoch": 9, "best_acc": 71.0}, tmp_path / "snl.pth.tar")
    torch.save({"state_dict": autorep.state_dict(), "arch": "resnet"}, tmp_path / "autorep.pth")
    command = ["run", "small.yaml", "-q", "--input", "1,8,8", "--dataset", "digits", "--record", "it.json"]
    for name, file in (("snl", "snl.pth.tar"), ("autorep", "autorep.pth")):
        command += ["--model", f"ownmasked:{name}", "--weights", file, "--label", f"my-{name}", "--method", name]
    assert main(command) == 0
    for case in json.loads((tmp_path / "it.json").read_text())["cases"]:
        network = case["network"]
        assert network["relu_count"] == kept[network["method"]]
        (session,) = case["sessions"]
        assert session["correctness"]["agreeing"] == session["correctness"]["n"] == 12
        module = {"snl": snl, "autorep": autorep}[network["method"]]
        assert network["plain_accuracy"]["correct"] == correct(module)


def correct(module: torch.nn.Module) -> int:
    """Return how many held-out digits PyTorch's own module gets right."""
    from pibench.training.data import load_dataset, normalise

    data = load_dataset("digits", train=False)
    with torch.no_grad():
        logits = module.eval()(normalise(data.test_images, data.mean, data.std))
    return int((logits.argmax(1) == data.test_labels).sum())
