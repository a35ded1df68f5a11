"""Other people's structures: the same logits with a dealer, with nobody to trust, and in plaintext.

The long form, with 500 images of the zoo's networks and between two processes: `python ci/no_dealer.py`.
"""

from __future__ import annotations

import other_peoples
import pytest
import torch
from masked_pair import run_masked
from test_protocol_masked import close

from pibench.lowering.lower import lower

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("kind", other_peoples.KINDS)
def test_logits_are_as_with_the_dealer(kind: str) -> None:
    program, weights = lower(other_peoples.network(kind), other_peoples.SHAPE)
    images = [torch.randn(1, *other_peoples.SHAPE)]
    # the server as dealer: what a third process deals, without one
    dealt, alone = (run_masked(program, weights, images, provider=name) for name in ("first-party", "two-party"))
    close(alone, program, weights, images)
    assert (alone.logits[0] - dealt.logits[0]).abs().max() < 2**-8
    assert (alone.logits[0].argmax(1) == dealt.logits[0].argmax(1)).all()


def test_there_are_ten_kinds_and_each_has_its_own_structure() -> None:
    found = {
        tuple(type(op).__name__ for op in lower(other_peoples.network(kind), other_peoples.SHAPE)[0].ops)
        for kind in other_peoples.KINDS
    }
    assert len(found) == len(other_peoples.KINDS) == 10
