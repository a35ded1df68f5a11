"""Which convolutions the papers' counting leaves out once culling and thinning leave them without a ReLU between.

DeepReDuce's comparison with channel pruning quotes 87.7M and 66.5M for two culled ResNet56. The figures follow from
its 125.49M multiply-accumulates by this rule, the simplest found that gives both (the paper states none):

1. of two convolutions with nothing but BatchNorm between them, the second does not count;
2. in a residual block without ReLUs inside, neither does the convolution of its shortcut;
3. before the network's first ReLU, where everything is one linear map of the image, a run of residual blocks
   with identity shortcuts never counts more than two convolutions.

Depthwise and grouped convolutions are left alone: merging them would make a dense one.
"""

from __future__ import annotations

from dataclasses import dataclass

from pibench.lowering.program import Add, Conv, MaxPool, Op, PadChannels, Poly, Program, Relu, Slice

_NONLINEAR = (Relu, Poly, MaxPool)


@dataclass(frozen=True)
class _Block:
    """A residual block without ReLUs inside: from the value `fork` to the sum `join`."""

    fork: str
    join: str
    convolutions: tuple[str, ...]  # of the main path, last first
    shortcut: tuple[str, ...]  # convolutions of the shortcut
    identity: bool


def merged_away(program: Program) -> set[str]:
    """Return the names of the convolutions that do not count."""
    ops = {op.name: op for op in program}
    readers = {name: len(program.readers(name)) for name in ops}
    away = {op.name for op in program if isinstance(op, Conv) and _follows(op, ops, readers)}
    blocks = [block for op in program if isinstance(op, Add) and (block := _block(op, ops, readers))]
    for block in blocks:
        away.update(block.shortcut)
    linear = _before_first_relu(program)
    position: dict[str, int] = {}  # place of each identity block of the prefix in its run, by the name of its sum
    for block in blocks:
        if block.identity and block.join in linear:
            position[block.join] = position.get(block.fork, 0) + 1
            if position[block.join] > 2:
                away.update(block.convolutions)
    return away


def _follows(op: Conv, ops: dict[str, Op], readers: dict[str, int]) -> bool:
    """Return whether an ordinary convolution reads another one that nothing else reads."""
    before = ops[op.inputs[0]]
    return isinstance(before, Conv) and before.groups == op.groups == 1 and readers[before.name] == 1


def _block(join: Add, ops: dict[str, Op], readers: dict[str, int]) -> _Block | None:
    """Return the block that a sum closes, if both of its paths are linear and start at one value."""
    paths = [_path(name, ops, readers) for name in join.inputs]
    main, shortcut = sorted(paths, key=lambda path: len(path[0]), reverse=True)
    if main[1] != shortcut[1]:
        return None
    convolutions = [tuple(op.name for op in path if isinstance(op, Conv)) for path, _ in (main, shortcut)]
    return _Block(main[1], join.name, convolutions[0], convolutions[1], identity=not shortcut[0])


def _path(name: str, ops: dict[str, Op], readers: dict[str, int]) -> tuple[list[Op], str]:
    """Walk back over linear operations with one reader; return them and the value that they start from."""
    path: list[Op] = []
    while readers[name] == 1 and isinstance(op := ops[name], Conv | Slice | PadChannels):
        path.append(op)
        name = op.inputs[0]
    return path, name


def _before_first_relu(program: Program) -> set[str]:
    """Return the values that no activation comes before."""
    linear: set[str] = set()
    for op in program:
        if not isinstance(op, _NONLINEAR) and all(name in linear for name in op.inputs):
            linear.add(op.name)
    return linear
