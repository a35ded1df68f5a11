"""Material kept on disk between runs: bound to one program, one choice of options and one model, gone when taken.

Each party has a shelf of its own, which holds its half of every item and what the source keeps of a model's setup. An
item has the same name on both shelves; it is deleted before it is used, so that no failure can make it be used twice.
Both parties count what they take, outside of the folder too (`counter.py`), and compare: a folder that was restored
from a copy brings items back that have been used, and none of them is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pibench.errors import MaterialError, TransportError
from pibench.lowering.program import Weights
from pibench.mpc.masked.gadgets import layers_of
from pibench.mpc.masked.gadgets.gadget import Arrays
from pibench.mpc.masked.sources.counter import Counter, sync
from pibench.mpc.masked.sources.source import Material, Source

ID_BYTES = 16
LEFT_S = 3600.0
FORMAT = 2  # of what is kept: items of another one are left alone


class Shelf:
    """One party's kept material for one program under one choice of options."""

    def __init__(self, root: Path, role: str, key: str) -> None:
        self._folder = root / hashlib.sha256(key.encode()).hexdigest()[:32] / role
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.counter = Counter(self._folder)
        self._sweep()
        if not (self.counter.agrees and self.counter.value):
            self.restart(max(self.counter.value, 1))

    def _sweep(self) -> None:
        """Delete what a killed process left half written or half taken."""
        for left in (*self._folder.glob("item-*.taken"), *self._folder.glob("*.part")):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > LEFT_S:  # another run may be at it
                    left.unlink()

    def restart(self, count: int) -> None:
        """Delete all items, whose past is not known, and count on from here."""
        for item in self.items():
            self.discard(item)
        self.counter.advance(count)

    def items(self) -> list[bytes]:
        """Return the names of the items that wait, oldest first."""
        found = sorted(self._folder.glob("item-*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        return [bytes.fromhex(path.stem.removeprefix("item-")) for path in found]

    def put(self, item: bytes, arrays: Arrays) -> None:
        """Keep one item."""
        self._save(self._path(item), arrays)

    def take(self, item: bytes) -> Arrays:
        """Return one item, which is deleted first; raises MaterialError if it is gone or damaged."""
        path = self._path(item)
        taken = path.with_suffix(".taken")
        try:
            os.replace(path, taken)  # whoever comes second finds nothing, whatever happens to the first
            sync(self._folder)
        except FileNotFoundError as error:
            raise MaterialError(f"{path} has been used already", remedy="run the offline phase again") from error
        self.counter.advance()
        try:
            return self._load(taken)
        finally:
            with contextlib.suppress(FileNotFoundError):
                taken.unlink()

    def discard(self, item: bytes) -> None:
        """Delete an item of which the other party lacks its half."""
        self._path(item).unlink(missing_ok=True)

    def model(self) -> Arrays | None:
        """Return what was kept of the model's setup, or None."""
        path = self._folder / "model.safetensors"
        return self._load(path) if path.exists() else None

    def put_model(self, arrays: Arrays) -> None:
        """Keep a model's setup; items made for another one are worthless and go."""
        for item in self.items():
            self.discard(item)
        self._save(self._folder / "model.safetensors", arrays)

    def _path(self, item: bytes) -> Path:
        return self._folder / f"item-{item.hex()}.safetensors"

    def _save(self, path: Path, arrays: Arrays) -> None:
        part = path.with_suffix(".part")
        try:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part)
            part.chmod(0o600)
            sync(part)
            os.replace(part, path)
            sync(self._folder)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise MaterialError(f"cannot keep material in {path}: {error}", remedy="free disk space there") from error

    def _load(self, path: Path) -> Arrays:
        try:
            return dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise MaterialError(f"{path} is damaged: {error}", remedy=f"delete {self._folder}") from error


def new_item() -> bytes:
    """Return a fresh name for an item."""
    return secrets.token_bytes(ID_BYTES)


class Kept(Source):
    """A source that hands out what both parties have kept first, and has another one make the rest.

    The server names items, the client says which of them it has too. A model has a name as well, which is kept with
    what the other source wants kept of its setup: where both have it for the same weights, nothing is set up again.
    """

    def __init__(self, source: Source, root: Path, key: str) -> None:
        super().__init__(source.plan, source.gadgets, source.party)
        self._source, self._ahead = source, source.plan.options.deal_ahead
        self.shelf = Shelf(root, "server" if source.party.is_server else "client", f"{FORMAT} {key}")

    def setup(self, weights: Weights | None, kept: Arrays | None) -> Arrays:
        """Find out whether both parties have kept this model's setup; do it anew, and keep it, if not."""
        mark = {"digest": np.frombuffer(_digest(self, weights), np.uint8)} if weights is not None else {}
        held = self.shelf.model() or {}
        mine = bool(held) and all((held[name] == value).all() for name, value in mark.items())
        name = held["model"] if mine else np.frombuffer(new_item(), np.uint8)
        name, both = self._offer_model(name, mine) if self.party.is_server else self._take_model(name, mine)
        rest = {label: array for label, array in held.items() if label not in ("model", "digest")}
        made = self._source.setup(weights, rest if both else None)
        if not both:
            self.shelf.put_model({"model": name, **mark, **made})
        return made

    def _offer_model(self, name: np.ndarray, mine: bool) -> tuple[np.ndarray, bool]:
        known = np.zeros(1, np.uint8)
        self.party.peer.send(name)
        self.party.peer.recv_into(known)
        return name, mine and bool(known[0])

    def _take_model(self, name: np.ndarray, mine: bool) -> tuple[np.ndarray, bool]:
        theirs = np.empty(ID_BYTES, np.uint8)
        self.party.peer.recv_into(theirs)
        both = mine and bool((theirs == name).all())
        self.party.peer.send(np.array([both], np.uint8))
        return theirs, both

    def make(self, inferences: int) -> Iterator[Material]:
        """Take kept material, have the rest made, and keep as much for later as the options say."""
        self._compare_counters()
        both = self._offer(inferences) if self.party.is_server else self._choose(inferences)
        for item in both:
            yield self._source.from_arrays(self.shelf.take(item))
        wanted = inferences - len(both)
        for k, made in enumerate(self._source.make(wanted + self._ahead)):
            if k < wanted:
                yield made
            else:
                self._keep(made)

    def _compare_counters(self) -> None:
        """Meet the peer's counter: where one was set back, or lost, nothing that either kept is used."""
        mine, theirs = np.array([self.shelf.counter.value], np.int64), np.zeros(1, np.int64)
        self.party.peer.exchange(mine, theirs)
        if mine[0] != theirs[0]:
            self.shelf.restart(max(int(mine[0]), int(theirs[0])))

    def _offer(self, inferences: int) -> list[bytes]:
        """Server: name the oldest items, and return those that the client has too; the others serve nobody and go."""
        offered, peer = self.shelf.items()[:inferences], self.party.peer
        peer.send(np.array([len(offered)], np.int64))
        peer.send(np.frombuffer(b"".join(offered), np.uint8))
        had = np.zeros(len(offered), np.uint8)
        peer.recv_into(had)
        for item, both in zip(offered, had, strict=True):
            if not both:
                self.shelf.discard(item)
        return [item for item, both in zip(offered, had, strict=True) if both]

    def _choose(self, inferences: int) -> list[bytes]:
        """Client: return what it has of the items that the server names."""
        mine, peer = set(self.shelf.items()), self.party.peer
        size = np.zeros(1, np.int64)
        peer.recv_into(size)
        if not 0 <= (announced := int(size[0])) <= inferences:
            raise TransportError(
                f"the server offers {announced} kept items for {inferences} inferences: this is no peer"
            )
        names = np.empty(announced * ID_BYTES, np.uint8)
        peer.recv_into(names)
        offered = [name.tobytes() for name in names.reshape(-1, ID_BYTES)]
        peer.send(np.array([item in mine for item in offered], np.uint8))
        return [item for item in offered if item in mine]

    def _keep(self, made: Material) -> None:
        """Put away one item, under a name that the server chooses."""
        if self.party.is_server:
            item = new_item()
            self.party.peer.send(np.frombuffer(item, np.uint8))
        else:
            name = np.empty(ID_BYTES, np.uint8)
            self.party.peer.recv_into(name)
            item = name.tobytes()
        self.shelf.put(item, self._source.to_arrays(made))

    def close(self) -> None:
        """Close the other source."""
        self._source.close()


def _digest(source: Source, weights: Weights) -> bytes:
    """Hash the weights and the biases of every layer: kept material holds products and biases of these, no others."""
    digest = hashlib.sha256()
    for layer in (gadget.layer for gadget in layers_of(source.gadgets)):
        for name in filter(None, (layer.weight, layer.bias)):
            digest.update(name.encode() + weights[name].detach().contiguous().numpy().tobytes())
    return digest.digest()
