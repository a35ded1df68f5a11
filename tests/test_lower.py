"""Lowering agrees with torch on every supported layer, names its sites, and refuses the rest clearly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pibench.errors import UnsupportedLayer, UsageError
from pibench.lowering.lower import lower
from pibench.lowering.program import Add, AvgPool, Conv, Flatten, Linear, MaxPool, Program, Relu
from pibench.lowering.reference import evaluate
from pibench.networks.activations import MaskedQuadratic, MaskedReLU, Quadratic


def masked(shape: tuple[int, ...], keep: float = 0.5) -> MaskedReLU:
    """Return a masked ReLU that keeps about this share of its sites."""
    module = MaskedReLU(shape)
    module.mask.copy_(torch.rand(shape) < keep)
    return module


def masked_quadratic(shape: tuple[int, ...]) -> MaskedQuadratic:
    """Return a polynomial with a few ReLUs kept."""
    module = MaskedQuadratic(shape)
    module.mask.copy_(torch.rand(shape) < 0.3)
    return module


class Call(nn.Module):
    """A module around a function, for functional forms."""

    def __init__(self, function, *modules: nn.Module) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.inner)


class PadShortcut(nn.Module):
    def __init__(self, planes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(planes, 2 * planes, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * planes)
        self.half = planes // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.half, self.half), "constant", 0)
        out = self.bn(self.conv(x))
        out += shortcut
        return F.relu(out, inplace=True)


def randomised(module: nn.Module) -> nn.Module:
    """Give BatchNorms statistics that matter."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            for parameter in layer.parameters():
                nn.init.normal_(parameter)
    return module.eval()


def check(module: nn.Module, shape: tuple[int, ...], tolerance: float = 1e-5) -> Program:
    torch.manual_seed(0)
    images = torch.randn(3, *shape)
    program, weights = lower(randomised(module), shape)
    assert all(w.dtype == torch.float32 for w in weights.values())
    assert program.weight_shapes() == {name: tuple(w.shape) for name, w in weights.items()}
    with torch.no_grad():
        expected = module(images)
    got = evaluate(program, weights, images)
    torch.testing.assert_close(got, expected, atol=tolerance * max(1.0, float(expected.abs().max())), rtol=1e-5)
    values = {op.name: op.shape for op in program}
    assert values[program.output.name] == tuple(expected.shape[1:])
    return program


