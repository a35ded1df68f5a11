"""Ten structures of each kind that people bring, lowered: made once when imported, before two processes part."""

from __future__ import annotations

from typing import Any

import torch
from test_lower_public import GATES, KINDS, SEVERAL, SHAPE, Alphas, Net, Replaced, conv
from torch import Tensor, nn

from pibench.lowering.lower import Lowered, leaves, lowered

EACH = 10
CLASSES = 5


class Headed(nn.Module):
    """A structure, and a head of a few logits on the output that counts."""

    def __init__(self, body: nn.Module, output: str | None) -> None:
        super().__init__()
        self.body, self.output = body.eval(), output
        with torch.no_grad():
            shape = self._wanted(torch.zeros(2, *SHAPE, dtype=self._dtype())).shape
        self.head = nn.Linear(shape[1:].numel(), CLASSES).to(self._dtype())

    def _dtype(self) -> torch.dtype:
        return next(self.body.parameters(), torch.zeros(1)).dtype

    def _wanted(self, x: Tensor) -> Tensor:
        made = self.body(x)
        return made if self.output is None else dict(leaves(made))[self.output]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self._wanted(x).flatten(1))


def several() -> dict[str, tuple[nn.Module, str]]:
    """Return networks with several outputs, and the one that is wanted."""

    def both(self: Any, x: Tensor) -> Any:
        y = self.m0(x)
        return {"early": y.sigmoid(), "late": (self.m1(y.relu()), [y.exp(), self.m1(y)])}

    deep = {f"{name} of many": (Net(both, conv(), conv()), name) for name in ("late.0", "late.1.1")}
    listed = {f"{k} of a list": (Net(lambda s, x: [s.m0(x), s.m1(x.relu())], conv(), conv()), str(k)) for k in (0, 1)}
    heads = {f"head {k}": (Net(lambda s, x: {"heads": (s.m0(x), s.m0(x.relu()), x)}, conv()), f"heads.{k}")
             for k in range(3)}  # fmt: skip
    return {name: (net, name) for name, net in SEVERAL.items()} | deep | listed | heads


def structures() -> dict[str, Headed]:
    """Return each structure under its kind and name."""
    torch.manual_seed(0)
    found = {
        f"{kind}: {name}": Headed(net, None) for kind, nets in KINDS.items() for name, net in [*nets.items()][:EACH]
    }
    gates = {name: Net(forward, conv(), Alphas()) for name, (forward, _) in GATES.items()}
    gates = {"AutoReP's": nn.Sequential(conv(), Replaced(), conv()), **gates}
    found |= {f"gates: {name}": Headed(net, None) for name, net in [*gates.items()][:EACH]}
    found |= {f"outputs: {name}": Headed(net, output) for name, (net, output) in several().items()}
    return found


STRUCTURES: dict[str, tuple[Headed, Lowered]] = {name: (net, lowered(net, SHAPE)) for name, net in structures().items()}
