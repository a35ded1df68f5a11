"""Structures of the networks that people bring: each lowers to its own logits, or is refused in words."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, weight_norm

from pibench.errors import UnsupportedLayer, UsageError
from pibench.lowering.lower import lower, lowered
from pibench.lowering.program import Conv, MaxPool, Poly, Program, Relu
from pibench.lowering.reference import evaluate

C, H = 4, 8
SHAPE = (C, H, H)
MASK = torch.arange(C * H * H).reshape(1, C, H, H) % 3 == 0
KEPT = int(MASK.sum())


class Net(nn.Module):
    """A forward over some modules, given as attributes m0, m1, ..."""

    def __init__(self, forward: Callable[..., Any], *modules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for number, module in enumerate(modules):
            self.add_module(f"m{number}", module)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def conv(inner: int = C, outer: int = C, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, kernel, **({"padding": kernel // 2} | options))


def checked(module: nn.Module, shape: tuple[int, ...] = SHAPE) -> Program:
    """Lower, and compare batches of 1 and 3 with the module."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
    module.eval()
    program, weights = lower(module, shape)
    assert program.weight_shapes() == {name: tuple(weight.shape) for name, weight in weights.items()}
    for batch in (1, 3):
        images = torch.randn(batch, *shape, generator=generator)
        like = next(module.parameters(), images)
        with torch.no_grad():
            expected = module(images.to(like.dtype)).float()
        got = evaluate(program, weights, images)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    return program


def _by_size(self: Any, x: Tensor) -> Tensor:
    x = F.max_pool2d(x, 2) if x.shape[-1] > 4 else x
    assert x.size(1) == C, f"{x.shape}"
    return x.reshape(len(x), -1)


def _shared_names(self: Any, x: Tensor) -> Tensor:
    parts = x.split(int(C / 2), 1)
    a, b = (*parts,)
    return torch.cat([self.m0(a), b], 1)


class Listed(nn.Module):
    """Activations that lie in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.acts = nn.ModuleList([conv(), conv()]), [nn.ReLU(), nn.ReLU(inplace=True)]

    def forward(self, x: Tensor, *, scale: bool = False, **_options: Any) -> Tensor:
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        return x


class Varied(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return x.relu() if x.dim() == 4 and x.dtype == torch.float32 and not self.training else x


class OwnConv(nn.Conv2d): ...


class OwnNorm(nn.BatchNorm2d): ...


class Padded(nn.Conv2d):
    """The convolution of TensorFlow: as much padding as the stride wants, more of it behind."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(8, C, 3, 3)), nn.Parameter(torch.randn(5, 8 * H * H))
        self.mean, self.var = nn.Parameter(torch.randn(8)), nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(F.conv2d(input=x, weight=self.weight, padding=1), self.mean, self.var)
        return F.linear(F.relu(x).flatten(1), self.head)


