"""Methods that start from the trained network: masks, channel pruning, polynomials. A search, then tuning.

What each search does stands in its own module (snl.py, senet.py, coordinate.py, taylor.py, pruning.py, polynomial.py);
here is only the order.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from pibench.errors import UsageError
from pibench.networks.spec import AnyNetwork
from pibench.reduction.steps import changed_any
from pibench.reduction.study import Results, Study, Wave
from pibench.reduction.tasks import Action, Option, Task

SNL_WEIGHT = 0.5  # of the teacher's part and of the cross-entropy: equal, as in SNL's public code


@dataclass(frozen=True)
class _Kind:
    """A method's search, and what its networks' cards say."""

    action: Action
    method: str
    title: str
    provenance: str
    note: str
    options: Mapping[str, Option] = field(default_factory=dict)  # of the search
    tuning: Mapping[str, Option] = field(default_factory=dict)  # of the training after it
    retrain: bool = False  # as long and as fast as the base network, where the search leaves little of it


def _two_steps(study: Study, kind: _Kind, network: AnyNetwork) -> Generator[Wave, Results, list[Task]]:
    base = study.base()
    yield [base]
    shares = [study.percent(budget, study.card.relu_count) for budget in study.budgets]
    searches = [
        study.search(f"{kind.action}-search-{share}", kind.action, network, {"budget": budget, **kind.options})
        for budget, share in zip(study.budgets, shares, strict=True)
    ]
    results = yield searches
    students = [
        study.tuned(
            f"{kind.action}-{share}", f"{kind.title} to {budget:,} ReLUs", results[search.key], kind.method,
            retrain=kind.retrain, provenance=kind.provenance, note=kind.note, options=dict(kind.tuning),
        )
        for budget, share, search in zip(study.budgets, shares, searches, strict=True)
    ]  # fmt: skip
    yield students
    return [base, *students]


def snl(study: Study) -> Generator[Wave, Results, list[Task]]:
    """Linearize selectively: gates with L1, cut at the budget, then tuned under the teacher."""
    note = (
        "Loss, threshold and factor as in the public code; gates and lambda move faster where there are few steps; "
        "rate and length of fine-tuning are this project's."
    )
    study = replace(study, distillation={**study.distillation, "weight": SNL_WEIGHT})
    options: dict[str, Option] = {
        "granularity": study.word("granularity", "pixel"),
        "threshold": study.number("threshold", 1e-2),
        "strength": study.number("strength", 1e-5),
        "growth": study.number("growth", 1.1),
    }
    kind = _Kind("snl", "snl", "SNL", "confirmed", note, options)
    return (yield from _two_steps(study, kind, changed_any(study.card.network, activation="masked")))


def senet(study: Study) -> Generator[Wave, Results, list[Task]]:
    """Share the budget out by layer sensitivity, find each layer's mask, then tune with activation matching."""
    note = "Reconstructed from descriptions: no official code was found."
    options: dict[str, Option] = {
        "granularity": study.word("granularity", "pixel"),
        "density": study.number("density", 0.1),
    }
    if shares := study.word("shares", ""):
        options["shares"] = _shares(shares)
    kind = _Kind("senet", "senet", "SENet", "reconstructed", note, options, {"match": study.number("match", 1000.0)})
    return (yield from _two_steps(study, kind, changed_any(study.card.network, activation="masked")))


def _shares(text: str) -> str:
    """Return shares as they were given, if they are numbers."""
    words = text.split(",")
    if not all(word.strip().replace(".", "", 1).isdigit() for word in words) or not any(map(float, words)):
        raise UsageError(f"shares of the stages are numbers with commas, not '{text}'", remedy="shares=16,13,33,38")
    return text


def coordinate(study: Study) -> Generator[Wave, Results, list[Task]]:
    """Close random blocks of ReLUs, of some drawn the one that costs least, between epochs under the teacher; tune."""
    note = "From the abstract and earlier defaults; when blocks close and how they are judged is this project's."
    options: dict[str, Option] = {
        "granularity": study.word("granularity", "pixel"),
        "block": int(study.number("block", 100)),
        "tries": int(study.number("tries", 100)),
        "judged": int(study.number("judged", 256)),
        "tolerance": study.number("tolerance", 0.0),
        "within": study.word("within", "site"),
    }
    kind = _Kind("coordinate", "coordinate", "coordinate descent", "reconstructed", note, options)
    return (yield from _two_steps(study, kind, changed_any(study.card.network, activation="masked")))


def taylor(study: Study) -> Generator[Wave, Results, list[Task]]:
    """Close the ReLUs of least second-order Taylor importance, with epochs under the teacher between; tune."""
    note = "Importance by Fisher's information, measured anew before every epoch: this project's reading of the idea."
    options: dict[str, Option] = {
        "granularity": study.word("granularity", "pixel"),
        "judged": int(study.number("judged", 4096)),
    }
    kind = _Kind("taylor", "taylor", "Taylor importance", "reconstructed", note, options)
    return (yield from _two_steps(study, kind, changed_any(study.card.network, activation="masked")))


def prune(study: Study) -> Generator[Wave, Results, list[Task]]:
    """Prune channels by BatchNorm scale: the baseline of DeepReDuce's poster."""
    note = "Which pruning the poster compares with is not known; this one ranks channels by BatchNorm scale."
    macs = study.settings.get("macs")
    options: dict[str, Option] = {"macs": int(macs) if macs else None}
    kind = _Kind("prune", "pruning", "channel pruning", "reconstructed", note, options, retrain=True)
    return (yield from _two_steps(study, kind, study.card.network))


def poly(study: Study) -> Generator[Wave, Results, list[Task]]:
    """Put polynomials at the least sensitive sites (DELPHI's choice by layer) and learn their coefficients."""
    note = "Sites by the sensitivity that SENet's budgets use, coefficients from a fit: an interpretation."
    kind = _Kind("poly", "poly", "polynomials", "reconstructed", note)
    return (yield from _two_steps(study, kind, study.card.network))
