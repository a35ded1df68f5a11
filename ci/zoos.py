"""Lower the public model zoos (pytorchcv, timm) with random weights and compare each network with PyTorch.

    python -m venv zoos && zoos/bin/pip install pytorchcv timm && zoos/bin/pip install -e .
    zoos/bin/python ci/zoos.py --rows rows.jsonl                # every network: hours, and may be stopped and resumed
    zoos/bin/python ci/zoos.py --rows rows.jsonl --mixture      # those that people of this field start from
    zoos/bin/python ci/zoos.py --rows rows.jsonl --again wrong  # what was wrong, once more

A network lowers if its program gives its logits (the largest error below 1e-3 of the largest logit; where float32 alone
is further off, float64 decides, and the table says so) and has as many ReLUs as PyTorch itself evaluates for that
output. It is refused if pibench says why. Anything else is wrong, and the script ends with 1. Structures are compared
without data first; values once for each structure. Nothing is downloaded: weights are random, BatchNorm statistics too,
so that folding them matters.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import signal
import sys
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MOST_PARAMETERS = 30_000_000
TOLERANCE = 1e-3
LOGITS = (10, 100, 1000)
LIKE_A_RELU = {"aten.relu", "aten.leaky_relu", "aten._prelu_kernel", "aten.clamp_min", "aten.rrelu_with_noise"}
# Words of a refusal, and what they say of a network: it is of the kind that no protocol here runs, or it should lower.
OF_THE_NETWORK = {
    "is no ReLU": "sigmoid, SiLU, GELU, hardswish and their like",
    "is not linear and no ReLU": "softmax or sigmoid in the middle",
    "multiplies two secret values": "products of two values",
    "product of two secret values": "products of two values",
    "of two secret values": "products of two values",
    "divides by a secret value": "products of two values",
    "statistics": "LayerNorm and other statistics of the image",
    "orders secret values": "an order of values",
    "compares values": "branches on values",
    "looks at values": "branches on values",
}
ANOTHER = "another reason"
CONVOLUTIONAL = {
    "byobnet", "convmixer", "cspnet", "densenet", "dla", "dpn", "efficientnet", "ghostnet", "hardcorenas", "hrnet",
    "inception_resnet_v2", "inception_v3", "inception_v4", "mobilenetv3", "nasnet", "pnasnet", "regnet", "repghost",
    "res2net", "resnest", "resnet", "resnetv2", "rexnet", "selecsls", "senet", "sknet", "tresnet", "vgg", "vovnet",
    "xception", "xception_aligned",
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A network of a zoo: which library, its name there, its family, and which data it is for."""

    library: str
    name: str
    family: str
    data: str


@dataclass(frozen=True)
class Row:
    """What became of a network."""

    library: str
    name: str
    family: str
    data: str
    outcome: str  # lowers, refused, wrong; or why it is none of this table's: large, another task, not made
    said: str = ""
    kinds: tuple[str, ...] = ()  # of its refusals
    relus: int = 0
    error: float = 0.0
    structure: str = ""
    like: str = ""  # the network of this structure whose values were compared

    @property
    def judged(self) -> bool:
        """Whether it is a network for classification of this size."""
        return self.outcome in ("lowers", "refused", "wrong")