def _shuffle(x: Tensor, groups: int = 2) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def _written_into(self: Any, x: Tensor) -> Tensor:
    y = self.m0(x)
    out = y.clone()
    out[:, : C // 2] = F.relu(y[:, : C // 2])
    return out


def _written_by_mask(self: Any, x: Tensor) -> Tensor:
    out = self.m0(x).clone()
    out[:, MASK[0]] = F.relu(out[:, MASK[0]])
    return out


def _written_zero(x: Tensor) -> Tensor:
    x[:, 1:3, ::2] = 0
    return x


def _summed_up(x: Tensor, *parts: Tensor) -> Tensor:
    total = torch.zeros_like(x)
    for part in parts:
        total += part
    return total


def _hooked() -> nn.Module:
    module = nn.Sequential(conv(), nn.ReLU())
    module[1].register_forward_hook(lambda _module, _args, out: 2 * out)
    return module


def _pruned() -> nn.Module:
    module = nn.Sequential(conv(), nn.ReLU())
    prune.l1_unstructured(module[0], "weight", 0.5)
    return module


KINDS: dict[str, dict[str, nn.Module]] = {
    "traced": {
        "activation made in forward": Net(lambda s, x: nn.ReLU()(s.m0(x)), conv()),
        "activations in a list": Listed(),
        "computed sizes": Net(_shared_names, conv(2, 2)),
        "branches on a shape": Net(_by_size),
        "len of a batch": Net(lambda s, x: s.m0(x).view(len(x), -1), conv()),
        "inputs with a star": Varied(),
        "a loop over sizes": Net(lambda s, x: sum(x[:, i : i + 1] for i in range(x.shape[1]))),
        "an activation of functions": Net(lambda s, x: {"relu": F.relu}["relu"](s.m0(x)), conv()),
        "in place, under another name": Net(lambda s, x: (y := s.m0(x), z := y, z.add_(x), y)[-1], conv()),
        "zeros made beside": Net(lambda s, x: torch.cat([x, torch.zeros(len(x), 2, H, H, device=x.device)], 1)),
        "autograd's function": Net(lambda s, x: Doubled.apply(s.m0(x)), conv()),
    },
    "functional": {
        "all of it": Functional(),
        "empty subclasses": nn.Sequential(OwnConv(C, 6, 3), OwnNorm(6), nn.ReLU()),
        "SyncBatchNorm": nn.Sequential(conv(), nn.SyncBatchNorm(C)),
        "BatchNorm without affine": nn.Sequential(conv(), nn.BatchNorm2d(C, affine=False)),
        "a subclass with a forward": nn.Sequential(Padded(C, 6, 3, 2), nn.ReLU()),
        "weights standardised": nn.Sequential(Standardised(C, 6, 3, padding=1), nn.ReLU()),
        "weight_norm": nn.Sequential(weight_norm(conv()), nn.ReLU()),
        "weight_norm, the new one": nn.Sequential(parametrizations.weight_norm(conv()), nn.ReLU()),
        "spectral norm": nn.Sequential(parametrizations.spectral_norm(conv()), nn.ReLU()),
        "pruned, not yet removed": _pruned(),
        "a forward hook": _hooked(),
        "Conv1d": nn.Sequential(nn.Flatten(2), nn.Conv1d(C, 6, 3, 2, 1), nn.BatchNorm1d(6), nn.ReLU()),
        "Conv3d over channels": Net(
            lambda s, x: s.m0(x[:, None]).relu().flatten(1, 2), nn.Conv3d(1, 2, (3, 1, 1), (2, 1, 1), (1, 0, 0))
        ),
        "a linear layer a pixel": Net(lambda s, x: s.m0(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(C, 6)),
        "half precision": nn.Sequential(conv(), nn.ReLU()).double(),
    },
    "bounded": {
        "ReLU6": nn.Sequential(conv(), nn.ReLU6()),
        "ReLU6 in place": nn.Sequential(conv(), nn.ReLU6(inplace=True), conv()),
        "hardtanh": Net(lambda s, x: F.hardtanh(x, -0.5, 0.7)),
        "clamp": Net(lambda s, x: x.clamp(-1, 1)),
        "clamp above": Net(lambda s, x: x.clamp(max=0.3)),
        "clamp below": Net(lambda s, x: x.clamp(min=0.3)),
        "leaky": nn.Sequential(conv(), nn.LeakyReLU(0.2)),
        "leaky, twice": nn.Sequential(nn.LeakyReLU(), conv(), nn.LeakyReLU(0.01, inplace=True)),
        "PReLU": nn.Sequential(conv(), nn.PReLU()),
        "PReLU a channel": nn.Sequential(conv(), nn.PReLU(C, init=0.3)),
        "RReLU": nn.RReLU(),
        "threshold": nn.Sequential(conv(), nn.Threshold(0.2, 0.2)),
        "maximum": Net(lambda s, x: torch.max(s.m0(x), s.m1(x)), conv(), conv()),
        "minimum and abs": Net(lambda s, x: torch.minimum(s.m0(x), x).abs(), conv()),
    },
    "moved": {
        "channel shuffle": Net(lambda s, x: _shuffle(s.m0(x)), conv()),
        "nn.ChannelShuffle": nn.Sequential(conv(), nn.ChannelShuffle(2)),
        "index_select": Net(lambda s, x: x.index_select(1, torch.tensor([3, 1, 0, 2]))),
        "indexed by a list": Net(lambda s, x: x[:, [2, 0, 1]]),
        "pixel shuffle": nn.Sequential(conv(C, 8), nn.PixelShuffle(2)),
        "pixel unshuffle": nn.Sequential(nn.PixelUnshuffle(2), conv(4 * C, C)),
        "flip": Net(lambda s, x: s.m0(x.flip(3)) + x.flip((2, 3)), conv()),
        "permute and back": Net(lambda s, x: x.permute(0, 3, 1, 2).reshape(len(x), -1)),
        "roll": Net(lambda s, x: s.m0(x.roll(2, 3)), conv()),
        "space to depth": Net(lambda s, x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2]], 1)),
        "stack and mean": Net(lambda s, x: torch.stack([s.m0(x), x], 1).mean(1), conv()),
        "unfolded to a flat value": Net(lambda s, x: s.m0(x.flatten(1).unflatten(1, (C, H, H))), conv()),
        "pixels cut": Net(lambda s, x: x[:, :, 1:-1, 2:5]),
        "channels written": Net(_written_into, conv()),
        "places written by a mask": Net(_written_by_mask, conv()),
        "zeros written": Net(lambda s, x: _written_zero(s.m0(x)), conv()),
        "masked_fill": Net(lambda s, x: s.m0(x).relu().masked_fill(~MASK, 0) + x.masked_fill(MASK, 0.0), conv()),
        "nearest upsampling": nn.Sequential(nn.Upsample(scale_factor=2), conv()),
        "broadcast": Net(lambda s, x: x + s.m0(x), nn.AdaptiveAvgPool2d(1)),
        "rows summed": Net(lambda s, x: s.m0(x).sum(-1).mean(-1), conv()),
    },
    "edges": {
        "ceil_mode of a maximum": nn.MaxPool2d(3, 2, ceil_mode=True),
        "ceil_mode with padding": nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        "ceil_mode of an average": nn.AvgPool2d(3, 2, ceil_mode=True),
        "count_include_pad": nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        "maximum padded on two sides": nn.MaxPool2d((3, 1), (2, 1), padding=(1, 0)),
        "same padding of an even kernel": nn.Conv2d(C, 5, 4, padding="same"),
        "zeros on two sides": nn.Sequential(nn.ZeroPad2d((1, 0, 2, 0)), conv(padding=0)),
        "negative padding": Net(lambda s, x: F.pad(s.m0(x), (-1, -1, -1, 0)), conv()),
        "reflected": nn.Sequential(nn.ReflectionPad2d(1), conv(padding=0)),
        "circular": nn.Conv2d(C, 5, 3, padding=1, padding_mode="circular"),
        "adaptive, windows of two sizes": nn.AdaptiveAvgPool2d(3),
        "adaptive, to more": nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d((4, 3))),
        "the largest pixel": nn.AdaptiveMaxPool2d(1),
    },
    "constants": {
        "normalised inside": Net(lambda s, x: s.m0((x - torch.arange(C)[:, None, None] / 9) / 0.25), conv()),
        "scaled and shifted": Net(lambda s, x: 2 * s.m0(x) + 1, conv()),
        "a difference": Net(lambda s, x: s.m0(x) - s.m1(x).relu(), conv(), conv()),
        "layer scale": Net(lambda s, x: x + torch.linspace(0.1, 1, C)[:, None, None] * s.m0(x), conv()),
        "summed up from zeros": Net(lambda s, x: _summed_up(x, s.m0(x), s.m1(x).relu()), conv(), conv()),
        "three branches": Net(lambda s, x: s.m0(x) + s.m1(x).relu() + 0.5 * x, conv(), conv()),
        "weights of parameters": Net(lambda s, x: F.conv2d(x, s.m0.weight.abs() * 0.3 + 1), conv()),
        "a constant a pixel": Net(lambda s, x: s.m0(x * torch.rand(C, H, H, generator=torch.Generator().manual_seed(1)))
                                  , conv()),
        "an offset a pixel": Net(lambda s, x: s.m0(x).flatten(1) + torch.arange(C * H * H) / 100, conv()),
        "negated and divided": Net(lambda s, x: -s.m0(x) / 3 - 1, conv()),
        "rsub": Net(lambda s, x: 1 - s.m0(x), conv()),
        "swapped by a square": Net(lambda s, x: (0.2 * x + 0.5) * x + 0.2),
        "square and pow": Net(lambda s, x: torch.square(s.m0(x)) * 0.1 + s.m0(x) ** 2, conv()),
        "addcmul": Net(lambda s, x: torch.addcmul(x, MASK.float(), s.m0(x).relu() - 1, value=0.5), conv()),
        "addmm": Net(lambda s, x: torch.addmm(torch.arange(3.0), x.flatten(1), torch.ones(C * H * H, 3), beta=0.5)),
        "einsum": Net(lambda s, x: torch.einsum("bc,oc->bo", s.m0(x).mean((2, 3)), s.m0.weight[:, :, 0, 0]), conv()),
        "matrix of numbers": Net(lambda s, x: x.flatten(1) @ torch.linspace(-1, 1, C * H * H * 3).reshape(-1, 3)),
    },
}  # fmt: skip
STRUCTURES = [pytest.param(net, id=f"{kind}: {name}") for kind, nets in KINDS.items() for name, net in nets.items()]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients


