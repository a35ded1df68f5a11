"""Networks that others trained, lowered: the same logits, and the accuracy known of them (data beside the project)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pibench.lowering.lower import lower
from pibench.lowering.reference import evaluate
from pibench.networks.build import build, stage_of
from pibench.networks.card import load_card

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PIBENCH_SHARED", ROOT.parent / "shared")) / "data"
DATA = Path(os.environ.get("PIBENCH_DATA", Path.home() / ".cache/pibench/data"))

# card, checkpoint, test file, bytes of labels before an image, which of them, mean, deviation, correct of the first 200
CASES = [
    ("resnet32-c100", "resnet32-cifar100", "cifar-100-binary/test.bin", 2, 1, (0.5071, 0.4867, 0.4408),
     (0.2675, 0.2565, 0.2761), 130),
    ("resnet20-c10", "resnet20-cifar10", "cifar-10-batches-bin/test_batch.bin", 1, 0, (0.485, 0.456, 0.406),
     (0.229, 0.224, 0.225), 175),
]  # fmt: skip


def images_of(
    path: Path, labels: int, which: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    record = labels + 3072
    raw = np.fromfile(path, dtype=np.uint8, count=200 * record).reshape(200, record)
    pixels = torch.from_numpy(raw[:, labels:].reshape(-1, 3, 32, 32).copy()).float() / 255
    normal = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    return normal, torch.from_numpy(raw[:, which].astype(np.int64))


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_a_trained_network_keeps_its_logits_and_accuracy(case: tuple) -> None:  # type: ignore[type-arg]
    name, checkpoint, file, labels, which, mean, std, at_least = case
    weights_file = SHARED / f"{checkpoint}.safetensors"
    for needed in (weights_file, DATA / file):
        if not needed.exists():
            pytest.skip(f"{needed} is not there (set PIBENCH_SHARED and PIBENCH_DATA)")
    card = load_card(name)
    module = build(card.network).eval()
    module.load_state_dict(load_file(weights_file))
    program, weights = lower(module, card.network.input_shape, stage_of)
    images, truth = images_of(DATA / file, labels, which, mean, std)
    logits = evaluate(program, weights, images)
    with torch.no_grad():
        torch.testing.assert_close(logits[:20], module(images[:20]), atol=1e-3, rtol=1e-4)
    assert int((logits.argmax(1) == truth).sum()) >= at_least
    assert program.relu_count == card.relu_count
