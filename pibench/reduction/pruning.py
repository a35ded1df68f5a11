"""Channel pruning of residual networks by BatchNorm scale, to a budget of ReLUs or MACs.

1. Rank the channels inside the blocks by |gamma| of their BatchNorm, in units of their layer's mean, so that layers
   compare; drop the lowest until the budget is met, leaving each block a share of its channels.
2. Where that cannot meet the budget, thin the residual stream first: every stage keeps the same share of its
   channels, those with the largest sum of |gamma| over all layers that write to them.
3. Cut the weights accordingly; the pruned network is then tuned under the teacher (the method's second task).

Pruning inside the blocks alone is what the pruned ResNet56 of DeepReDuce's poster must have had: its 311.7K of 532.5K
ReLUs are in reach of it (at least 307K here). Step 2 is this project's way to smaller budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pibench.errors import UsageError
from pibench.networks.spec import AnyNetwork, ResNetSpec
from pibench.reduction.counting import count
from pibench.reduction.steps import changed

SHARES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625)  # of the residual stream
LEAST = 0.125  # share of its channels that a block keeps inside
State = dict[str, Tensor]


@dataclass(frozen=True)
class Budget:
    """What the pruned network may have at most."""

    relus: int | None = None
    macs: int | None = None

    def met(self, spec: ResNetSpec) -> bool:
        """Return whether a description keeps to it."""
        found = count(spec)
        fits_relus = self.relus is None or found.relu_count <= self.relus
        return fits_relus and (self.macs is None or found.macs <= self.macs)


def prune(spec: AnyNetwork, state: State, budget: Budget) -> tuple[ResNetSpec, State]:
    """Return the pruned description and its weights, cut from `state`."""
    if not isinstance(spec, ResNetSpec):
        raise UsageError(f"channel pruning knows residual networks, not the family '{spec.family}'")
    if spec.bottleneck:
        raise UsageError("channel pruning knows residual networks of basic blocks, not of bottlenecks")
    thinned, cut = _thin_stream(spec, state, budget)
    ranked = _ranked_inner(thinned, cut)
    low, high = 0, len(ranked)
    while low < high:  # the fewest channels that have to go
        middle = (low + high) // 2
        if budget.met(_without(thinned, ranked[:middle])):
            high = middle
        else:
            low = middle + 1
    return _without(thinned, ranked[:low]), _cut_inner(thinned, cut, ranked[:low])


Inner = tuple[int, int, int]  # stage, block, channel


def _thin_stream(spec: ResNetSpec, state: State, budget: Budget) -> tuple[ResNetSpec, State]:
    """Return the network with the widest residual stream from which pruning inside the blocks can meet the budget."""
    shares = SHARES if spec.shortcut == "conv" else SHARES[:1]
    for share in shares:
        narrow = _narrowed(spec, share)
        if narrow and budget.met(_without(narrow, _all_droppable(narrow))):
            return narrow, state if share == 1.0 else _cut_stream(spec, narrow, state)
    hint = " with parameter-free shortcuts only the inside of blocks is pruned;" if spec.shortcut == "pad" else ""
    raise UsageError(f"channel pruning cannot meet this budget;{hint} raise it")


def _narrowed(spec: ResNetSpec, share: float) -> ResNetSpec | None:
    width = int(spec.widths[0] * share)
    if width < 1 or (share < 1 and width == spec.widths[0]):
        return None
    if share == 1.0:
        return spec
    inner = [[max(1, int(n * share)) for n in stage] for stage in _inner_widths(spec)]
    return changed(spec, base_width=width, width_scale=1.0, inner_widths=inner)


def _inner_widths(spec: ResNetSpec) -> list[list[int]]:
    if spec.inner_widths is not None:
        return [list(stage) for stage in spec.inner_widths]
    return [[width] * blocks for width, blocks in zip(spec.widths, spec.blocks, strict=True)]


def _without(spec: ResNetSpec, dropped: Sequence[Inner]) -> ResNetSpec:
    inner = _inner_widths(spec)
    for stage, block, _ in dropped:
        inner[stage][block] -= 1
    return changed(spec, inner_widths=inner)


def _droppable(width: int) -> int:
    return width - max(1, round(LEAST * width))


def _all_droppable(spec: ResNetSpec) -> list[Inner]:
    return [
        (stage, block, 0)
        for stage, widths in enumerate(_inner_widths(spec))
        for block, width in enumerate(widths)
        for _ in range(_droppable(width))
    ]


def _ranked_inner(spec: ResNetSpec, state: State) -> list[Inner]:
    """Return the channels that may go, least important first."""
    ranked: list[tuple[float, Inner]] = []
    for stage, widths in enumerate(_inner_widths(spec)):
        for block, width in enumerate(widths):
            scale = state[f"layer{stage + 1}.{block}.bn1.weight"].abs()
            relative = (scale / scale.mean().clamp(min=1e-12)).tolist()
            lowest = sorted(range(width), key=lambda channel: relative[channel])[: _droppable(width)]
            ranked += [(relative[channel], (stage, block, channel)) for channel in lowest]
    return [channel for _, channel in sorted(ranked)]


def _cut_inner(spec: ResNetSpec, state: State, dropped: Sequence[Inner]) -> State:
    cut = dict(state)
    for stage, widths in enumerate(_inner_widths(spec)):
        for block, width in enumerate(widths):
            gone = {channel for s, b, channel in dropped if (s, b) == (stage, block)}
            keep = torch.tensor([channel for channel in range(width) if channel not in gone])
            _select_inner(cut, f"layer{stage + 1}.{block}", keep)
    return cut


def _select_inner(state: State, block: str, keep: Tensor) -> None:
    state[f"{block}.conv1.weight"] = state[f"{block}.conv1.weight"][keep]
    state[f"{block}.conv2.weight"] = state[f"{block}.conv2.weight"][:, keep]
    _select_norm(state, f"{block}.bn1", keep)


def _select_norm(state: State, name: str, keep: Tensor) -> None:
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"{name}.{part}"] = state[f"{name}.{part}"][keep]


def _cut_stream(spec: ResNetSpec, narrow: ResNetSpec, state: State) -> State:
    """Return the weights with fewer channels between the blocks, and as many inside as the narrow network has."""
    cut = dict(state)
    before: Tensor | None = None
    for stage, (blocks, width) in enumerate(zip(spec.blocks, narrow.widths, strict=True)):
        keep = _stream_channels(spec, state, stage, width)
        if stage == 0:
            cut["conv1.weight"] = cut["conv1.weight"][keep]
            _select_norm(cut, "bn1", keep)
            before = keep
        for block in range(blocks):
            assert before is not None
            _cut_block(cut, f"layer{stage + 1}.{block}", before, keep, _inner_widths(narrow)[stage][block])
            before = keep
    cut["linear.weight"] = cut["linear.weight"][:, before]
    return cut


def _stream_channels(spec: ResNetSpec, state: State, stage: int, width: int) -> Tensor:
    writers = [f"layer{stage + 1}.{block}.bn2" for block in range(spec.blocks[stage])]
    writers += ["bn1"] if stage == 0 else [f"layer{stage + 1}.0.shortcut.1"]
    importance = torch.stack([state[f"{name}.weight"].abs() for name in writers if f"{name}.weight" in state]).sum(0)
    return importance.topk(width).indices.sort().values


def _cut_block(cut: State, block: str, inputs: Tensor, outputs: Tensor, inner: int) -> None:
    cut[f"{block}.conv1.weight"] = cut[f"{block}.conv1.weight"][:, inputs]
    cut[f"{block}.conv2.weight"] = cut[f"{block}.conv2.weight"][outputs]
    _select_norm(cut, f"{block}.bn2", outputs)
    if f"{block}.shortcut.0.weight" in cut:
        cut[f"{block}.shortcut.0.weight"] = cut[f"{block}.shortcut.0.weight"][outputs][:, inputs]
        _select_norm(cut, f"{block}.shortcut.1", outputs)
    scale = cut[f"{block}.bn1.weight"].abs()
    _select_inner(cut, block, scale.topk(inner).indices.sort().values)


def load_cut(module: nn.Module, state: State) -> None:
    """Put cut weights into the pruned network; every tensor must fit."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    wrong = [name for name in missing if not name.endswith("num_batches_tracked")] + list(unexpected)
    if wrong:
        raise UsageError(f"the weights do not belong to this network: {', '.join(wrong[:5])}")
