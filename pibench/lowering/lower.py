"""From any torch module to a program: record what it does to an image, write each call as operations, compare.

Module names survive, so that a ReLU site is called what the network's author called it.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pibench.errors import PibenchError, UnsupportedLayer, UsageError
from pibench.lowering.builder import Ref
from pibench.lowering.inference import inference_copy
from pibench.lowering.pointwise import Form, value_of
from pibench.lowering.program import Program, Shape, Weights
from pibench.lowering.recorder import BATCH, Ending, Recorder, Refusal, StageOf, Traced, is_whole
from pibench.lowering.reference import evaluate

_TOLERANCE = 1e-3  # of the largest logit: far above rounding, far below a wrong operation


@dataclass(frozen=True)
class Lowered:
    """A network as a program, and what was left out of it."""

    program: Program
    weights: Weights
    notes: tuple[str, ...] = ()


def lower(
    module: nn.Module, input_shape: Sequence[int], stage_of: StageOf | None = None, *, check: bool = True,
    output: str | None = None,
) -> tuple[Program, Weights]:  # fmt: skip
    """Return the program and the weights of `lowered`, of a part of a network too, which ends in no row of logits."""
    made = _made(module, input_shape, stage_of, check=check, output=output, row=False, dtype=torch.float32)
    return made.program, made.weights


def lowered(
    module: nn.Module, input_shape: Sequence[int], stage_of: StageOf | None = None, *, check: bool = True,
    output: str | None = None, dtype: torch.dtype = torch.float32,
) -> Lowered:  # fmt: skip
    """Lower a module in inference mode to a program and its weights (of `dtype`; BatchNorm is folded in float64).

    `stage_of` maps a module path to its stage; without it the path's first part is the stage. `output` names the
    output to take of a network with several. `check` compares the program with the module on two random images (modules
    without data, on the meta device, are not compared). Raises UnsupportedLayer for what private inference here cannot
    express, or for an output that is no row of logits, and UsageError for a module that fails on such an input.
    """
    return _made(module, input_shape, stage_of, check=check, output=output, row=True, dtype=dtype)


def _made(
    module: nn.Module, input_shape: Sequence[int], stage_of: StageOf | None, *, check: bool, output: str | None,
    row: bool, dtype: torch.dtype,
) -> Lowered:  # fmt: skip
    inference = inference_copy(module)
    root = nn.Sequential(inference) if is_whole(inference) and not _own_forward(inference) else inference
    recorder = Recorder(tuple(input_shape), stage_of or _first_part)
    made = _picked(_recorded(recorder, root), output, type(inference).__name__)
    if row:
        made = _row(made, type(inference).__name__)
    if isinstance(made.value, Refusal):
        raise _all_refused(made.value, recorder.refused)
    ending = made.value if isinstance(made.value, Ending) else None
    program, weights = recorder.builder.finish(_logits(made.value))
    if check and not any(w.is_meta for w in weights.values()):
        _compare(inference, program, weights, output, ending)
    note = f"the {ending.name} at its end is left out: the answer is the logits before it" if ending else ""
    return Lowered(program, {name: w.to(dtype) for name, w in weights.items()}, (note,) if note else ())


def _logits(value: Form | Ending) -> Ref:
    return value_of(value.form if isinstance(value, Ending) else value)


def _own_forward(module: nn.Module) -> bool:
    """Whether a module without parts is a network that its author wrote, and not one layer of torch's."""
    return not type(module).__module__.startswith(("torch.nn", "pibench.networks.activations"))


def _recorded(recorder: Recorder, module: nn.Module) -> Any:
    """Run the module on shapes; what goes wrong in its code is said with its file and line."""
    try:
        return recorder.run(module)
    except PibenchError:
        raise
    except Exception as error:
        raise user_error(error, f"{type(module).__name__} fails in its forward") from error


def user_error(error: BaseException, what: str, place: str = "") -> UsageError:
    """Return a message about an error in a user's code, with the file and line where it arose."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _ours(f.filename)]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else place
    where = f" ({place})" if place else ""
    message = next(iter(str(error).splitlines()), "")
    return UsageError(f"{what}: {type(error).__name__}: {message}{where}".replace(": : ", ": "))


def _ours(file: str) -> bool:
    inside = (Path(torch.__file__).parent, Path(__file__).parent.parent)
    return file.startswith("<") or any(Path(file).is_relative_to(folder) for folder in inside)


def leaves(output: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that a module returned, by their place: 0, aux.1, logits."""
    if isinstance(output, Tensor):
        yield name or "0", output
    elif isinstance(output, dict | list | tuple):
        items = output.items() if isinstance(output, dict) else enumerate(output)
        for key, item in items:
            yield from leaves(item, f"{name}.{key}" if name else str(key))


