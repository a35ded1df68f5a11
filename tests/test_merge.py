"""Merged programs compute the same, with fewer multiplications, and what cannot be merged says why."""

from __future__ import annotations

import pytest
import torch
from networks_for_tests import everything, program_of
from torch import Tensor, nn

from pibench.lowering.lower import lower
from pibench.lowering.merge import MergeReport, merge
from pibench.lowering.program import Conv, Linear, Program
from pibench.lowering.reference import evaluate

C, H = 4, 9


class Sum(nn.Module):
    """The sum of two branches over one input."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return self.branches[0](x) + self.branches[1](x)


def conv(*args: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(*args, **options)  # type: ignore[arg-type]


def check(module: nn.Module) -> tuple[Program, MergeReport]:
    torch.manual_seed(1)
    program, weights = lower(module, (C, H, H))
    merged, values, report = merge(program, weights)
    images = torch.randn(2, C, H, H, dtype=torch.float64)
    expected = evaluate(program, weights, images, torch.float64)
    torch.testing.assert_close(evaluate(merged, values, images, torch.float64), expected, atol=1e-5, rtol=1e-5)
    assert merged.weight_shapes() == {name: tuple(w.shape) for name, w in values.items()}
    assert report.macs_after <= report.macs_before
    assert (report.ops_before, report.ops_after) == (len(program.ops), len(merged.ops))
    return merged, report


MERGED = {
    "3x3, 1x1": nn.Sequential(conv(C, 8, 3, padding=1), conv(8, 3, 1)),
    "3x3 stride 2, 1x1 stride 2": nn.Sequential(conv(C, 8, 3, stride=2, padding=1), conv(8, 8, 1, stride=2)),
    "1x1 without bias, 3x3 padded": nn.Sequential(conv(C, 32, 1, bias=False), conv(32, 8, 3, padding=1)),
    "1x1 stride 2, 3x3 padded": nn.Sequential(conv(C, 32, 1, stride=2, bias=False), conv(32, 8, 3, padding=1)),
    "wide in the middle": nn.Sequential(conv(C, 64, 3, dilation=2), conv(64, 2, (2, 1))),  # type: ignore[arg-type]
    "dilated then strided": nn.Sequential(conv(C, 64, 2, stride=2, dilation=2), conv(64, 2, 2, dilation=2)),
    "three": nn.Sequential(conv(C, 16, 1), conv(16, 16, 3, padding=0), conv(16, 2, 1)),
    "average pool": nn.Sequential(conv(C, 6, 3, padding=1), nn.AvgPool2d(3)),
    "depthwise after": nn.Sequential(conv(C, 6, 3), conv(6, 6, 1, groups=6)),
    "depthwise before": nn.Sequential(conv(C, C, 1, groups=C, bias=False), conv(C, 6, 3, padding=1)),
    "depthwise twice": nn.Sequential(conv(C, C, 3, groups=C), conv(C, C, 1, groups=C)),
    "grouped then scaled": nn.Sequential(conv(C, 8, 3, groups=2), conv(8, 8, 1, groups=8)),
    "global average into the head": nn.Sequential(
        conv(C, 32, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3)
    ),
    "flattened image into the head": nn.Sequential(conv(C, 6, 3, stride=3), nn.Flatten(), nn.Linear(54, 3)),
    "two heads": nn.Sequential(nn.Flatten(), nn.Linear(C * H * H, 20), nn.Linear(20, 3), nn.Linear(3, 3, bias=False)),
    "shortcut 1x1": Sum(conv(C, 6, 3, padding=1), conv(C, 6, 1)),
    "shortcut 1x1 stride 2": Sum(conv(C, 6, 3, stride=2, padding=1), conv(C, 6, 1, stride=2)),
    "shortcut dilated": Sum(conv(C, 6, 3, padding=2, dilation=2), conv(C, 6, 1, bias=False)),
    "shortcut grouped": Sum(conv(C, C, 3, padding=1), conv(C, C, 1, groups=C)),
    "identity shortcut": Sum(conv(C, C, 3, padding=1), nn.Identity()),
    "identity shortcut grouped": Sum(nn.Identity(), conv(C, C, 3, padding=1, groups=2)),
    "linear stage and head, with borders": nn.Sequential(
        Sum(nn.Sequential(conv(C, 9, 3, padding=1), conv(9, C, 3, padding=1)), nn.Identity()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(C, 3),
    ),
    "linear block": Sum(nn.Sequential(conv(C, 9, 3, padding=1), conv(9, C, 1)), nn.Identity()),
}


@pytest.mark.parametrize("name", MERGED)
def test_merged_into_one_and_the_same(name: str) -> None:
    merged, report = check(MERGED[name])
    assert report.merged
    assert len([op for op in merged if op.kind == "linear"]) == 1
    assert report.macs_after < report.macs_before or "identity" in name
    assert f"merged {len(report.merged)} pair" in report.render()


REFUSED = {
    "beyond the border": nn.Sequential(conv(C, C, 3, padding=1), conv(C, C, 3, padding=1)),
    "its bias": nn.Sequential(conv(C, 32, 1), conv(32, 8, 3, padding=1)),
    "MACs instead of": nn.Sequential(conv(C, 2, 3), conv(2, 6, 3)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_with_the_reason(words: str) -> None:
    program, report = check(REFUSED[words])
    assert not report.merged
    assert [words in refusal.reason for refusal in report.refused] == [True]
    assert words in report.render()
    assert len([op for op in program if isinstance(op, Conv)]) == 2


def test_a_value_read_twice_is_kept() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(C, C, 1), conv(C, C, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y) + y.relu()

    _, report = check(Twice())
    assert [refusal.reason for refusal in report.refused] == ["the value between them is read elsewhere too"]


def test_sums_of_different_strides_stay() -> None:
    _, report = check(Sum(conv(C, 6, 3, stride=2), conv(C, 6, 6)))
    assert [refusal.reason for refusal in report.refused] == ["their strides or sizes differ"]


def test_a_network_without_data_is_counted_too() -> None:
    module = MERGED["average pool"]
    _, report = check(module)
    program, weights = lower(module, (C, H, H))
    _, values, without = merge(program, {name: w.to("meta") for name, w in weights.items()})
    assert without == report
    assert all(w.is_meta for w in values.values())


def test_relus_stay_where_they_are() -> None:
    module = nn.Sequential(conv(C, 8, 3), nn.ReLU(), conv(8, 4, 1), conv(4, 2, 1), nn.ReLU())
    merged, report = check(module)
    before, _ = lower(module, (C, H, H))
    assert merged.relu_count == before.relu_count
    assert len(report.merged) == 1


@pytest.mark.parametrize("name", everything())
def test_whole_networks_compute_the_same(name: str) -> None:
    program, weights = program_of(name)
    merged, values, _ = merge(program, weights)
    images = torch.randn(2, *program.input_shape)
    torch.testing.assert_close(
        evaluate(merged, values, images), evaluate(program, weights, images), atol=1e-4, rtol=1e-4
    )


class Culled(nn.Module):
    """A stage with a ReLU, then one without, and a head."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(C, 6, 3, padding=1), nn.ReLU())
        self.main = nn.Sequential(conv(6, 8, 3, stride=2, padding=1), conv(8, 8, 3, padding=1))
        self.shortcut, self.head = conv(6, 8, 1, stride=2), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head((self.main(x) + self.shortcut(x)).mean((2, 3)))


