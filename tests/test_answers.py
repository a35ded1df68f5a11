"""Valid means valid: private answers judged by the spread of the plaintext logits, labels that are classes, advice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pibench.errors import DataError
from pibench.mpc.spec import spec_of
from pibench.records.record import Case, Correctness, Network
from pibench.run.advice import advice
from pibench.run.answers import as_images, check, checked_labels, classes_of, limit_of, score, spread, why_invalid

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("size", [1e-4, 0.04, 1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_all_zeros_are_never_valid_and_fixed_point_of_that_size_always_is(size: float, offset: float) -> None:
    reference = size * RANDOM.standard_normal((8, 10)) + offset * size
    assert why_invalid(check(np.zeros_like(reference), reference, 0.01), 0.01)
    assert why_invalid(check(np.full_like(reference, reference.mean()), reference, 0.01), 0.01)
    near = reference + 1e-3 * size * RANDOM.uniform(-1, 1, reference.shape)
    assert why_invalid(check(near, reference, 0.01), 0.01) is None


def test_another_class_is_invalid_unless_plaintext_could_not_tell_the_two_apart() -> None:
    reference = np.array([[0.0, 1.0, 0.9999], [0.0, 1.0, 0.5]])
    tie = np.array([[0.0, 0.9999, 1.0], [0.0, 1.0, 0.5]])
    found = check(tie, reference, 0.01)
    assert (found.agreeing, found.ties, why_invalid(found, 0.01)) == (1, 1, None)
    flipped = check(np.array([[0.0, 1.0, 0.9999], [0.0, 0.7, 0.8]]), reference, 0.01)
    assert "1 of 2 images got another class" in str(why_invalid(flipped, 0.01))


def test_logits_all_alike_are_measured_by_their_size() -> None:
    flat = np.full((3, 4), 5.0)
    assert why_invalid(check(flat + 1e-3, flat, 0.01), 0.01) is None
    assert why_invalid(check(flat * 0, flat, 0.01), 0.01)
    nothing = np.zeros((3, 4))
    assert why_invalid(check(nothing + 1e-5, nothing, 0.01), 0.01) is None


def test_logits_that_are_no_numbers_are_invalid() -> None:
    found = check(np.full((2, 3), np.nan), np.ones((2, 3)), 0.01)
    assert why_invalid(found, 0.01) == "some logit is not a finite number"


def test_an_older_record_was_judged_absolutely() -> None:
    assert limit_of(Correctness(max_abs_logit_error=0.1, agreeing=1, n=1), 0.05) == 0.05


def test_one_logit_tells_two_classes_by_its_sign() -> None:
    logits = np.array([[0.3], [-0.2], [2.0]])
    assert list(classes_of(logits)) == [1, 0, 1]
    assert score(logits, np.array([1, 0, 0])).correct == 2
    assert spread(logits) == 2.0
    assert "1 of 3 images" in str(why_invalid(check(-logits * [[1], [-1], [-1]], logits, 0.01), 0.01))


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (torch.zeros(10, 1, dtype=torch.int64), "shape (10, 1)"),
        (torch.eye(10, dtype=torch.int64), "shape (10, 10)"),
        ([0, 1, 2], "shape (3,)"),
        (torch.zeros(10), "float32"),
        ([10] * 10, "0 to 9"),
        ([-1] * 10, "from -1"),
        ([[1], [1, 2]], "cannot be read"),
        (["cat"] * 10, "not integers"),
    ],
)
def test_labels_that_are_not_one_class_an_image_are_refused(labels: object, word: str) -> None:
    with pytest.raises(DataError, match=r"one an image") as caught:
        checked_labels(labels, 10, 10)
    assert word in str(caught.value)


def test_labels_and_images_may_be_lists_and_arrays() -> None:
    assert list(checked_labels([0, 1, 9], 3, 10)) == [0, 1, 9]
    assert list(checked_labels([True, False], 2, 1)) == [1, 0]
    assert as_images(np.zeros((2, 1, 8, 8))).dtype == torch.float32
    for wrong in ("pictures", np.zeros(3), np.full((1, 1, 2, 2), np.nan)):
        with pytest.raises(DataError):
            as_images(wrong)


def _wrong(protocol: str, error: float, **options: int) -> Case:
    from fakes import fake_record

    session = fake_record().cases[0].sessions[0]
    found = Correctness(max_abs_logit_error=error, agreeing=3, n=3, spread=1.0)
    return Case(
        id=f"net/{protocol}/loopback/cpu/b1", network=Network(card="net"), protocol=protocol, status="invalid",
        tolerance=0.01, options=options, sessions=(session.model_copy(update={"correctness": found}),),
    )  # fmt: skip


def test_advice_names_the_range_the_fraction_bits_or_plaintext() -> None:
    case = _wrong("masked", 0.035)
    assert "give range_bits: 16" in _advice(case, [], 45_000.0)
    assert _advice(case, [], 200.0).endswith("give fraction_bits: 19")
    assert _advice(_wrong("masked", 0.1), [], 200.0).endswith("fraction_bits: 21 and range_bits: 11")
    assert "plaintext fails alike" in _advice(case, [_wrong("plaintext", 0.03)], 200.0)
    assert "fraction_bits" not in _advice(_wrong("masked", 5.0), [], 200.0), "no rounding is so large"
    assert _advice(_wrong("plaintext", 5.0), [], 45_000.0).endswith("±8,192: give range_bits: 16")
    assert _advice(_wrong("plaintext", 5.0), [], 5_000.0) == ""
    assert "it would take" in _advice(_wrong("crypten", 0.1), [], 45_000.0), "it has no such option"


def _advice(case: Case, others: list[Case], reach: float) -> str:
    return advice(case, others, reach, spec_of(case.protocol).parse(case.options))
