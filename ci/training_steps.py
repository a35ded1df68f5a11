"""How long a training step takes here with torch's own convolutions and with pibench's, side by side in one run.

    python ci/training_steps.py resnet18-c100 drd-c100-57k --pixels 32 16 --precision float32 bfloat16
    python ci/training_steps.py --layers --precision float32

Steps are forward, backward and update of random images, without teachers. Layers are the 3x3 convolutions of stride 1
that a ResNet18 of CIFAR has, forward and backward: torch's own, by tiles (pibench/training/winograd.py) and with the
weight gradient by products (pibench/training/smallmaps.py). Every figure is the least of several, taken in turns; a
machine with other load shows nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from pibench.networks.build import build
from pibench.networks.card import load_card
from pibench.training.convolutions import trained_convolutions
from pibench.training.smallmaps import convolve_by_products
from pibench.training.train import freeze
from pibench.training.winograd import convolve_in_tiles

LAYERS = ((64, 32), (64, 16), (128, 16), (128, 8), (256, 8), (256, 4), (512, 4), (512, 2))  # channels, pixels of a side
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Act = Callable[[], object]


def race(acts: Mapping[str, Act], rounds: int) -> dict[str, float]:
    """Return the least seconds of each act, after one round that does not count."""
    least = dict.fromkeys(acts, float("inf"))
    for number in range(rounds + 1):
        for name, act in acts.items():
            began = time.perf_counter()
            act()
            if number:
                least[name] = min(least[name], time.perf_counter() - began)
    return least


def step(name: str, pixels: int, kind: torch.dtype, batch: int, frozen: list[str]) -> dict[str, Act]:
    """Return one training step of a card, with torch's own convolutions and with ours."""
    card = load_card(name)
    module = build(card.network).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for part in freeze(module, frozen, card) if frozen else []:
        part.eval()
    images = torch.randn(batch, card.network.input_shape[0], pixels, pixels).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.randint(0, card.network.classes, (batch,))
    optimizer = torch.optim.SGD(module.parameters(), 0.01, 0.9, weight_decay=5e-4, nesterov=True)

    def act(ours: bool) -> None:
        how = trained_convolutions(module) if ours else nullcontext()
        with torch.autocast("cpu", kind, enabled=kind == torch.bfloat16), how:
            logits = module(images)
        optimizer.zero_grad()
        functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return {"torch": lambda: act(False), "pibench": lambda: act(True)}


def layer(channels: int, pixels: int, kind: torch.dtype, batch: int) -> dict[str, Act]:
    """Return a convolution and its gradients, by every way that there is for it."""
    images, outputs = (torch.randn(batch, channels, pixels, pixels).to(kind) for _ in range(2))
    images, outputs = (each.contiguous(memory_format=torch.channels_last) for each in (images, outputs))
    weight = nn.Parameter(torch.randn(channels, channels, 3, 3).to(kind).contiguous(memory_format=torch.channels_last))
    images.requires_grad_()
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "torch": lambda x, w: functional.conv2d(x, w, padding=1),
        "products": convolve_by_products,
    }
    if kind == torch.float32 and pixels % 4 == 0:
        ways["tiles"] = convolve_in_tiles
    return {
        name: lambda way=way: torch.autograd.grad(way(images, weight), (images, weight), outputs)
        for name, way in ways.items()
    }


def main() -> None:
    """Print a line for each race."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", nargs="*", default=[], help="cards whose steps are timed")
    parser.add_argument("--layers", action="store_true", help="time single convolutions too")
    parser.add_argument("--pixels", type=int, nargs="+", default=[32], help="sides of the images, default %(default)s")
    parser.add_argument("--precision", choices=KINDS, nargs="+", default=list(KINDS), help="default: both")
    parser.add_argument("--frozen", nargs="+", default=[], help="parts of the cards that keep their weights")
    parser.add_argument("--batch", type=int, default=128, help="images of a step, default %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="of which the least counts, default %(default)s")
    given = parser.parse_args()
    if not given.cards and not given.layers:
        parser.error("nothing to time: name cards, or give --layers")
    torch.set_num_threads(given.threads)
    print(f"{torch.backends.cpu.get_cpu_capability()}, {given.threads} threads, batches of {given.batch}", flush=True)
    for precision in given.precision:
        kind = KINDS[precision]
        for channels, pixels in LAYERS if given.layers else ():
            least = race(layer(channels, pixels, kind, given.batch), given.rounds)
            told = "  ".join(f"{way} {1e3 * seconds:.1f} ms" for way, seconds in least.items())
            print(f"{precision} {channels} channels of {pixels}x{pixels}: {told}", flush=True)
        for name in given.cards:
            for pixels in given.pixels:
                least = race(step(name, pixels, kind, given.batch, given.frozen), given.rounds)
                ratio = least["torch"] / least["pibench"]
                told = "  ".join(f"{way} {seconds:.3f} s" for way, seconds in least.items())
                print(f"{precision} {name} at {pixels} pixels: {told}  ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