class _Names(type):
    """The type of a class that has every attribute: its name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class _StandIn(types.ModuleType):
    """A module of torchvision that has every name: the zoos import it for data and detection, not for their layers."""

    __path__: list[str] = []
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
    """Counts scalars that torch itself compares in ReLUs and their kin on the way to one output, for one image."""

    def __init__(self, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._batch = batch
        self._calls: list[tuple[list[Tensor], list[Tensor], int]] = []  # what was read and made, and comparisons

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket).rstrip("_")
        each = int(name in LIKE_A_RELU)
        if name in ("aten.hardtanh", "aten.clamp"):
            each = sum(bound is not None for bound in args[1:3]) if name == "aten.clamp" else 2
        read = [item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)]
        count = each * read[0].numel() // self._batch if each else 0
        self._calls.append((read, [item for item in tree_leaves(made) if isinstance(item, Tensor)], count))
        return made

    def towards(self, output: Tensor) -> int:
        """Return how many scalars were compared in what the output was made of."""
        wanted, count = {id(output)}, 0
        for read, made, compared in reversed(self._calls):
            if any(id(tensor) in wanted for tensor in made):
                wanted.update(id(tensor) for tensor in read)
                count += compared
        return count


def candidates() -> Iterator[Candidate]:
    """Yield every network of both zoos that is for CIFAR or ImageNet."""
    from pytorchcv.model_provider import _models

    for name, make in _models.items():
        if any(word in name for word in ("svhn", "cub", "coco", "voc", "ade20k", "cityscapes", "celebamaskhq", "lip")):
            continue
        data = "cifar" if "cifar" in name else "imagenet"
        yield Candidate("pytorchcv", name, make.__module__.rsplit(".", 1)[-1], data)
    import timm

    for name in timm.list_models():
        yield Candidate("timm", name, timm.models.model_entrypoint(name).__module__.rsplit(".", 1)[-1], "imagenet")


def build(candidate: Candidate) -> tuple[nn.Module, tuple[int, ...]]:
    """Return the network with random weights, and the shape of its images."""
    torch.manual_seed(0)
    if candidate.library == "timm":
        import timm

        module = timm.create_model(candidate.name, pretrained=False)
        return module.eval(), tuple(module.pretrained_cfg["input_size"])
    from pytorchcv.model_provider import get_model

    module = get_model(candidate.name).eval()
    size = getattr(module, "in_size", (32, 32) if candidate.data == "cifar" else (224, 224))
    return module, (3, *size)


def randomised(module: nn.Module) -> nn.Module:
    """Give BatchNorms statistics and weights that matter, and biases and all else that starts at zero another value."""
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        if not weight.any():
            weight.data.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
            assert layer.running_var is not None
            layer.running_mean.copy_(0.2 * torch.randn(layer.running_mean.shape, generator=generator))
            layer.running_var.copy_(torch.empty(layer.running_var.shape).uniform_(0.5, 1.5, generator=generator))
            if layer.affine:
                layer.weight.data.copy_(torch.empty(layer.weight.shape).uniform_(0.5, 1.5, generator=generator))
                layer.bias.data.copy_(0.2 * torch.randn(layer.bias.shape, generator=generator))
    return module


class Judge:
    """Lowers networks one after the other; values are compared once for each structure."""

    def __init__(self, rows: Sequence[Row], *, values: bool) -> None:
        self._compares = values
        self._seen = {row.structure: row for row in rows if row.structure and not row.like}

    def judged(self, candidate: Candidate) -> Row:
        """Return what becomes of a network."""
        row = Row(**asdict(candidate), outcome="not made")
        try:
            with torch.device("meta"):
                module, shape = build(candidate)
        except Exception:  # some look at values when they are made
            try:
                module, shape = build(candidate)
            except Exception as error:
                return replace(row, said=_said(error))
        if sum(parameter.numel() for parameter in module.parameters()) > MOST_PARAMETERS:
            return replace(row, outcome="large")
        found = self._structure(row, module.to("meta"), shape)
        if found.outcome == "lowers" and (before := self._seen.get(found.structure)) is not None:
            return replace(found, like=before.name, outcome=before.outcome, error=before.error, said=before.said)
        if found.outcome == "lowers" and not self._compares:
            return found
        if found.outcome in ("large", "another task") or (found.outcome == "refused" and ANOTHER not in found.kinds):
            return found
        found = self._values(candidate, row, count=found.outcome != "lowers")
        if found.structure:
            self._seen[found.structure] = found
        return found

    def _structure(self, row: Row, module: nn.Module, shape: tuple[int, ...]) -> Row:
        """Lower without data."""
        return _lowered(row, module, torch.empty(2, *shape, device="meta"), count=True)[0]

    def _values(self, candidate: Candidate, row: Row, *, count: bool) -> Row:
        """Lower with data, and compare with PyTorch."""
        from pibench.lowering.reference import evaluate

        module, shape = build(candidate)
        module = randomised(module)
        images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
        row, made, wanted = _lowered(row, module, images, count=False)  # counting holds all tensors: what lowers alone
        if made is not None and count:
            row, made, wanted = _lowered(row, module, images, count=True)
        if made is None or wanted is None:
            return row
        row = replace(row, error=_off(evaluate(made.program, made.weights, images), wanted))
        if row.error < TOLERANCE:
            return row
        with torch.no_grad():
            exact = _first(module.double()(images.double()))[0]
        assert exact is not None
        error = _off(evaluate(made.program, made.weights, images, torch.float64), exact)
        said = f"error {error:.1e} in float64; in float32 {row.error:.1e}, and PyTorch's own {_off(wanted, exact):.1e}"
        return replace(row, outcome="lowers" if error < TOLERANCE else "wrong", error=error, said=said)


def _off(one: Tensor, other: Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return float((one.double() - other.double()).abs().max() / other.double().abs().max())


def _lowered(row: Row, module: nn.Module, images: Tensor, *, count: bool) -> tuple[Row, Any, Tensor | None]:
    """Return a network's row, and where it lowers the program and PyTorch's logits."""
    from pibench.errors import PibenchError
    from pibench.lowering.lower import lowered

    torchs = Comparisons(len(images)) if count else nullcontext()
    try:
        with torch.no_grad(), torchs:
            expected, output = _first(module(images))
    except Exception as error:
        return replace(row, said=_said(error)), None, None
    if expected is None:
        return replace(row, outcome="another task"), None, None
    try:
        made = lowered(module, images.shape[1:], check=False, output=output, dtype=torch.float64)
    except PibenchError as error:
        return replace(row, outcome="refused", said=_said(error), kinds=kinds_of(error)), None, None
    except Exception as error:
        return replace(row, outcome="wrong", said=_said(error)), None, None
    row = replace(row, outcome="lowers", relus=made.program.relu_count, structure=made.program.sha256)
    if isinstance(torchs, Comparisons) and (compared := torchs.towards(expected)) != row.relus:
        return replace(row, outcome="wrong", said=f"{row.relus:,} ReLUs, torch compares {compared:,}"), None, None
    return row, made, expected


def _first(made: Any) -> tuple[Tensor | None, str | None]:
    """Return the logits of a network, the first of several outputs, and the name of that output; None for no logits."""
    output = None
    if isinstance(made, tuple | list) and made and isinstance(made[0], Tensor):
        made, output = made[0], "0" if len(made) > 1 else None
    fits = isinstance(made, Tensor) and made.dim() == 2 and made.shape[1] in LOGITS
    return (made, output) if fits else (None, None)


def _said(error: BaseException) -> str:
    name = "" if type(error).__module__.startswith("pibench") else f"{type(error).__name__}: "
    return name + next(iter(str(error).splitlines()), "")


def kinds_of(error: BaseException) -> tuple[str, ...]:
    """Return the kinds of everything that is refused in a network."""
    said = getattr(error, "refused", ()) or (getattr(error, "what", ""),)
    kinds = (next((kind for words, kind in OF_THE_NETWORK.items() if words in line), ANOTHER) for line in said)
    return tuple(sorted(set(kinds)))


class TooLong(BaseException):
    """A network that takes more processor time than it is given."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooLong after so much of this process's time."""

    def stop(*_: Any) -> None:
        raise TooLong(f"not done after {seconds:.0f} s of processor time")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def mixture(found: Sequence[Candidate]) -> list[Candidate]:
    """Return what people of this field start from, chosen by name before anything was lowered.

    Of pytorchcv every CIFAR-100 network (of the families that have none, CIFAR-10's) but those of more than 500 layers,
    which repeat shallower ones, and the first two of each ImageNet family; of timm the first two of each family of
    convolutional networks (CONVOLUTIONAL), with those among them that have sigmoid gates, SiLU or GELU.
    """
    hundred = {candidate.family for candidate in found if candidate.name.endswith("cifar100")}
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for candidate in found:
        if candidate.data == "cifar":
            deep = any(word in candidate.name for word in ("542", "1001", "1202"))
            wanted = candidate.name.endswith("cifar100") or candidate.family not in hundred
            kept += [candidate] if wanted and not deep else []
        elif candidate.library == "pytorchcv" or candidate.family in CONVOLUTIONAL:
            seen[candidate.library, candidate.family] += 1
            kept += [candidate] if seen[candidate.library, candidate.family] <= 2 else []
    return kept


