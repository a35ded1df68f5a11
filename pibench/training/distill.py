"""Knowledge distillation from teachers whose answers to augmented views are computed once and kept on disk.

With V views, epoch e shows view e mod V. The logits of one view of 50,000 images and 100 classes take 10 MB as
float16; every student and every later epoch reads them, so that a teacher costs V forward passes once and for all.
Processes that share the folder share the work: a view that another one is at is left to it, the next one taken.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pibench.training.augment import DRAWN, Augmenter, draw_view
from pibench.training.checkpoint import load_checkpoint, save_checkpoint
from pibench.training.data import Dataset, normalise
from pibench.training.recipe import Distillation, Recipe

TEACHER_BATCH = 250
PATIENCE_S = 0.5  # between looks for a view that another process computes
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Teacher:
    """A trained network and the hash of the checkpoint it was read from."""

    name: str
    module: nn.Module
    sha256: str


def distillation_loss(logits: Tensor, teacher: Tensor, labels: Tensor, recipe: Recipe, how: Distillation) -> Tensor:
    """Return (1 - w) CE + w T^2 KL(teacher || student), both softened by T (Hinton et al. 2015)."""
    hard = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    t = how.temperature
    student, wanted = functional.log_softmax(logits / t, 1), functional.log_softmax(teacher / t, 1)
    soft = functional.kl_div(student, wanted, reduction="batchmean", log_target=True)
    return (1 - how.weight) * hard + how.weight * t * t * soft


def precision_of(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Return the context in which a recipe's networks compute, students and teachers alike."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16")


@torch.no_grad()
def mean_logits(teachers: Sequence[Teacher], images: Tensor) -> Tensor:
    """Return the mean of the teachers' logits."""
    return torch.stack([teacher.module(images).float() for teacher in teachers]).mean(0)


class ViewLogits:
    """The mean logits of some teachers on every view of the training images, computed where they are first wanted."""

    def __init__(
        self, teachers: Sequence[Teacher], data: Dataset, recipe: Recipe, folder: Path, notify: Notify = lambda _: None
    ) -> None:
        self.teachers, self.data, self.recipe, self.folder, self.notify = teachers, data, recipe, folder, notify
        self.loaded: dict[int, Tensor] = {}

    def __getitem__(self, view: int) -> Tensor:
        """Return the logits of one view, float16."""
        if view not in self.loaded:
            parts = [self._of(teacher, view) for teacher in self.teachers]
            mean = parts[0] if len(parts) == 1 else torch.stack([p.float() for p in parts]).mean(0).half()
            self.loaded[view] = mean.to(self.data.train_images.device)
        return self.loaded[view]

    def _of(self, teacher: Teacher, view: int) -> Tensor:
        path = self._path(teacher, view)
        while not path.is_file():
            if not any(self._made(teacher, other) for other in self._from(view)):
                time.sleep(PATIENCE_S)  # others are at all that is missing
        return load_checkpoint(path)[0]["logits"]

    def _from(self, view: int) -> list[int]:
        """Return this view and then those that will be wanted after it."""
        how = self.recipe.distillation
        count = max(how.views if how else 0, view + 1)
        return [(view + step) % count for step in range(count)]

    def _made(self, teacher: Teacher, view: int) -> bool:
        """Compute a view that is missing and that no other process is at; returns whether it did."""
        path = self._path(teacher, view)
        if path.is_file():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        taken = path.with_suffix(".lock")
        with taken.open("w") as lock:  # the lock ends with the process, whatever ends that
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if path.is_file():
                return False
            self.notify(f"{teacher.name}: logits of view {view + 1}")
            save_checkpoint(path, {"logits": self._compute(teacher, view)}, {"teacher": teacher.name, "view": view})
            taken.unlink(missing_ok=True)  # who still holds it open finds the view there
        return True

    def _path(self, teacher: Teacher, view: int) -> Path:
        r = self.recipe
        what = f"{teacher.sha256}/{self.data.name}/{len(self.data.train_labels)}/{r.crop}/{r.flip}/{r.seed}/{DRAWN}"
        if r.precision != "float32":
            what += f"/{r.precision}"
        key = hashlib.sha256(what.encode()).hexdigest()[:16]
        return self.folder / f"{teacher.name}-{key}" / f"view-{view:03d}.safetensors"

    @torch.no_grad()
    def _compute(self, teacher: Teacher, view: int) -> Tensor:
        data, rows = self.data, []
        augmenter = Augmenter(data.train_images, self.recipe.crop)
        count, device = len(data.train_labels), data.train_images.device
        drawn = draw_view(count, self.recipe.crop, self.recipe.flip, self.recipe.seed, view, device)
        for start in range(0, count, TEACHER_BATCH):
            index = torch.arange(start, min(start + TEACHER_BATCH, count), device=device)
            images = normalise(augmenter.batch(drawn, index), data.mean, data.std)
            images = images.contiguous(memory_format=torch.channels_last)
            with precision_of(self.recipe, device):
                rows.append(teacher.module(images).half())
        return torch.cat(rows).cpu()
