"""The loop that mask searches share: epochs over augmented batches under a teacher, with a state to go on from."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pibench.reduction.gates import GatedReLU, Granularity, install, restore
from pibench.training.augment import Augmenter, draw_view, generator
from pibench.training.checkpoint import load_checkpoint, read_metadata, save_checkpoint
from pibench.training.convolutions import trained_convolutions
from pibench.training.data import Dataset, normalise
from pibench.training.distill import Teacher, distillation_loss, mean_logits, precision_of
from pibench.training.recipe import Distillation, Recipe

Say = Callable[[str], None]


def batches(data: Dataset, recipe: Recipe, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch's normalised, augmented batches and their labels; a function of recipe and epoch alone."""
    count = len(data.train_labels)
    augmenter = Augmenter(data.train_images, recipe.crop)
    view = draw_view(count, recipe.crop, recipe.flip, recipe.seed, epoch)
    order = torch.randperm(count, generator=generator("search", recipe.seed, epoch))
    for step in range(max(1, count // recipe.batch_size)):
        index = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        yield normalise(augmenter.batch(view, index), data.mean, data.std), data.train_labels[index]


@dataclass
class Setting:
    """What every search is given."""

    module: nn.Module  # with masked sites, trained weights
    data: Dataset
    recipe: Recipe
    teachers: Sequence[Teacher]
    budget: int
    granularity: Granularity = "pixel"
    state: Path | None = None  # kept after every epoch
    identity: str = ""  # of the task, so that a state is not gone on with by another
    say: Say = lambda _text: None


@dataclass
class Search(ABC):
    """A search over gates; a subclass says what it adds to the loss, what it does after steps and epochs, and when."""

    setting: Setting
    gates: dict[str, GatedReLU] = field(init=False)
    epoch: int = 0
    done: bool = False
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        torch.manual_seed(self.setting.recipe.seed)
        self.gates = install(self.setting.module, self.setting.granularity)
        self.optimizer = self.make_optimizer()

    @abstractmethod
    def make_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of weights and gates."""

    def penalty(self) -> Tensor | float:
        """Return what is added to the loss."""
        return 0.0

    def before_epoch(self) -> None:  # noqa: B027  (most searches have nothing to do here)
        """Prepare the gates for an epoch."""

    @abstractmethod
    def after_step(self) -> None:
        """Look at the gradients, correct the gates."""

    @abstractmethod
    def after_epoch(self) -> None:
        """Take stock; set `done` to stop."""

    @abstractmethod
    def masks(self) -> dict[str, Tensor]:
        """Return the masks found, within the budget."""

    @abstractmethod
    def relus(self) -> int:
        """Return the ReLUs of one image that are open, before masks are cut to the budget."""

    def numbers(self) -> dict[str, Any]:
        """Return the search's own state that is no parameter, as plain data."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the search's own state that is no parameter, as tensors; they are filled in place on resuming."""
        return {}

    def run(self) -> dict[str, Tensor]:
        """Search, put the masks into the module, and return them."""
        self._resume()
        while self.epoch < self.setting.recipe.epochs and not self.done:
            began = time.monotonic()
            self.before_epoch()
            loss = self._epoch()
            self.epoch += 1
            self.after_epoch()
            self.wall_s += time.monotonic() - began
            self.setting.say(f"search epoch {self.epoch}/{self.setting.recipe.epochs} loss {loss:.3f}{self.describe()}")
            self._save()
        if (left := self.relus()) > (budget := self.setting.budget):
            self.setting.say(f"the search ended above its budget: {left:,} ReLUs are open, cut to {budget:,} by rank")
        masks = self.masks()
        restore(self.setting.module, masks)
        return masks

    def describe(self) -> str:
        """Return what the progress line adds."""
        return ""

    def _epoch(self) -> float:
        s, total, seen = self.setting, 0.0, 0
        how = s.recipe.distillation or Distillation(weight=0.0)
        s.module.train()
        for images, labels in batches(s.data, s.recipe, self.epoch):
            with precision_of(s.recipe, images.device), trained_convolutions(s.module):
                logits = s.module(images).float()
                taught = mean_logits(s.teachers, images) if s.teachers else logits.detach()
            loss = distillation_loss(logits, taught, labels, s.recipe, how)
            self.optimizer.zero_grad()
            (loss + self.penalty()).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.after_step()
            total, seen = total + float(loss.detach()), seen + 1
        return total / max(seen, 1)

    def _save(self) -> None:
        if self.setting.state is None:
            return
        tensors = {f"model.{name}": value for name, value in self.setting.module.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in moments.items() if v is not None}
        tensors |= {f"search.{name}": value for name, value in self.tensors().items()}
        place = {"epoch": self.epoch, "done": self.done, "wall_s": self.wall_s, **self.numbers()}
        save_checkpoint(self.setting.state, tensors, {"identity": self.setting.identity, "place": place})

    def _resume(self) -> None:
        path = self.setting.state
        if path is None or not path.is_file() or read_metadata(path).get("identity") != self.setting.identity:
            return
        tensors, meta = load_checkpoint(path)
        self.setting.module.load_state_dict(
            {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        )
        saved = self.optimizer.state_dict()
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                saved["state"].setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict(saved)
        for name, value in self.tensors().items():
            value.copy_(tensors[f"search.{name}"])
        for name, value in meta["place"].items():
            setattr(self, name, value)


def gate_parameters(gates: dict[str, GatedReLU]) -> list[nn.Parameter]:
    """Return the gates' parameters."""
    return [gate.gate for gate in gates.values()]


def weight_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return every parameter that is no gate."""
    return [p for name, p in module.named_parameters() if not name.endswith(".gate") and name != "gate"]