def table(rows: Sequence[Row]) -> str:
    """Return the outcome of every network, then how often each, and the reasons of refusals."""
    lines = [line_of(row) for row in rows if row.judged]
    judged = [row for row in rows if row.judged]
    of_relus = [row for row in judged if row.outcome != "refused" or ANOTHER in row.kinds]
    for words, chosen in (("networks", judged), ("of ReLUs and their kin", of_relus)):
        counts = Counter(row.outcome for row in chosen)
        structures = len({row.structure for row in chosen if row.outcome == "lowers"})
        total = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("lowers", "refused", "wrong"))
        lines.append(f"{len(chosen)} {words}: {total}; {structures} structures that lower")
    refused = [row for row in judged if row.outcome == "refused"]
    for kind in dict.fromkeys([*OF_THE_NETWORK.values(), ANOTHER]):
        having = [row for row in refused if kind in row.kinds]
        lines.append(f"  {len(having):>5} refused for {kind}, {sum(len(row.kinds) == 1 for row in having)} by it alone")
    others = Counter(row.outcome for row in rows if not row.judged)
    left_out = ", ".join(f"{count} {outcome}" for outcome, count in others.items())
    lines.append(f"not of this table: {left_out or 'none'}")
    return "\n".join(lines)


def line_of(row: Row) -> str:
    """Return one network's line."""
    told = row.said[:150]
    if row.outcome == "lowers":
        told = f"{row.relus:>12,} ReLUs  {row.said or f'error {row.error:.1e}'}"
    return f"{row.library:<10}{row.name:<44}{row.outcome:<9}{told}{f'  as {row.like}' if row.like else ''}"