C, H = 4, 8
CASES = {
    "conv": nn.Conv2d(C, 6, 3, stride=2, padding=1),
    "conv pairs": nn.Conv2d(C, 6, (3, 1), stride=(2, 1), padding=(1, 0), dilation=(2, 1), bias=False),
    "conv same": nn.Conv2d(C, 6, 3, padding="same", dilation=2),
    "conv valid": nn.Conv2d(C, 6, 3, padding="valid"),
    "depthwise": nn.Conv2d(C, 2 * C, 3, groups=C, padding=1),
    "conv bn": nn.Sequential(nn.Conv2d(C, 6, 3, bias=False), nn.BatchNorm2d(6)),
    "bn conv": nn.Sequential(nn.BatchNorm2d(C), nn.Conv2d(C, 6, 3, padding=1)),
    "grouped bn": nn.Sequential(nn.Conv2d(C, 8, 3, groups=2), nn.BatchNorm2d(8)),
    "bn bn": nn.Sequential(nn.Conv2d(C, 6, 1), nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False)),
    "linear bn": nn.Sequential(nn.Flatten(), nn.Linear(C * H * H, 5), nn.BatchNorm1d(5), nn.ReLU()),
    "flat bn": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(C * H * H)),
    "shared conv read twice": Call(lambda x, conv, bn: bn(y := conv(x)) + y, nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)),
    "one conv called twice": Call(
        lambda x, conv, a, b: a(conv(x)) + b(conv(x)), nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), nn.BatchNorm2d(C)
    ),
    "relu forms": Call(lambda x, r: torch.relu(F.relu(r(x) + x).relu_()).clamp(min=0), nn.ReLU(inplace=True)),
    "in place, read later": Call(lambda x, c: (y := c(x)) + y.relu_() + y, nn.Conv2d(C, C, 1)),
    "masked": masked((C, H, H)),
    "masked quadratic": masked_quadratic((C, H, H)),
    "mask of nothing": masked((C, H, H), keep=-1.0),
    "mask of all": masked((C, H, H), keep=2.0),
    "quadratic": Quadratic(C),
    "adds": Call(lambda x: torch.add(x, x).add(x) + sum([x, x])),
    "avg pool": nn.AvgPool2d(3, 2, padding=1),
    "avg pool function": Call(lambda x: F.avg_pool2d(x, 2)),
    "avg pool ceil that fits": nn.AvgPool2d(2, ceil_mode=True),
    "max pool": nn.MaxPool2d(3, 2, padding=1),
    "max pool function": Call(lambda x: F.max_pool2d(x, 2)),
    "adaptive": nn.AdaptiveAvgPool2d((2, 4)),
    "global": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 3)),
    "mean": Call(lambda x: x.mean((2, 3))),
    "mean kept": Call(lambda x: torch.mean(x, [-1, -2], keepdim=True).flatten(1)),
    "view": Call(lambda x: x.view(x.size(0), -1)),
    "reshape": Call(lambda x: x.reshape(x.shape[0], -1).view(-1, C * H * H)),
    "torch.flatten": Call(lambda x: torch.flatten(x, 1)),
    "squeeze": Call(lambda x, p: p(x).squeeze((2, 3)), nn.AdaptiveAvgPool2d(1)),
    "dropout": nn.Sequential(nn.Dropout2d(0.5), nn.Identity(), nn.Dropout(0.5), nn.ReLU()),
    "option A": PadShortcut(C),
    "cat": Call(lambda x, c: torch.cat([x, c(x)], dim=1), nn.Conv2d(C, 3, 1)),
    "slices": Call(lambda x: torch.cat((x[:, 2:], x[:, :2]), 1)),
    "chunks": Call(lambda x: x.chunk(2, dim=1)[1] + torch.split(x, [2, 1, 1], dim=1)[0]),
    "odd pixels": Call(lambda x, c: c(x)[:, :, ::2, ::3], nn.Conv2d(C, C, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch(name: str) -> None:
    check(CASES[name], (C, H, H))


def test_batch_norm_disappears_into_the_convolution() -> None:
    program = check(CASES["bn bn"], (C, H, H))
    assert [type(op) for op in program] == [type(program.ops[0]), Conv]
    kept = check(CASES["bn conv"], (C, H, H))
    assert [op.groups for op in kept if isinstance(op, Conv)] == [C, 1]


def test_names_sites_and_stages() -> None:
    network = nn.Sequential()
    network.add_module("conv1", nn.Conv2d(3, 4, 3, padding=1))
    network.add_module("relu", nn.ReLU())
    network.add_module("layer1", nn.Sequential(PadShortcut(4)))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flat", nn.Flatten())
    network.add_module("linear", nn.Linear(8, 2))
    program, weights = lower(network, (3, 8, 8), stage_of=lambda name: f"<{name.split('.')[0]}>")
    relus = [op for op in program if isinstance(op, Relu)]
    assert [op.site for op in relus] == ["relu", "layer1.0.relu_1"]
    assert [op.stage for op in relus] == ["<relu>", "<layer1>"]
    assert program.relu_count == 4 * 64 + 8 * 16
    assert set(weights) == {f"{n}.{k}" for n in ("conv1", "layer1.0.conv", "linear") for k in ("weight", "bias")}
    kinds = {type(op) for op in program}
    assert {Conv, Linear, Add, AvgPool, Flatten} <= kinds
    assert MaxPool not in kinds


def test_masks_are_public_and_counted() -> None:
    module = CASES["masked"]
    program, weights = lower(module, (C, H, H))
    assert program.relu_count == int(module.mask.sum())  # type: ignore[operator, union-attr]
    assert not weights
    assert len(program.masks) == 1


def test_the_module_given_stays_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    lower(module, (C, H, H))
    assert module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


HIDDEN = [nn.BatchNorm2d(C)]  # no nn.ModuleList: eval() does not reach it
REFUSED = {
    "Softmax cannot be lowered: .*network's end": nn.Sequential(nn.Flatten(), nn.Softmax(1), nn.Linear(C * H * H, 3)),
    "Sigmoid cannot be lowered": nn.Sequential(nn.Conv2d(C, C, 1), nn.Sigmoid(), nn.Conv2d(C, C, 1)),
    "GELU .*polynomial of degree 2": nn.Sequential(nn.Conv2d(C, C, 1), nn.GELU()),
    "SiLU .*polynomial of degree 2": nn.Sequential(nn.Conv2d(C, C, 1), nn.SiLU()),
    "LayerNorm .*statistics of the image": nn.LayerNorm(H),
    "GroupNorm .*statistics of the image": nn.GroupNorm(2, C),
    "ConvTranspose2d": nn.ConvTranspose2d(C, C, 2),
    "track_running_stats": nn.BatchNorm2d(C, track_running_stats=False),
    "return_indices": Call(lambda x: F.max_pool2d(x, 2, dilation=2)),
    "two secret values": Call(lambda x, p: x * p(x), nn.Conv2d(C, C, 1)),
    "mul .*two secret values": Call(lambda x, p: x * p(x), nn.AdaptiveAvgPool2d(1)),
    "computed from the image": Call(lambda x: F.linear(x.flatten(1), x.flatten(1))),
    "power 3": Call(lambda x: x**3),
    "mixes": Call(lambda x: x.view(-1, 8)),
    "mixes its images": Call(lambda x: x.flip(0)),
    "pads with 1": Call(lambda x: F.pad(x, (1, 1, 1, 1), value=1)),
    "looks at values of the image": Call(lambda x: x if x.sum() > 0 else -x),
    "item looks at values": Call(lambda x: x * x.mean().item()),
    "compares values": Call(lambda x: x * (x > 0)),
    "drops values in inference": Call(lambda x: F.dropout(x, 0.5)),
    "orders secret values": Call(lambda x: x.flatten(1).topk(3)[0]),
    "training mode": Call(lambda x: HIDDEN[0](x)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refuses_what_it_does_not_know(words: str) -> None:
    with pytest.raises(UnsupportedLayer, match=words) as error:
        lower(REFUSED[words], (C, H, H))
    assert error.value.exit_status == 4


def test_what_tracing_does_not_see_is_found_by_comparing() -> None:
    def hidden(x: Tensor, layer: nn.Module) -> Tensor:
        y = layer(x)
        kept = y.flatten(1)
        y += x  # torch changes `kept` as well, which looks at the same memory; the recording does not
        return y.flatten(1) + kept

    module = Call(hidden, nn.Conv2d(C, C, 1))
    with pytest.raises(UnsupportedLayer, match="differs from Call by"):
        lower(module, (C, H, H))
    lower(module, (C, H, H), check=False)


def test_refusal_names_the_module_and_what_works() -> None:
    network = nn.Sequential(nn.Conv2d(C, C, 1), nn.Sequential(nn.GELU()))
    with pytest.raises(UnsupportedLayer) as error:
        lower(network, (C, H, H))
    assert error.value.where == "module 1.0"
    assert "GELU" in error.value.what
    assert "convolutions" in error.value.remedy


def test_wrong_input_shape_names_the_layer() -> None:
    with pytest.raises(UsageError, match="module 0: Conv2d fails on an input of shape"):
        lower(nn.Sequential(nn.Conv2d(3, 4, 3)), (C, H, H))
