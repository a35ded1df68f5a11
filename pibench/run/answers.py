"""Are the private answers the network's? Classes and logits against plaintext, judged by the spread of the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pibench.errors import DataError, PartyError
from pibench.records.record import Accuracy, Correctness

Logits = NDArray[np.float64]
Labels = NDArray[np.int64]


def classes_of(logits: Logits) -> Labels:
    """Return the class of each image from logits (images, classes); a single logit tells two classes by its sign."""
    if logits.shape[1] == 1:
        return np.asarray(logits[:, 0] > 0, dtype=np.int64)
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)


def spread(reference: Logits) -> float:
    """Return the largest distance between two logits of one image, over a batch (images, classes).

    It is what an error is to be measured by: a class is told by differences, not by how large logits are. A single
    logit is told from 0; logits that are all alike leave nothing but their size.
    """
    if reference.shape[1] == 1:
        return float(np.abs(reference).max(initial=0.0))
    widest = float(np.ptp(reference, axis=1).max(initial=0.0))
    return widest or float(np.abs(reference).max(initial=0.0))


def check(logits: Logits, reference: Logits, tolerance: float) -> Correctness:
    """Compare private logits (images, classes) with the plaintext network's; `tolerance` is a share of their spread.

    Another class counts as a tie where the plaintext network's own margin between the two is within the tolerance.
    """
    if logits.shape != reference.shape:
        raise PartyError(f"the client got logits of shape {logits.shape}, the network has {reference.shape}")
    wide = spread(reference)
    differs = classes_of(logits) != classes_of(reference)
    ties = differs & (_margins(logits, reference) <= tolerance * (wide or 1.0))
    error = float(np.abs(logits - reference).max(initial=0.0))
    return Correctness(
        max_abs_logit_error=error if np.isfinite(error) else None, agreeing=int((~differs).sum()),
        ties=int(ties.sum()), n=len(differs), spread=wide or 1.0,
    )  # fmt: skip


def _margins(logits: Logits, reference: Logits) -> Logits:
    """Return how far plaintext was, for each image, from the class that was given in private."""
    if reference.shape[1] == 1:
        return np.abs(reference[:, 0])
    rows = np.arange(len(reference))
    return np.asarray(reference.max(axis=1) - reference[rows, classes_of(logits)])


def limit_of(found: Correctness, tolerance: float) -> float:
    """Return the largest logit error of a valid session (older records were judged absolutely)."""
    return tolerance if found.spread is None else tolerance * found.spread


def why_invalid(found: Correctness, tolerance: float) -> str | None:
    """Say why a session's answers are not the network's, or return None."""
    if found.max_abs_logit_error is None:
        return "some logit is not a finite number"
    reasons, limit = [], limit_of(found, tolerance)
    if found.max_abs_logit_error > limit:
        of = "" if found.spread is None else f", {tolerance:.3g} of the spread of {found.spread:.3g}"
        reasons.append(f"a logit is off by {found.max_abs_logit_error:.3g} (tolerance {limit:.3g}{of})")
    if changed := found.n - found.agreeing - found.ties:
        reasons.append(f"{changed} of {found.n} images got another class than in plaintext")
    return "; ".join(reasons) or None


def score(logits: Logits, labels: Labels | None) -> Accuracy | None:
    """Return how many answers match the label."""
    if labels is None or not len(labels):
        return None
    return Accuracy(correct=int((classes_of(logits) == labels).sum()), n=len(labels))


def checked_labels(labels: Any, images: int, logits: int, where: str = "labels") -> Labels:
    """Return labels as (images,) integers; DataError for whatever is not one class of the network's an image."""
    remedy = "give (n,) integers, one an image, counted from 0 (of one logit: 0 or 1)"
    try:
        given = np.asarray(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"labels cannot be read: {error}", where=where, remedy=remedy) from error
    if given.dtype != np.bool_ and not np.issubdtype(given.dtype, np.integer):
        raise DataError(f"labels are {given.dtype}, not integers", where=where, remedy=remedy)
    if given.shape != (images,):
        raise DataError(f"labels have shape {given.shape}, of {images} images", where=where, remedy=remedy)
    found: Labels = given.astype(np.int64)
    least, most, classes = found.min(initial=0), found.max(initial=0), max(logits, 2)
    if least < 0 or most >= classes:
        what = f"labels go from {least} to {most}, the network knows {classes} classes (0 to {classes - 1})"
        raise DataError(what, where=where, remedy=remedy)
    return found


def as_images(images: Any, where: str = "images") -> Any:
    """Return images as a float32 tensor (n, ...), from a tensor, an array or nested lists; DataError otherwise."""
    import torch

    try:
        made = torch.as_tensor(images).float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"images cannot be read: {error}", where=where, remedy="give a tensor (n, C, H, W)") from error
    if made.dim() < 2 or not len(made):
        raise DataError(f"images have shape {tuple(made.shape)}", where=where, remedy="give a tensor (n, C, H, W)")
    if not bool(torch.isfinite(made).all()):
        raise DataError("some pixel is not a finite number", where=where, remedy="see how they are normalised")
    return made