def _kept(file: Path | None) -> dict[tuple[str, str], Row]:
    """Return the rows of an earlier run, the last of each network."""
    lines = file.read_text("utf-8").splitlines() if file is not None and file.exists() else []
    rows = [Row(**{**json.loads(line), "kinds": tuple(json.loads(line)["kinds"])}) for line in lines]
    return {(row.library, row.name): row for row in rows}


def main() -> int:
    """Print the table; 1 where a network is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", action="append", choices=("cifar", "imagenet"), help="which data's (default: both)")
    parser.add_argument("--mixture", action="store_true", help="those that people of this field start from")
    parser.add_argument("-k", default="", metavar="WORD", help="only names that hold this")
    parser.add_argument("--structures", action="store_true", help="compare ReLU counts alone, and no values")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="one of N parts of the names")
    parser.add_argument("--seconds", type=float, default=300.0, metavar="S", help="processor time a network (300)")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="keep rows here; what is there is not repeated")
    parser.add_argument("--again", default="", metavar="OUTCOME", help="repeat these, or what has `other` reasons")
    arguments = parser.parse_args()
    sys.meta_path.insert(0, _Finder())
    torch.set_num_threads(1)
    chosen = [c for c in candidates() if c.data in (arguments.of or ("cifar", "imagenet"))]
    chosen = mixture(chosen) if arguments.mixture else chosen
    number, parts = (int(word) for word in arguments.part.split("/"))
    chosen = [c for c in chosen if arguments.k in c.name][number - 1 :: parts]
    known = _kept(arguments.rows)
    known = {key: row for key, row in known.items() if not _repeated(row, arguments.again)}
    judge = Judge(list(known.values()), values=not arguments.structures)
    for candidate in chosen:
        if (candidate.library, candidate.name) in known:
            continue
        try:
            with within(arguments.seconds):
                row = judge.judged(candidate)
        except TooLong as error:
            row = Row(**asdict(candidate), outcome="not made", said=str(error))
        known[candidate.library, candidate.name] = row
        print(line_of(row), file=sys.stderr, flush=True)
        if arguments.rows:
            with arguments.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    rows = [known[c.library, c.name] for c in chosen]
    print(table(rows))
    return 1 if any(row.outcome == "wrong" for row in rows) else 0


def _repeated(row: Row, again: str) -> bool:
    return bool(again) and (row.outcome == again or (again == "other" and ANOTHER in row.kinds))


if __name__ == "__main__":
    sys.exit(main())