@pytest.mark.parametrize("module", STRUCTURES)
def test_lowers_to_its_own_logits(module: nn.Module) -> None:
    torch.manual_seed(0)
    checked(module)


class Alphas(nn.Module):
    """The gate of SNL's published code, in its own words: alphas of 0 and 1, once it is done."""

    def __init__(self) -> None:
        super().__init__()
        self.alphas = nn.Parameter(MASK.float())

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) * self.alphas.expand_as(x) + (1 - self.alphas.expand_as(x)) * x


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients


class Replaced(nn.Module):
    """AutoReP's: a ReLU where its parameter is positive, a polynomial of the channel elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha_aux = nn.Parameter(MASK.float() - 0.5)
        self.poly = nn.Parameter(torch.rand(3, C, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mask = Step.apply(self.alpha_aux)
        second = self.poly[0] * x * x + self.poly[1] * x + self.poly[2]
        return torch.mul(F.relu(x), mask) + torch.mul(second, 1 - mask)


class MaskedQuadratic(nn.Module):
    """A class of the user's own, with a name that is known here for something else."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x + x


GATES: dict[str, tuple[Callable[[Any, Tensor], Tensor], int]] = {
    "SNL": (lambda s, x: s.m1(s.m0(x)), KEPT),
    "the other way round": (lambda s, x: (1 - s.m1.alphas) * (y := s.m0(x)) + s.m1.alphas * y.relu(), KEPT),
    "where": (lambda s, x: torch.where(MASK, (y := s.m0(x)).relu(), y), KEPT),
    "where not": (lambda s, x: torch.where(~MASK, y := s.m0(x), y.relu()), KEPT),
    "the difference": (lambda s, x: (y := s.m0(x)) + MASK * (y.relu() - y), KEPT),
    "lerp": (lambda s, x: torch.lerp(y := s.m0(x), y.relu(), MASK.float()), KEPT),
    "zero elsewhere": (lambda s, x: s.m0(x).relu() * MASK, KEPT),
    "a channel each": (lambda s, x: torch.where(MASK[:, :, :1, :1], (y := s.m0(x)).relu(), y), 2 * H * H),
    "scaled elsewhere": (lambda s, x: torch.where(MASK, (y := s.m0(x)).relu(), 0.3 * y + 1), KEPT),
    "a gate of ones": (lambda s, x: (y := s.m0(x)).relu() * torch.ones(C, 1, 1) + torch.zeros(C, 1, 1) * y, C * H * H),
    "a gate of zeros": (lambda s, x: (y := s.m0(x)).relu() * torch.zeros(C, 1, 1) + torch.ones(C, 1, 1) * y, 0),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_of_zeros_and_ones_is_a_mask(name: str) -> None:
    torch.manual_seed(0)
    forward, kept = GATES[name]
    program = checked(Net(forward, conv(), Alphas()))
    assert program.relu_count == kept
    assert sum(isinstance(op, Relu) for op in program) == (kept > 0)


def test_a_gates_site_is_its_module() -> None:
    program = checked(nn.Sequential(conv(), Alphas()))
    assert [op.site for op in program if isinstance(op, Relu)] == ["1"]


def test_autorep_has_its_relus_and_a_polynomial_elsewhere() -> None:
    program = checked(nn.Sequential(conv(), Replaced(), conv()))
    (poly,) = [op for op in program if isinstance(op, Poly)]
    assert program.relu_count == KEPT
    assert program.kept(poly) == C * H * H - KEPT


def test_a_module_is_taken_for_what_it_does_and_not_for_its_name() -> None:
    program = checked(nn.Sequential(conv(), MaskedQuadratic()))
    assert [program.kept(op) for op in program if isinstance(op, Poly)] == [C * H * H]


def test_a_gate_between_zero_and_one_is_refused_by_name() -> None:
    net = nn.Sequential(conv(), Alphas())
    net[1].alphas.data[0, 1, 2, 3] = 0.37
    with pytest.raises(UnsupportedLayer, match=r"module 1: Alphas .*0 or 1 everywhere, and holds 0\.37"):
        lower(net, SHAPE)


@pytest.mark.parametrize(
    ("module", "times"), [(nn.ReLU6(), 2), (nn.Hardtanh(), 2), (nn.LeakyReLU(), 1), (nn.PReLU(C), 1), (nn.ReLU(), 1)]
)
def test_what_is_no_plain_relu_counts_the_comparisons_that_it_costs(module: nn.Module, times: int) -> None:
    assert checked(nn.Sequential(conv(), module)).relu_count == times * C * H * H


def test_a_pool_is_one_operation_where_it_was_one() -> None:
    program = checked(nn.Sequential(conv(), nn.MaxPool2d(3, 2, padding=1)))
    assert [op.padding for op in program if isinstance(op, MaxPool)] == [(1, 1)]
    assert len(program.ops) == 3


def test_a_layer_scale_folds_into_the_convolution_before_it() -> None:
    program = checked(nn.Sequential(conv(), Net(lambda s, x: 3 * x + torch.ones(C, 1, 1))))
    assert [type(op) for op in program.ops[1:]] == [Conv]


@dataclass
class Answer:
    """What a network returns that has more to say."""

    logits: Tensor


SEVERAL = {
    "0": Net(lambda s, x: (s.m0(x).mean((2, 3)), x.relu()), conv()),
    "logits": Net(lambda s, x: {"features": x.sigmoid(), "logits": s.m0(x).mean((2, 3))}, conv()),
    "aux.1": Net(lambda s, x: {"main": x, "aux": [None, s.m0(x).mean((2, 3))]}, conv()),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_outputs_one_is_named(name: str) -> None:
    module = SEVERAL[name]
    with pytest.raises(UnsupportedLayer, match=f"returns 2 tensors.*\n.*--output NAME.*{name}"):
        lower(module, SHAPE)
    with pytest.raises(UsageError, match="has no output '7'"):
        lower(module, SHAPE, output="7")
    program, _ = lower(module, SHAPE, output=name)
    assert program.output.shape == (C,)
    assert program.relu_count == 0


def test_one_output_in_a_tuple_needs_no_name() -> None:
    assert lower(Net(lambda s, x: (x.mean((2, 3)), None)), SHAPE)[0].output.shape == (C,)
    with pytest.raises(UnsupportedLayer, match="returns a Answer, and not a tensor"):
        lower(Net(lambda s, x: Answer(x)), SHAPE)


ROWS: dict[str, tuple[nn.Module, int]] = {
    "pixels of one": (nn.Sequential(conv(C, 5), nn.AdaptiveAvgPool2d(1)), 5),
    "softmax over pixels of one": (nn.Sequential(conv(C, 5), nn.AdaptiveAvgPool2d(1), nn.Softmax(1)), 5),
    "one logit, squeezed": (Net(lambda s, x: s.m0(x).mean((2, 3)).squeeze(1), conv(C, 1)), 1),
    "one logit, all flat, a sigmoid": (Net(lambda s, x: s.m0(x).mean((2, 3)).view(-1).sigmoid(), conv(C, 1)), 1),
    "a row in a row": (Net(lambda s, x: s.m0(x).mean((2, 3))[:, None], conv(C, 5)), 5),
}


@pytest.mark.parametrize("name", ROWS)
def test_an_output_is_a_row_of_logits(name: str) -> None:
    module, classes = ROWS[name]
    made = lowered(module.eval(), SHAPE)
    images = torch.randn(3, *SHAPE)
    got = evaluate(made.program, made.weights, images)
    assert got.shape == (3, classes)
    if not made.notes:
        with torch.no_grad():
            torch.testing.assert_close(got, module(images).reshape(3, classes))


@pytest.mark.parametrize("module", [conv(), nn.Sequential(conv(), nn.Flatten(2))])
def test_a_picture_is_no_row_of_logits(module: nn.Module) -> None:
    with pytest.raises(UnsupportedLayer, match=r"returns values of shape \(4, .*no row of logits"):
        lowered(module, SHAPE)


@pytest.mark.parametrize("module", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_a_softmax_at_the_end_is_left_out_and_said(module: nn.Module) -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(C * H * H, 5))
    made = lowered(nn.Sequential(*head, module), SHAPE)
    images = torch.randn(2, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(evaluate(made.program, made.weights, images), head(images))
    assert "at its end is left out" in made.notes[0]


def test_all_that_is_refused_is_counted() -> None:
    with pytest.raises(UnsupportedLayer, match=r"module 1: SiLU .*\n  2 more operations are refused \(3, 5\)"):
        lower(nn.Sequential(conv(), nn.SiLU(), conv(), nn.SiLU(), nn.ReLU(), nn.GELU()), SHAPE)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel, lambda m: torch.compile(m)])
def test_wrappers_of_training_are_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    module = nn.Sequential(conv(), nn.BatchNorm2d(C), nn.ReLU())
    plain, wrapped = lower(module, SHAPE)[0], lower(wrap(module), SHAPE)[0]
    assert plain.sha256 == wrapped.sha256
    inside = nn.Sequential(module)
    inside[0] = wrap(module)
    assert lower(inside, SHAPE)[0].relu_count == plain.relu_count


def test_a_scripted_module_is_refused_in_words() -> None:
    with pytest.raises(UnsupportedLayer, match=r"TorchScript.*\n.*before torch\.jit\.script"):
        lower(torch.jit.script(nn.Sequential(conv(), nn.ReLU())), SHAPE)


def test_an_error_in_forward_is_the_users_with_file_and_line() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        raise RuntimeError("no licence")

    with pytest.raises(
        UsageError, match=r"Net fails in its forward: RuntimeError: no licence \(test_lower_public\.py:\d+\)"
    ):
        lower(Net(forward), SHAPE)


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda s, x: torch.zeros(2, C, H, H).index_put_((torch.tensor([0]),), x[:1]), "into a tensor of constants"),
        (lambda s, x: _into_constants(x), "into a tensor of constants.*\n.*torch.cat or torch.where"),
        (lambda s, x: _written_one(s.m0(x)), "it writes 1 into a value"),
        (lambda s, x: torch.einsum("bchw,bchw->bc", x, s.m0(x)), "multiplies two secret values"),
        (lambda s, x: F.threshold(x, 0.1, 0.0), "it jumps from 0.0 to 0.1, which is no ReLU"),
    ],
)
def test_what_only_looks_alike_is_refused(forward: Callable[..., Any], said: str) -> None:
    with pytest.raises((UnsupportedLayer, UsageError), match=said):
        lower(Net(forward, conv()), SHAPE)


def _into_constants(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, 1:] = x[:, :-1]
    return out


def _written_one(x: Tensor) -> Tensor:
    x[:, 0] = 1
    return x


def test_small_logits_are_compared_by_their_own_size() -> None:
    def hidden(self: Any, x: Tensor) -> Tensor:
        y = self.m0(x)
        kept = y.flatten(1)
        y += 1000 * x
        return 1e-6 * kept

    with pytest.raises(UnsupportedLayer, match="differs from Net"):
        lower(Net(hidden, conv()), SHAPE)


def test_a_refused_network_is_not_kept():
    """Who tries many networks would otherwise run out of memory: a refusal's frames held the network."""

    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return self.layer(x).reshape(8, -1).sigmoid().reshape(2, -1)

    network = Mixing()
    held = weakref.ref(network.layer)
    before = {id(x) for x in gc.get_objects() if type(x).__name__ == "Mixing"}
    with pytest.raises(UnsupportedLayer, match="mixes the images of a batch"):
        lower(network, (3, 8, 8))
    del network
    gc.collect()
    assert held() is None
    assert {id(x) for x in gc.get_objects() if type(x).__name__ == "Mixing"} <= before
