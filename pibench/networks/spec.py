"""What a network is, as data: one strict model a family, told apart by `family`. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pibench.documents import Strict

Thinning = Literal["none", "top", "bottom"]
Positive = Annotated[int, Field(gt=0, le=65536)]
Stage = Annotated[int, Field(ge=1, le=8)]


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


class ResNetSpec(NetworkSpec):
    """Residual network of basic blocks, with DeepReDuce's and DeepReShape's knobs."""

    family: Literal["resnet"]
    base_width: Positive = 64
    multipliers: Annotated[list[Positive], Field(max_length=4)] = [2, 2, 2]
    blocks: Annotated[list[Positive], Field(min_length=1, max_length=5)] = [2, 2, 2, 2]
    width_scale: Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)] = 1.0
    stem_kernel: Literal[3, 7] = 3
    stem_stride: Literal[1, 2, 4] = 1
    stem_pool: bool = False
    stem_relu: bool = True
    culled: list[Stage] = []
    thinning: Thinning = "none"
    shortcut: Literal["conv", "pad"] = "conv"

    @model_validator(mode="after")
    def _consistent(self) -> ResNetSpec:
        if len(self.multipliers) != len(self.blocks) - 1:
            raise ValueError(f"{len(self.blocks)} stages need {len(self.blocks) - 1} multipliers")
        if any(stage > len(self.blocks) for stage in self.culled):
            raise ValueError(f"culled names a stage beyond the {len(self.blocks)} there are")
        if len(set(self.culled)) != len(self.culled):
            raise ValueError("culled names a stage twice")
        if self.base_width * self.width_scale < 1:
            raise ValueError("base_width times width_scale is below one channel")
        return self

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        widths = [int(self.base_width * self.width_scale)]
        for multiplier in self.multipliers:
            widths.append(widths[-1] * multiplier)
        return widths


Network = ResNetSpec
