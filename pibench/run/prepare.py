"""What a case runs: a network lowered, its weights and images each in a file of its owner's, and the plaintext answers.

Trained weights where there are any; random ones otherwise, with BatchNorm statistics measured so that activations stay
in range. A network with random weights has no accuracy, and none is made up for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pibench.errors import DataError, StoreError
from pibench.lowering.lower import lowered
from pibench.lowering.merge import merge
from pibench.lowering.program import Program, Weights
from pibench.lowering.reference import evaluate
from pibench.networks.build import build, stage_of
from pibench.networks.card import load_card
from pibench.records.record import Network
from pibench.run.advice import reach_of
from pibench.run.answers import as_images, checked_labels, score
from pibench.run.factory import call_factory
from pibench.run.images import seed_of, shown_by
from pibench.run.settings import Needs, OwnModel, Source

if TYPE_CHECKING:
    from pibench.networks.card import Card

EVALUATED_AT_ONCE = 100
TINY_SPREAD = 1e-6  # images all alike: nothing to calibrate on

Tell = Callable[[str], None]
Prepare = Callable[[str, Path, Needs], "Prepared"]


@dataclass(frozen=True)
class Prepared:
    """A network ready to run."""

    network: Network
    program: Program = field(repr=False)
    ops: list[dict[str, Any]] = field(repr=False)
    weights_path: Path
    masks_path: Path | None
    images: Tensor = field(repr=False)  # normalised, in the data set's order; sessions take them in turn
    labels: NDArray[np.int64] | None = field(repr=False)
    reference: NDArray[np.float64] = field(repr=False)  # plaintext logits of `images`
    weights_digest: str = ""  # of the weights that run, random ones too

    def turn(self, start: int, count: int) -> NDArray[np.int64]:
        """Return which images a session takes: `count` from `start` on, around the end."""
        return np.arange(start, start + count, dtype=np.int64) % len(self.images)

    def reach(self) -> float:
        """Return the largest value that a comparison or square sees in plaintext: what a protocol's range must hold."""
        from safetensors.torch import load_file

        return reach_of(self.program, load_file(self.weights_path), self.images)


def preparer(sources: Mapping[str, Source], tell: Tell) -> Prepare:
    """Return the function from a network's name to something that runs."""

    def prepare(name: str, folder: Path, needs: Needs) -> Prepared:
        source = sources[name]
        if isinstance(source, OwnModel):
            return prepare_model(source, folder, needs, tell)
        return prepare_card(load_card(source.card), folder, needs, tell, source.weights)

    return prepare


def prepare_card(card: Card, folder: Path, needs: Needs, tell: Tell, weights: Path | None = None) -> Prepared:
    """Prepare a card's network: `weights` if given, else its checkpoint if there is one, else random weights."""
    checkpoint = weights or trained(card, tell)
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(needs.seed, card.name))
        module = build(card.network).eval()
    shape = tuple(card.network.input)
    shown = shown_by(card.dataset, shape, needs)
    note = shown.note
    meta: dict[str, Any] = {}
    if checkpoint is not None:
        from pibench.training.runs import load_into

        meta = load_into(module, checkpoint, card.network)
    else:
        tell(f"{card.name}: no checkpoint, random weights (accuracy not known)")
        note = note or "random weights: no accuracy"
    images, labels = shown.images(shape, needs)
    facts = Network(
        card=card.name, title=card.title, method=card.method, dataset=card.dataset, sha256=card.sha256,
        published=tuple(p.model_dump(exclude_none=True) for p in card.published), note=note,
        checkpoint_accuracy=_checkpoint_accuracy(meta),
    )  # fmt: skip
    calibrating = None if checkpoint else shown.calibrating(shape, needs)
    return _finish(_Parts(module, facts, images, labels, calibrating, stage_of), folder, needs)


def prepare_model(own: OwnModel, folder: Path, needs: Needs, tell: Tell) -> Prepared:
    """Prepare a user's own module; random weights of its own making unless a file is given."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(needs.seed, own.factory))
        module = call_factory(own.factory).eval()
    if own.weights is not None:
        from pibench.training.runs import load_into

        load_into(module, own.weights, tell=lambda line: tell(f"{own.name}: {line}"))
    shown = shown_by(own.dataset, own.input_shape, needs, own.normalise)
    images, labels = shown.images(own.input_shape, needs)
    fresh = own.weights is None and not _has_statistics(module)
    notes = ("weights as the factory made them: no accuracy" if fresh else "", shown.note)
    facts = Network(
        card=own.name, title=own.name, dataset=shown.data.name if shown.data is not None else own.dataset,
        note="; ".join(note for note in notes if note) or None, method=own.method or "",
    )  # fmt: skip
    calibrating = shown.calibrating(own.input_shape, needs) if fresh else None
    return _finish(_Parts(module, facts, images, labels, calibrating, None, own.output, shown.classes), folder, needs)


def prepare_instance(name: str, module: nn.Module, images: Any, labels: Any, folder: Path, needs: Needs) -> Prepared:
    """Prepare a module as it stands, with the weights that it holds, images (n, C, H, W) and labels (n,) or None."""
    facts = Network(card=name, title=name, note=None if labels is not None else "no labels were given: no accuracy")
    return _finish(_Parts(module, facts, as_images(images), labels, None, None), folder, needs)


def trained(card: Card, tell: Tell) -> Path | None:
    """Return the card's checkpoint, trained now where that is a matter of seconds; None where there is none."""
    from pibench.training import ensure_trained

    return ensure_trained(card, tell)


