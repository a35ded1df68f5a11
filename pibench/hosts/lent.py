"""What networks a host lends: its own cards and modules by name, prepared once, within a deadline, a few at a time."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pibench.errors import UsageError
from pibench.hosts.asked import Wanted
from pibench.library import find_documents
from pibench.links.callers import Log
from pibench.run.settings import Needs, OwnModel

Maker = Callable[[Path, Needs], Any]  # into this folder: something that runs
MOST_PREPARED = 16
PREPARE_S = 900.0  # a caller hears to come again later; the work goes on


class LentNetworks:
    """Cards and modules of this host that callers may use; none unless they are named."""

    def __init__(self, patterns: Iterable[str], folder: Path, log: Log, models: Iterable[OwnModel] = ()) -> None:
        self.patterns, self._folder, self._log = tuple(patterns), folder, log
        self.models = {model.name: model for model in models}
        self._ready: dict[Wanted, Any] = {}
        self._at_work: threading.Thread | None = None
        self._count = 0

    def cards(self) -> dict[str, Path]:
        """Return the cards that are lent, by name."""
        paths = [Path(pattern) for pattern in self.patterns if pattern.endswith((".yaml", ".yml"))]
        paths += [p for p in find_documents("networks") if any(fnmatchcase(p.stem, one) for one in self.patterns)]
        return {path.stem: path for path in reversed(paths)}

    def prepared(self, asked: Wanted) -> Any:
        """Return a caller's network with this host's weights; UsageError where it is not lent, or not ready in time."""
        make = self._maker(asked)
        key = asked.model_copy(update={"program": ""})
        if not (known := [made for one, made in self._ready.items() if one == key]):
            self._prepare_in_time(key, make)
            known = [made for one, made in self._ready.items() if one == key]
        return known[0]

    def _maker(self, asked: Wanted) -> Maker:
        """Return what prepares the caller's network: of the lent one that is meant, by this host's own words."""
        from pibench.networks.card import load_card
        from pibench.run.prepare import prepare_card, prepare_model

        if asked.model:
            model = self._model(asked.model)
            return lambda folder, needs: prepare_model(model, folder, needs, self._log)
        path = self._card(asked.card)
        return lambda folder, needs: prepare_card(load_card(path), folder, needs, self._log)

    def _model(self, name: str) -> OwnModel:
        if name not in self.models:
            lent = ", ".join(sorted(self.models)) or "none: start it with --model"
            raise UsageError(
                f"this host lends no such module (it lends {lent})", remedy="same --model and --label on both hosts"
            )
        return self.models[name]

    def _card(self, text: str) -> Path:
        """Return the lent card whose text the caller sent: what it says is compared, and never parsed."""
        for path in self.cards().values():
            if path.read_text(encoding="utf-8") == text:
                return path
        lent = ", ".join(sorted(self.cards())) or "none: start it with --cards NAME"
        raise UsageError(f"this host lends no such card (it lends {lent})", remedy="same card, same text on both hosts")

    def _prepare_in_time(self, key: Wanted, make: Maker) -> None:
        if self._at_work is not None and self._at_work.is_alive():
            raise UsageError("it is still preparing another network", remedy="try again later")
        errors: list[BaseException] = []
        self._at_work = threading.Thread(target=self._prepare, args=(key, make, errors), daemon=True)
        self._at_work.start()
        self._at_work.join(PREPARE_S)
        if self._at_work.is_alive():
            raise UsageError(f"the network was not ready after {PREPARE_S:.0f} s", remedy="try again later")
        if errors:
            raise errors[0]

    def _prepare(self, key: Wanted, make: Maker, errors: list[BaseException]) -> None:
        self._count += 1
        folder = self._folder / f"network{self._count}"
        try:
            folder.mkdir()
            needs = Needs(images=key.images, plain_images=0, seed=key.seed, merge=key.merge)
            made = make(folder, needs)
        except BaseException as error:  # handed to whoever waits
            shutil.rmtree(folder, ignore_errors=True)
            errors.append(error)
            return
        while len(self._ready) >= MOST_PREPARED:
            oldest = next(iter(self._ready))
            shutil.rmtree(Path(self._ready.pop(oldest).weights_path).parent, ignore_errors=True)
        self._ready[key] = made
