"""Lower the public model zoos (pytorchcv, timm) with random weights and compare each network with PyTorch.

    python -m venv zoos && zoos/bin/pip install pytorchcv timm && zoos/bin/pip install -e .
    zoos/bin/python ci/zoos.py --of cifar --of imagenet --each 1 --jobs 2

A network lowers if its program gives its logits (the largest error below 1e-3 of the largest logit) and has as many
ReLUs as hooks on PyTorch's own calls count; it is refused if pibench says why; anything else is wrong, and the script
ends with 1. Nothing is downloaded: weights are random, BatchNorm statistics too, so that folding them matters.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import inspect
import json
import multiprocessing
import sys
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

MOST_PARAMETERS = 30_000_000
TOLERANCE = 1e-3
LIKE_A_RELU = {"aten.relu": 1, "aten.leaky_relu": 1, "aten._prelu_kernel": 1, "aten.clamp_min": 1}


@dataclass(frozen=True)
class Candidate:
    """A network of a zoo: which library, its name there, its family, and the shape of its images."""

    library: str
    name: str
    family: str
    data: str
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Row:
    """What became of a network."""

    library: str
    name: str
    outcome: str  # lowers, refused or wrong
    said: str = ""
    relus: int = 0
    error: float = 0.0


class _Names(type):
    """The type of a class that has every attribute: its name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class _StandIn(types.ModuleType):
    """A module of torchvision that has every name: the zoos import it for data and detection, not for their layers."""

    __path__: Sequence[str] = ()
    __spec__ = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Names(name, (nn.Module,), {})


class _Finder:
    """Answers every import of torchvision."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing to run."""


class Comparisons(TorchDispatchMode):
    """Counts scalars that torch itself compares in ReLUs and their kin, for one image."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.count, self._batch = 0, batch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket).rstrip("_")
        each = LIKE_A_RELU.get(name, 0)
        if name in ("aten.hardtanh", "aten.clamp"):
            each = sum(bound is not None for bound in args[1:3])
        self.count += each * args[0].numel() // self._batch if each else 0
        return func(*args, **(kwargs or {}))


def candidates() -> Iterator[Candidate]:
    """Yield every network for classification of both zoos."""
    from pytorchcv.model_provider import _models

    for name, make in _models.items():
        defaults = {k: p.default for k, p in inspect.signature(make).parameters.items()}
        family = make.__module__.rsplit(".", 1)[-1]
        cifar = any(word in name for word in ("cifar", "svhn"))
        size = defaults.get("in_size") or ((32, 32) if cifar else (224, 224))
        yield Candidate("pytorchcv", name, family, "cifar" if cifar else "imagenet", (3, *size))
    import timm

    for name in timm.list_models():
        family = timm.models.model_entrypoint(name).__module__.rsplit(".", 1)[-1]
        yield Candidate("timm", name, family, "imagenet", (3, 0, 0))


def build(candidate: Candidate) -> tuple[nn.Module, tuple[int, ...]]:
    """Return the network with random weights, and the shape of its images."""
    if candidate.library == "timm":
        import timm

        module = timm.create_model(candidate.name, pretrained=False)
        return module, tuple(module.pretrained_cfg["input_size"])
    from pytorchcv.model_provider import get_model

    module = get_model(candidate.name)
    return module, candidate.shape


def randomised(module: nn.Module) -> nn.Module:
    """Give BatchNorms statistics and weights that matter."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
            assert layer.running_var is not None
            layer.running_mean.copy_(0.2 * torch.randn(layer.running_mean.shape, generator=generator))
            layer.running_var.copy_(torch.empty(layer.running_var.shape).uniform_(0.5, 1.5, generator=generator))
            if layer.affine:
                layer.weight.data.copy_(torch.empty(layer.weight.shape).uniform_(0.5, 1.5, generator=generator))
                layer.bias.data.copy_(0.2 * torch.randn(layer.bias.shape, generator=generator))
    return module.eval()