@dataclass(frozen=True)
class _Parts:
    module: nn.Module
    facts: Network
    images: Tensor
    labels: Any  # one integer an image, or None; checked when the number of logits is known
    calibrating: Tensor | None  # what random weights measure their BatchNorm statistics on; None: they are trained
    stage_of: Callable[[str], str] | None
    output: str | None = None  # of a network with several
    classes: tuple[str, ...] = ()  # folders that the labels stand for


def _finish(parts: _Parts, folder: Path, needs: Needs) -> Prepared:
    """Lower, write each owner's file, and compute the plaintext answers."""
    trained = parts.calibrating is None
    if parts.calibrating is not None:
        calibrate(parts.module, parts.calibrating)
    with contextlib.redirect_stdout(sys.stderr):  # what a forward prints is none of the answer
        made = lowered(parts.module, tuple(parts.images.shape[1:]), parts.stage_of, output=parts.output)
    program, weights = made.program, made.weights
    folder.mkdir(parents=True, exist_ok=True)
    digest = _digest(weights)
    answers = plain_logits(program, weights, parts.images)  # of the network as it was lowered
    labels = None
    if trained and parts.labels is not None:
        _check_classes(parts.classes, answers.shape[1], parts.facts.dataset)
        labels = checked_labels(parts.labels, len(parts.images), answers.shape[1], parts.facts.dataset or "labels")
    found = counts(program, weights)
    if needs.merge:
        program, weights, merged = merge(program, weights)
        found["macs_run"] = merged.macs_after
    shown = min(len(parts.images), needs.plain_images)
    accuracy = score(answers[:shown], None if labels is None else labels[:shown])
    facts = parts.facts.model_copy(
        update={
            **found, "program_sha256": program.sha256, "plain_accuracy": accuracy,
            "weights_sha256": digest if trained else None,
            "note": "; ".join(note for note in (parts.facts.note, *made.notes) if note) or None,
        }
    )  # fmt: skip
    kept = min(len(parts.images), needs.images)
    return Prepared(
        network=facts, program=program, ops=program.to_json(), weights_digest=digest,
        weights_path=_write(folder / "weights.safetensors", weights),
        masks_path=_write(folder / "masks.safetensors", dict(program.masks)) if program.masks else None,
        images=parts.images[:kept], labels=None if labels is None else labels[:kept], reference=answers[:kept],
    )  # fmt: skip


def _check_classes(folders: Sequence[str], logits: int, dataset: str | None) -> None:
    """Refuse folders that are not one a class: which stands for which would be a guess."""
    if folders and len(folders) != max(logits, 2):
        raise DataError(
            f"{len(folders)} folders of classes ({', '.join(folders[:3])}{', ...' * (len(folders) > 3)}), and the "
            f"network tells {max(logits, 2)}", where=str(dataset),
            remedy="one folder a class, empty ones too, in the order of their names; or name folders by class numbers",
        )  # fmt: skip


def counts(program: Program, weights: Weights) -> dict[str, Any]:
    """Return what the record says of a lowered program's size."""
    from pibench.networks.census import census

    found = census(program)
    return {
        "relu_count": program.relu_count, "macs": found.macs, "macs_merged": found.macs_merged, "macs_run": found.macs,
        "parameters": found.parameters, "relu_rounds": found.relu_rounds,
    }  # fmt: skip


def plain_logits(program: Program, weights: Weights, images: Tensor) -> NDArray[np.float64]:
    """Return the plaintext network's logits."""
    chunks = [evaluate(program, weights, chunk) for chunk in torch.split(images, EVALUATED_AT_ONCE)]
    return torch.cat(chunks).double().numpy()


@torch.no_grad()
def calibrate(module: nn.Module, images: Tensor) -> None:
    """Measure the BatchNorm statistics of random weights on some images, so that no activation runs away."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms or float(images.std()) < TINY_SPREAD:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over the batches seen
        norm.train()
    try:
        module(images)
    except Exception:  # lowering says what is wrong, and where
        return
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _has_statistics(module: nn.Module) -> bool:
    """Whether any BatchNorm's statistics are not as a constructor makes them: training left them, and they stay."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return any(
        m.running_mean is not None and m.running_var is not None
        and bool((m.running_mean != 0).any() or (m.running_var != 1).any())
        for m in norms
    )  # fmt: skip


def _checkpoint_accuracy(meta: dict[str, Any]) -> dict[str, Any] | None:
    if meta.get("accuracy") is None:
        return None
    return {"accuracy": float(meta["accuracy"]), "n": int(meta.get("n_test", 0))}


def _digest(weights: Weights) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, tensors: dict[str, Tensor]) -> Path:
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path)
    except Exception as error:  # safetensors raises its own type for a full disk
        raise StoreError(f"cannot be written: {error}", where=str(path), remedy="is the disk full?") from error
    return path


def write_images(path: Path, images: Tensor, chosen: Sequence[int] | NDArray[np.int64]) -> Path:
    """Write a session's images for its client."""
    return _write(path, {"images": images[torch.as_tensor(np.asarray(chosen))]})
