"""Training: SGD over resident images, with distillation, smaller images early on, and resumption at any step.

Order, views and learning rate are functions of (recipe, epoch, step); an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pibench.errors import DataError, PibenchError, UsageError
from pibench.networks.build import build
from pibench.networks.card import Card
from pibench.training.augment import Augmenter, View, draw_view, generator, resize
from pibench.training.averaging import EVERY_STEPS, STATISTICS_IMAGES, WeightAverage
from pibench.training.checkpoint import file_sha256, load_checkpoint, read_metadata, save_checkpoint
from pibench.training.convolutions import trained_convolutions
from pibench.training.data import Dataset, normalise
from pibench.training.distill import Teacher, ViewLogits, distillation_loss, mean_logits, precision_of
from pibench.training.interrupts import held_back
from pibench.training.judging import Judgement, evaluate, judge
from pibench.training.progress import Pace, Progress, Report, silent
from pibench.training.recipe import Recipe
from pibench.training.starts import copy_matching, widen_into

SAVE_EVERY_S = 180.0  # an interruption costs this much at most
GLANCE = 2000  # test images looked at after every epoch but the last, which takes all


@dataclass
class Place:
    """The part of the state that is no tensor."""

    epoch: int = 0
    step: int = 0
    wall_s: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    # of the epoch under way: images shown, the sum of their losses, how many were told right
    seen: int = 0
    loss_sum: float = 0.0
    correct: int = 0

    @property
    def loss(self) -> float:
        """Mean loss of the epoch so far."""
        return self.loss_sum / max(self.seen, 1)

    @property
    def train_accuracy(self) -> float:
        """Percent of the epoch's images so far."""
        return 100 * self.correct / max(self.seen, 1)


def freeze(module: nn.Module, names: Sequence[str], card: Card) -> list[nn.Module]:
    """Let the parts of a network that `names` tells take no gradients; returns them.

    Raises UsageError for a name that no part has, and where nothing is left to train.
    """
    parts = dict(module.named_modules())
    if unknown := [name for name in names if not name or name not in parts]:
        has = ", ".join(name for name, _ in module.named_children())
        raise UsageError(f"frozen: {card.name} has no {', '.join(map(repr, unknown))}", remedy=f"it has {has}")
    frozen = [parts[name].requires_grad_(False) for name in names]
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError(f"frozen: nothing of {card.name} is left to train")
    return frozen