def judged(candidate: Candidate) -> Row | None:
    """Lower one network and compare it; None where it is no network for classification of this size."""
    from pibench.errors import PibenchError
    from pibench.lowering.lower import lowered
    from pibench.lowering.reference import evaluate

    torch.manual_seed(0)
    try:
        with torch.device("meta"):
            if _parameters(build(candidate)[0]) > MOST_PARAMETERS:
                return None
    except Exception:  # not every zoo's network can be made without data
        pass
    module, shape = build(candidate)
    if _parameters(module) > MOST_PARAMETERS:
        return None
    module = randomised(module)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), Comparisons(len(images)) as torchs:
        expected = module(images)
    if isinstance(expected, tuple | list) and expected and isinstance(expected[0], Tensor):
        expected, output = expected[0], "0"
    else:
        output = None
    if not isinstance(expected, Tensor) or expected.dim() != 2 or expected.shape[1] not in (10, 100, 1000):
        return None
    row: dict[str, Any] = {"library": candidate.library, "name": candidate.name}
    try:
        made = lowered(module, shape, check=False, output=output)
    except PibenchError as error:
        return Row(**row, outcome="refused", said=str(error).splitlines()[0])
    except Exception as error:
        return Row(**row, outcome="wrong", said=f"{type(error).__name__}: {error}".splitlines()[0])
    with torch.no_grad():
        error = float((evaluate(made.program, made.weights, images) - expected).abs().max() / expected.abs().max())
    row |= {"relus": made.program.relu_count, "error": error}
    if error > TOLERANCE or not error >= 0:
        return Row(**row, outcome="wrong", said=f"logits differ by {error:.2g} of the largest")
    if made.program.relu_count != torchs.count and output is None:  # of several outputs one alone is wanted here
        return Row(**row, outcome="wrong", said=f"{made.program.relu_count:,} ReLUs, torch compares {torchs.count:,}")
    return Row(**row, outcome="lowers")


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _one(candidate: Candidate) -> Row | None:
    torch.set_num_threads(1)
    try:
        return judged(candidate)
    except Exception as error:
        print(f"{candidate.library}/{candidate.name} cannot be run by torch: {error!r}"[:160], file=sys.stderr)
        return None


def chosen(arguments: argparse.Namespace) -> list[Candidate]:
    """Return the networks that the command line asks for."""
    found = [c for c in candidates() if c.data in arguments.of and arguments.k in c.name]
    if not arguments.each:
        return _part(found, arguments.part)
    seen: Counter[tuple[str, str, str]] = Counter()
    kept = []
    for candidate in found:
        seen[candidate.library, candidate.family, candidate.data] += 1
        if seen[candidate.library, candidate.family, candidate.data] <= arguments.each:
            kept.append(candidate)
    return _part(kept, arguments.part)


def _part(found: list[Candidate], part: str) -> list[Candidate]:
    """Return one of n parts, `2/5`: a run of all takes hours."""
    number, parts = (int(word) for word in part.split("/"))
    return found[number - 1 :: parts]


def table(rows: Sequence[Row]) -> str:
    """Return the outcome of every network, then how often each."""
    lines = [
        f"{row.library:<10}{row.name:<44}{row.outcome:<9}"
        + (f"{row.relus:>12,} ReLUs  error {row.error:.1e}" if row.outcome == "lowers" else row.said[:150])
        for row in rows
    ]
    counts = Counter(row.outcome for row in rows)
    total = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("lowers", "refused", "wrong"))
    return "\n".join([*lines, f"{len(rows)} networks: {total}"])


def main() -> int:
    """Print the table; 1 where a network is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", action="append", choices=("cifar", "imagenet"), help="which data's (default: both)")
    parser.add_argument("--each", type=int, default=0, metavar="N", help="at most N networks a family (default: all)")
    parser.add_argument("-k", default="", metavar="WORD", help="only names that hold this")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="one of N parts of the names")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    arguments = parser.parse_args()
    arguments.of = arguments.of or ["cifar", "imagenet"]
    sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
    rows: list[Row] = []
    with multiprocessing.get_context("fork").Pool(arguments.jobs, maxtasksperchild=20) as pool:
        for row in pool.imap(_one, chosen(arguments)):
            rows += [row] if row is not None else []
            if row is not None:
                print(table([row]).splitlines()[0], file=sys.stderr, flush=True)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    return 1 if any(row.outcome == "wrong" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
