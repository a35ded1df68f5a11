"""From a training result to a file of the zoo: as few bits as keep its accuracy, measured again on what is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pibench.errors import DataError
from pibench.networks.build import build
from pibench.networks.card import Card, load_card
from pibench.training.checkpoint import Form, load_checkpoint, packed, save_checkpoint, unpacked
from pibench.training.data import Dataset, load_dataset
from pibench.training.judging import Judgement, judge
from pibench.training.metadata import require_network
from pibench.training.zoo import write_index

MAX_BYTES = 12_000_000
MAX_CHANGE = 0.05  # points of accuracy, up or down, that fewer bits may make before the next wider form is taken
FORMS: tuple[Form, ...] = ("int8", "float16", "float32")


def ship(checkpoint: Path, zoo: Path, data: Dataset | None = None) -> Path:
    """Write a checkpoint into the zoo in 8 bits, or 16, or 32: the fewest that keep its accuracy.

    Where none within MAX_BYTES keeps it, the most bits that fit. The accuracy in the file is that of the
    shipped weights on all test images. Raises DataError where the file is no training result, of another network
    than its card's, or too large in 8 bits.
    """
    state, meta = load_checkpoint(checkpoint)
    if "card" not in meta or "accuracy" not in meta:
        raise DataError("says neither its card nor its accuracy", where=str(checkpoint))
    card = load_card(meta["card"])
    require_network(checkpoint, meta, card.network)
    data = data or load_dataset(card.dataset, train=False)
    forms = [form for form in FORMS if _bytes(packed(state, form)) <= MAX_BYTES]
    if not forms:
        raise DataError(f"takes more than {MAX_BYTES / 1e6:.0f} MB even in 8 bits", where=str(checkpoint))
    for form in forms:
        small = packed(state, form)
        told = _judged(card, unpacked(small), data)
        if abs(told.accuracy - meta["accuracy"]) <= MAX_CHANGE + 1e-9:
            break
    target = zoo / f"{card.name}.safetensors"
    save_checkpoint(target, small, shipped_metadata(meta, form, told))
    write_index(zoo)
    return target


def shipped_metadata(meta: dict[str, Any], form: Form, told: Judgement) -> dict[str, Any]:
    """Return the metadata of the shipped file: its own accuracy beside that of the trained weights."""
    trained = {"accuracy": meta["accuracy"], "n_test": meta.get("n_test")}
    own = {"accuracy": told.accuracy, "n_test": sum(told.shown), "worst_class": told.worst}
    return {**meta, "form": form, **own, "trained": trained}


def worst_class_of(checkpoint: Path, card: Card) -> dict[str, Any]:
    """Return which class a checkpoint tells right least often, and how often, on all test images."""
    return _judged(card, load_checkpoint(checkpoint)[0], load_dataset(card.dataset, train=False)).worst


def _bytes(state: dict[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in state.values())


def _judged(card: Card, state: dict[str, Tensor], data: Dataset) -> Judgement:
    module = build(card.network)
    own = module.state_dict()
    module.load_state_dict({**own, **{name: value.to(own[name].dtype) for name, value in state.items()}})
    return judge(module, data.test_images, data.test_labels, data)
