"""What a network is, as data: one strict model a family, told apart by `family`. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pibench.documents import Strict

Thinning = Literal["none", "top", "bottom"]
Positive = Annotated[int, Field(gt=0, le=65536)]
Stage = Annotated[int, Field(ge=1, le=8)]
Pool = Literal["avg", "max"]


class NetworkSpec(Strict):
    """Fields that every family has."""

    classes: Positive
    input: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    # what stands at the ReLU sites: plain ReLU, ReLU under a public mask (kept in the checkpoint), or a polynomial
    activation: Literal["relu", "masked", "quadratic"] = "relu"
    complement: Literal["identity", "quadratic"] = "identity"  # of a mask: what the other elements get
    quadratic_sites: list[str] = []  # single sites that get a polynomial
    linear_sites: list[str] = []  # single sites without any activation

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.input
        return channels, height, width


class ReducedSpec(NetworkSpec):
    """Fields of the families that DeepReDuce's steps apply to: culling, thinning, reshaping."""

    width_scale: Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)] = 1.0
    stem_stride: Literal[1, 2, 4] = 1
    stem_relu: bool = True
    culled: list[Stage] = []
    thinning: Thinning = "none"
    reuse: Literal[1, 2, 4, 8, 16] = 1  # ReLUs on one of so many channels (DeepReShape's ReLU-reuse, interpreted)

    @property
    def stage_count(self) -> int:
        """How many stages there are."""
        raise NotImplementedError

    @property
    def base(self) -> int:
        """Channels of the first stage before scaling."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _reductions_fit(self) -> Self:
        if any(stage > self.stage_count for stage in self.culled):
            raise ValueError(f"culled names a stage beyond the {self.stage_count} there are")
        if len(set(self.culled)) != len(self.culled):
            raise ValueError("culled names a stage twice")
        if self.reuse > 1 and (self.activation != "relu" or self.quadratic_sites):
            raise ValueError("reuse is for plain ReLUs, without masks or polynomials")
        if self.base * self.width_scale < 1:
            raise ValueError(f"width_scale {self.width_scale} leaves less than one channel of {self.base}")
        return self

    def keeps(self, stage: int, which: Literal["top", "bottom"]) -> bool:
        """Return whether the top (first) or bottom (second) ReLUs of a stage's blocks are kept."""
        return stage not in self.culled and self.thinning != which

    def scaled(self, width: int) -> int:
        """Return a width after scaling."""
        return max(1, int(width * self.width_scale))


class ResNetSpec(ReducedSpec):
    """Residual network of basic blocks or bottlenecks, with DeepReDuce's and DeepReShape's knobs."""

    family: Literal["resnet"]
    base_width: Positive = 64
    multipliers: Annotated[list[Positive], Field(max_length=4)] = [2, 2, 2]
    blocks: Annotated[list[Positive], Field(min_length=1, max_length=5)] = [2, 2, 2, 2]
    inner_widths: list[list[Positive]] | None = None  # channels inside each block, by stage, where they were pruned
    stem_kernel: Literal[3, 7] = 3
    stem_pool: bool = False
    shortcut: Literal["conv", "pad"] = "conv"
    bottleneck: bool = False  # blocks of three convolutions, which leave with four times their inner channels

    @property
    def expansion(self) -> int:
        """How many times its inner channels a block leaves with."""
        return 4 if self.bottleneck else 1

    @property
    def stage_count(self) -> int:
        """How many stages there are."""
        return len(self.blocks)

    @property
    def base(self) -> int:
        """Channels of the first stage before scaling."""
        return self.base_width

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.multipliers) != len(self.blocks) - 1:
            raise ValueError(f"{len(self.blocks)} stages need {len(self.blocks) - 1} multipliers")
        if self.inner_widths is not None and self.bottleneck:
            raise ValueError("inner_widths is for basic blocks: a bottleneck's are a quarter of what it leaves with")
        if self.inner_widths is not None and [len(stage) for stage in self.inner_widths] != self.blocks:
            raise ValueError("inner_widths needs one width a block, in lists by stage like blocks")
        if self.widths[-1] * self.expansion > 65536:
            raise ValueError(f"the last stage would have {self.widths[-1] * self.expansion} channels")
        return self

    @property
    def widths(self) -> list[int]:
        """Channels of each stage (of bottlenecks: inside the blocks)."""
        widths = [self.scaled(self.base_width)]
        for multiplier in self.multipliers:
            widths.append(widths[-1] * multiplier)
        return widths


class VggSpec(ReducedSpec):
    """Plain chain of convolutions in groups that end in a pool; VGG16 by default. A group is a stage."""

    family: Literal["vgg"]
    widths: Annotated[list[Positive], Field(min_length=1, max_length=8)] = [64, 128, 256, 512, 512]
    convolutions: Annotated[list[Positive], Field(min_length=1, max_length=8)] = [2, 2, 3, 3, 3]
    pool: Pool = "avg"
    hidden: list[Positive] = []  # widths of hidden fully connected layers; their ReLUs go with the last group's
    stem_relu: Literal[True] = True  # the first ReLU belongs to the first group

    @property
    def stage_count(self) -> int:
        """How many groups there are."""
        return len(self.widths)

    @property
    def base(self) -> int:
        """Channels of the first group before scaling."""
        return self.widths[0]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.widths) != len(self.convolutions):
            raise ValueError(f"{len(self.widths)} widths need as many numbers of convolutions")
        if any(size % (self.stem_stride << self.stage_count) for size in self.input[1:]):
            raise ValueError(f"{self.stage_count} pools need sides that are multiples of {1 << self.stage_count}")
        return self


class MobileNetSpec(ReducedSpec):
    """MobileNetV1: depthwise and pointwise convolutions; a stage is a resolution."""

    family: Literal["mobilenet"]
    base_width: Positive = 32

    @property
    def stage_count(self) -> int:
        """How many resolutions there are."""
        return 5

    @property
    def base(self) -> int:
        """Channels of the stem before scaling."""
        return self.base_width


class WideResNetSpec(ReducedSpec):
    """Pre-activation wide residual network; WRN-22-8 by default."""

    family: Literal["wideresnet"]
    depth: Positive = 22
    widen: Positive = 8
    base_width: Positive = 16
    final_relu: bool = True  # after the last BatchNorm; published counts differ by it
    stem_relu: Literal[False] = False  # pre-activation: the stem has none

    @property
    def stage_count(self) -> int:
        """How many stages there are."""
        return 3

    @property
    def base(self) -> int:
        """Channels of the stem before scaling."""
        return self.base_width

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError("depth is 6 n + 4: 10, 16, 22, 28, ...")
        return self


class MiniOnnSpec(NetworkSpec):
    """The seven-convolution network of MiniONN (CIFAR-10), as DELPHI uses it."""

    family: Literal["minionn"]
    width: Positive = 64
    last_width: Positive = 16
    pool: Pool = "avg"
    batchnorm: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(size % 4 for size in self.input[1:]):
            raise ValueError("two pools need sides that are multiples of 4")
        return self


Network = Annotated[ResNetSpec | VggSpec | MobileNetSpec | WideResNetSpec | MiniOnnSpec, Field(discriminator="family")]
AnyNetwork = ResNetSpec | VggSpec | MobileNetSpec | WideResNetSpec | MiniOnnSpec