class Trainer:
    """One training run, from a card's fresh (or given) weights to a checkpoint."""

    def __init__(
        self,
        card: Card,
        data: Dataset,
        recipe: Recipe,
        state_path: Path,
        *,
        teachers: Sequence[Teacher] = (),
        teacher_folder: Path | None = None,
        start: Path | None = None,
        widen: bool = False,
        report: Report = silent,
        device: str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.card, self.data, self.recipe, self.state_path = card, data.to(self.device), recipe, state_path
        self.teachers, self.report, self.start, self.widen = teachers, report, start, widen
        self.place = Place()
        self.judgement: Judgement | None = None  # of the finished network
        torch.manual_seed(recipe.seed)
        self.module = build(card.network)
        if start is not None:
            self._begin(start)
        if recipe.channels_last:
            self.module = self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module = self.module.to(self.device)
        if recipe.frozen and start is None:
            raise UsageError(f"{card.name}: frozen parts would keep random weights", remedy="give a start (a plan's)")
        self._frozen = freeze(self.module, recipe.frozen, card)
        self._average = WeightAverage(self.module) if recipe.averaged else None
        for teacher in teachers:
            teacher.module.to(self.device)
        self.optimizer = torch.optim.SGD(
            self.module.parameters(),
            recipe.lr,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        self.augmenter = Augmenter(self.data.train_images, recipe.crop)
        folder = teacher_folder or state_path.parent / "teachers"
        self.logits = ViewLogits(teachers, self.data, recipe, folder, self._note)
        self.steps_an_epoch = max(1, len(data.train_labels) // recipe.batch_size)
        self._pace = Pace()

    def _begin(self, start: Path) -> None:
        state = load_checkpoint(start)[0]
        if self.widen:
            widen_into(self.module, state, self.recipe.seed)
        elif not copy_matching(self.module, state):
            raise DataError(f"no tensor in it fits {self.card.name}", where=str(start))

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> float:
        """Train to the last epoch and return the accuracy on all test images, in percent."""
        began = saved = time.monotonic()
        before = self.place.wall_s
        try:
            while self.place.epoch < self.recipe.epochs:
                for _ in self._epoch():
                    now = time.monotonic()
                    self.place.wall_s = before + now - began
                    self.report(self._progress())
                    if now - saved > SAVE_EVERY_S:
                        self.save()
                        saved = now
                self._finish_epoch()
                saved = time.monotonic()
        except KeyboardInterrupt:  # never within a step: module, momenta and place belong together
            with held_back():
                self.save()
            raise
        self.module = self._result()
        self.judgement = judge(self.module, self.data.test_images, self.data.test_labels, self.data)
        return self.judgement.accuracy

    def _epoch(self) -> Iterator[None]:
        recipe, epoch = self.recipe, self.place.epoch
        count = len(self.data.train_labels)
        view_number = epoch % self._views()
        view = self._view(view_number)
        kept = self.logits[view_number] if self._cached() else None
        order = torch.randperm(count, generator=generator("order", recipe.seed, epoch)).to(self.device)
        self.module.train()
        for part in self._frozen:
            part.eval()
        for step in range(self.place.step, self.steps_an_epoch):
            index = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            began = time.monotonic()
            with held_back():
                loss, hits = self._step(index, view, kept, epoch * self.steps_an_epoch + step)
                self._count(step + 1, loss, hits, len(index))
                if self._average and self._is_place(epoch, step + 1):
                    self._average.add(self.module)
            self._pace.add(time.monotonic() - began, self._size(epoch))
            yield

    def _step(self, index: Tensor, view: View, kept: Tensor | None, step: int) -> tuple[float, int]:
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr_at(step, recipe.epochs * self.steps_an_epoch)
        images = self._shown(view, index)
        labels = self.data.train_labels[index]
        taught = None
        if recipe.distillation is not None and self.teachers:
            with precision_of(recipe, self.device):
                taught = kept[index].float() if kept is not None else mean_logits(self.teachers, images)
        small = self._laid_out(resize(images, recipe.pixels_at(self.place.epoch)))
        with precision_of(recipe, self.device), trained_convolutions(self.module):
            logits = self.module(small)
        loss = self._loss(logits.float(), labels, taught)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        value = float(loss.detach())
        if value != value:
            raise PibenchError(
                f"{self.card.name}: the loss is no number at step {step}", remedy="lower the recipe's lr"
            )
        return value, int((logits.argmax(1) == labels).sum())

    def _loss(self, logits: Tensor, labels: Tensor, taught: Tensor | None) -> Tensor:
        if taught is not None and self.recipe.distillation is not None:
            return distillation_loss(logits, taught, labels, self.recipe, self.recipe.distillation)
        return functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def _count(self, step: int, loss: float, hits: int, images: int) -> None:
        place = self.place
        place.step, place.seen = step, place.seen + images
        place.loss_sum, place.correct = place.loss_sum + loss * images, place.correct + hits

    def _finish_epoch(self) -> None:
        n = min(GLANCE, len(self.data.test_labels))
        glance = evaluate(self._result(), self.data.test_images[:n], self.data.test_labels[:n], self.data)
        place, epoch = self.place, self.place.epoch + 1
        row = {"epoch": epoch, "loss": place.loss, "train_accuracy": place.train_accuracy, "test_accuracy": glance}
        row |= {"n_test": n, "wall_s": round(place.wall_s, 1)}
        told = replace(self._progress(), epoch=epoch, step=0, test_accuracy=glance)
        with held_back():
            self.place = Place(epoch, 0, place.wall_s, [*place.history, row])
        self.report(told)
        self.save()

    # -- the mean of the weights ---------------------------------------------------------------------------------

    def _is_place(self, epoch: int, steps: int) -> bool:
        """Return whether the weights after so many steps of an epoch are part of the mean."""
        return self.recipe.averages_at(epoch) and (steps % EVERY_STEPS == 0 or steps == self.steps_an_epoch)

    def _result(self) -> nn.Module:
        """Return what training has made so far: the mean of the weights, where some are averaged."""
        if self._average is None or not self._average.places:
            return self.module
        with precision_of(self.recipe, self.device):
            return self._average.module(self._statistics_batches(), self.recipe.frozen)

    def _statistics_batches(self) -> Iterator[Tensor]:
        indices = torch.arange(min(STATISTICS_IMAGES, len(self.data.train_labels)), device=self.device)
        view = self._view(0)
        for index in torch.split(indices, self.recipe.batch_size):
            yield self._laid_out(self._shown(view, index))

    # -- views ---------------------------------------------------------------------------------------------------

    def _view(self, number: int) -> View:
        recipe = self.recipe
        return draw_view(len(self.data.train_labels), recipe.crop, recipe.flip, recipe.seed, number, self.device)

    def _shown(self, view: View, index: Tensor) -> Tensor:
        return normalise(self.augmenter.batch(view, index), self.data.mean, self.data.std)

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.recipe.channels_last else images

    def _cached(self) -> bool:
        how = self.recipe.distillation
        return how is not None and how.views > 0 and bool(self.teachers)

    def _views(self) -> int:
        return self.recipe.distillation.views if self._cached() and self.recipe.distillation else self.recipe.epochs

    # -- progress ------------------------------------------------------------------------------------------------

    def _done(self) -> int:
        return self.place.epoch * self.steps_an_epoch + self.place.step

    def _size(self, epoch: int) -> float:
        """Return the pixels of an epoch's images, which its steps take time in proportion to."""
        return float((self.recipe.pixels_at(epoch) or self.data.train_images.shape[-1]) ** 2)

    def _remaining_s(self) -> float:
        """Return how long the steps that are left will take; teachers' logits come on top."""
        epoch, later = self.place.epoch, range(self.place.epoch + 1, self.recipe.epochs)
        this = self._size(epoch) * (self.steps_an_epoch - self.place.step)
        return self._pace.pixel_s * (this + self.steps_an_epoch * sum(map(self._size, later)))

    def _progress(self) -> Progress:
        place, steps = self.place, self.recipe.epochs * self.steps_an_epoch
        return Progress(
            card=self.card.name,
            epoch=place.epoch,
            epochs=self.recipe.epochs,
            step=place.step,
            steps=self.steps_an_epoch,
            loss=place.loss,
            train_accuracy=place.train_accuracy,
            test_accuracy=place.history[-1]["test_accuracy"] if place.history else None,
            lr=self.recipe.lr_at(self._done(), steps),
            elapsed_s=place.wall_s,
            remaining_s=self._remaining_s(),
        )

    def _note(self, text: str) -> None:
        self.report(Progress(self.card.name, self.place.epoch, self.recipe.epochs, note=text))

    # -- state ---------------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """Return what a saved state must agree with to be gone on with."""
        return {
            "card": self.card.name,
            "network": self.card.network.model_dump(exclude_defaults=True),
            "recipe": self.recipe.sha256,
            "dataset": self.data.name,
            "teachers": [teacher.sha256 for teacher in self.teachers],
            "start": file_sha256(self.start) if self.start else None,
            **({"widen": True} if self.widen else {}),
        }

    def save(self) -> None:
        """Write weights, momenta and place; a reader sees the old state or the new one."""
        tensors = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        if self._average:
            tensors |= {f"average.{name}": value for name, value in self._average.tensors().items()}
        save_checkpoint(self.state_path, tensors, {"identity": self.identity(), "place": self.place.__dict__})

    def resume(self) -> bool:
        """Go on from the saved state where it belongs to the same run; returns whether it did."""
        if not self.state_path.is_file() or read_metadata(self.state_path).get("identity") != self.identity():
            return False
        tensors, meta = load_checkpoint(self.state_path)
        self.module.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        for name, parameter in self.module.named_parameters():
            if (momentum := tensors.get(f"momentum.{name}")) is not None:
                kept = momentum.clone(memory_format=torch.preserve_format)
                self.optimizer.state[parameter]["momentum_buffer"] = kept.to(self.device)
        if self._average:
            average = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
            self._average.restore(average)
        self.place = Place(**meta["place"])
        return True