def _picked(output: Any, wanted: str | None, name: str) -> Traced:
    """Return the one output, or the one that is wanted."""
    found = dict(leaves(output))
    shapes = ", ".join(f"{key} {tuple(value.shape[1:])}" for key, value in found.items())
    if not found:
        raise UnsupportedLayer(f"{name} returns a {type(output).__name__}, and not a tensor of logits")
    if wanted is not None and wanted not in found:
        raise UsageError(f"{name} has no output {wanted!r}", where="--output", remedy=f"it has {shapes}")
    if wanted is None and len(found) > 1:
        remedy = f"say which are the logits: --output NAME; it returns {shapes}"
        raise UnsupportedLayer(f"{name} returns {len(found)} tensors", remedy=remedy)
    chosen = found[wanted] if wanted is not None else next(iter(found.values()))
    if not isinstance(chosen, Traced):
        raise UnsupportedLayer(f"{name}'s output does not depend on the image by calls that torch can show")
    return chosen


def _row(made: Traced, name: str) -> Traced:
    """Return the output as one row of logits an image; (10, 1, 1) is one, a picture is none."""
    shape = tuple(made.shape[1:])
    if isinstance(made.value, Refusal) or len(shape) == 1:
        return made
    if sum(size > 1 for size in shape) > 1:
        raise UnsupportedLayer(
            f"{name} returns values of shape {shape} for an image, which is no row of logits",
            remedy="private inference here is for classification: return (images, classes)",
        )
    ending = made.value
    if isinstance(ending, Ending):  # softmax over such a row is softmax over the row
        made.value = ending.form
        flat: Traced = made.reshape(len(made), -1)  # type: ignore[assignment]
        assert isinstance(flat.value, Form)
        flat.value = dataclasses.replace(ending, form=flat.value, function=_over_rows(ending.function, shape))
        return flat
    return made.reshape(len(made), -1)  # type: ignore[return-value]


def _over_rows(function: Callable[[Tensor], Tensor], shape: Shape) -> Callable[[Tensor], Tensor]:
    return lambda row: function(row.reshape(len(row), *shape)).reshape(len(row), -1)


def _all_refused(first: Refusal, refused: Sequence[UnsupportedLayer]) -> UnsupportedLayer:
    """Return the error of the output, and how much else would stand in the way."""
    others = [error for error in refused if error is not first.error]
    if not others:
        return first.error
    places = ", ".join(error.where.removeprefix("module ") for error in others[:3])
    more = f"{first.error.what}\n  {len(others)} more operations are refused ({places}{', ...' * (len(others) > 3)})"
    whole = UnsupportedLayer(more, where=first.error.where, remedy=first.error.remedy)
    whole.refused = tuple(f"{error.where}: {error.what}" for error in (first.error, *others))
    return whole


@torch.no_grad()
def _compare(module: nn.Module, program: Program, weights: Weights, output: str | None, ending: Ending | None) -> None:
    """Refuse a program that computes something else: recording does not see every change in place.

    Where float32 alone tells them apart, as in a deep network without statistics, float64 decides, by weights
    that are not rounded yet.
    """
    for dtype in (torch.float32, torch.float64):
        images = torch.randn(BATCH, *program.input_shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        found = dict(leaves(module.to(dtype)(images)))
        expected = found[output] if output is not None else next(iter(found.values()))
        got = evaluate(program, weights, images, dtype)
        got = (got if ending is None else ending.function(got)).reshape(expected.shape)
        error, largest = float((got - expected).abs().max()), float(expected.abs().max())
        if error <= _TOLERANCE * largest or not largest > 0:
            return
    raise UnsupportedLayer(
        f"the lowered program differs from {type(module).__name__} by {error:.3g} of {largest:.3g} on random images",
        remedy="a view changed in place and read again under another name is the usual cause: write y = y + x",
    )


def _first_part(site: str) -> str:
    return site.split(".", 1)[0] if "." in site else ""


__all__ = ["Lowered", "Shape", "lower", "lowered", "user_error"]
