"""The cost model against published latencies: where it fits, where it does not, and why."""

from __future__ import annotations

from dataclasses import dataclass

from pibench.reporting.onpaper.constants import point
from pibench.reporting.onpaper.costmodel import WIRES, Workload, estimate

FITS_WITHIN = 0.25

_DRD = "DeepReDuce (ICML 2021), latency as quoted by ReLUPruner (AAAI 2026)"
_SNL = "SNL (ICML 2022), latency as quoted by ReLUPruner (AAAI 2026)"
_ASPLOS = "Garimella et al., ASPLOS 2023, artifact: sum of the online steps"


@dataclass(frozen=True)
class Published:
    """A published online latency of one network under DELPHI-like garbled circuits."""

    load: Workload
    online_s: float
    source: str
    role: str  # check: independent of the constants; calibration: the constants come from it
    relu_only: bool = False  # the published column evidently leaves linear layers out


@dataclass(frozen=True)
class Check:
    """The model beside one published latency."""

    network: str
    relu_count: int
    published_s: float
    model_s: float
    role: str
    source: str
    note: str

    @property
    def error(self) -> float:
        """Relative error of the model."""
        return self.model_s / self.published_s - 1.0

    @property
    def fits(self) -> bool:
        """Whether the model is within a quarter of the published figure."""
        return abs(self.error) <= FITS_WITHIN


def _resnet18(name: str, relus: int, mega_macs: float, relu_rounds: int) -> Workload:
    return Workload(name, relus, round(mega_macs * 1e6), relu_rounds, linear_layers=18)


# Counts: this project's own census of the networks; SNL's ResNet18 has no stem ReLU.
PUBLISHED: tuple[Published, ...] = (
    Published(_resnet18("DeepReDuce 230K, CIFAR-100", 229_376, 555.5, 12), 4.61, _DRD, "check"),
    Published(_resnet18("DeepReDuce 12K, CIFAR-100", 12_288, 34.8, 4), 0.45, _DRD, "check"),
    Published(_resnet18("DeepReDuce 393K, TinyImageNet", 393_216, 2221.8, 8), 7.77, _DRD, "check"),
    Published(_resnet18("DeepReDuce 57K, TinyImageNet", 57_344, 139.3, 6), 1.85, _DRD, "check"),
    Published(_resnet18("SNL 12.9K, CIFAR-100", 12_900, 555.5, 16), 0.291, _SNL, "check", relu_only=True),
    Published(_resnet18("SNL 49.4K, CIFAR-100", 49_400, 555.5, 16), 1.066, _SNL, "check", relu_only=True),
    Published(_resnet18("SNL 59.4K, TinyImageNet", 59_400, 2221.8, 16), 1.265, _SNL, "check", relu_only=True),
    Published(_resnet18("SNL 298.8K, TinyImageNet", 298_800, 2221.8, 16), 6.281, _SNL, "check", relu_only=True),
    Published(_resnet18("ResNet18, CIFAR-10", 557_056, 555.5, 17), 12.59, _ASPLOS, "calibration"),
    Published(_resnet18("ResNet18, TinyImageNet", 2_228_224, 2221.8, 17), 49.16, _ASPLOS, "calibration"),
    Published(Workload("ResNet32, CIFAR-10", 303_104, 68_900_000, 31, 32), 7.04, _ASPLOS, "calibration"),
    Published(Workload("VGG16, CIFAR-10", 284_672, 332_500_000, 15, 16), 6.66, _ASPLOS, "calibration"),
)

RELU_ONLY_NOTE = (
    "ReLU steps alone: the published column grows by 21 us a ReLU from nothing, so it leaves linear layers out"
)
WHERE_IT_DOES_NOT_FIT: tuple[str, ...] = (
    "SNL's published latencies have no constant part; the whole model adds 0.3 to 0.6 s of linear layers, so it is "
    "twice too high at 12,900 ReLUs and 30 % too high at 49,400. Its ReLU steps alone fit.",
    "Published latencies were taken with both parties on one machine or a fast LAN: at 1 Gbit/s the labels of the "
    "230K network (1,184 B a ReLU) already need 2.2 s on the wire, and the model no longer gives the published 4.61 s.",
    "Fully connected layers of millions of weights (VGG16 with hidden layers) cost more online than their "
    "multiply-accumulates say: its linear part is half of what was measured.",
    "HE time a multiply-accumulate spreads from 0.39 to 0.73 us between networks: offline times are good to a factor "
    "of 1.5, no better. Oblivious transfer's compute was not published and is left out.",
    "Circa's figures are the best that its abstract claims, so its estimate is a lower bound.",
)


CHECKED_RELUS = (
    min(p.load.relu_count for p in PUBLISHED), max(p.load.relu_count for p in PUBLISHED)
)  # fmt: skip


def beyond(load: Workload) -> str:
    """Return a warning where a network lies outside of what the model was checked on, else nothing."""
    low, high = CHECKED_RELUS
    if low <= load.garbled <= high:
        return ""
    return f"extrapolated: the model was checked on networks of {low:,} to {high:,} ReLUs"


def checks() -> list[Check]:
    """Return the model beside every published latency, both parties on one machine."""
    rows = []
    for published in PUBLISHED:
        load = published.load
        model = estimate(load, "delphi", WIRES["loopback"]).online.total_s
        note = ""
        if published.relu_only:
            model = load.relu_count * (point("gc_eval_s") + point("gc_encode_online_s"))
            note = RELU_ONLY_NOTE
        rows.append(
            Check(load.name, load.relu_count, published.online_s, model, published.role, published.source, note)
        )
    return rows