def test_what_follows_the_last_relu_becomes_one_matrix() -> None:
    merged, report = check(Culled())
    assert [type(op).__name__ for op in merged] == ["Input", "Conv", "Relu", "Flatten", "Linear"]
    assert report.macs_after == 6 * H * H * C * 9 + 6 * H * H * 5
    assert [merge.second for merge in report.merged] == [merged.output.name]


def test_a_wide_head_stays_apart() -> None:
    merged, _ = check(Culled(classes=400))
    assert [op.shape[0] for op in merged if isinstance(op, Linear)] == [8, 400]


def test_no_matrix_where_it_is_dearer() -> None:
    _, report = check(nn.Sequential(conv(C, 6, 3), nn.ReLU(), conv(6, 6, 3), nn.Flatten()))
    assert not report.merged


def test_a_matrix_starts_where_everything_comes_through() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = conv(C, 3, 1), conv(3, 3, H), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            early = self.a(x).relu()
            return self.head((self.b(early) + early.relu().mean((2, 3), keepdim=True)).flatten(1))

    merged, report = check(Skipping())
    assert merged.relu_count == 2 * 3 * H * H
    assert not [m for m in report.merged if m.first.startswith("relu")]


def test_the_structure_does_not_tell_of_the_weights() -> None:
    one = nn.Sequential(conv(C, 32, 1), conv(32, 8, 3, padding=1))
    before, _ = check(one)
    with torch.no_grad():
        for weight in one.parameters():
            weight.zero_()
    program, weights = lower(one, (C, H, H))
    assert merge(program, weights)[0].sha256 == before.sha256
