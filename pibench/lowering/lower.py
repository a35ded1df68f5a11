"""From any torch module to a program: trace it with torch.fx, run shapes through it, write each call as operations.

Module names survive, so that a ReLU site is called what the network's author called it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from pibench.errors import PibenchError, UnsupportedLayer, UsageError
from pibench.lowering.builder import Builder, Call, Ref
from pibench.lowering.layers import FUNCTIONS, METHODS, MODULES, NAMED_MODULES, Handler
from pibench.lowering.program import INPUT, Program, Shape, Weights
from pibench.lowering.reference import evaluate

StageOf = Callable[[str], str]
_TOLERANCE = 1e-3  # of the largest logit: far above rounding, far below a wrong operation
_BATCH = 2  # shapes are run with two images, so that a call that mixes images is seen


def lower(
    module: nn.Module, input_shape: Sequence[int], stage_of: StageOf | None = None, *, check: bool = True
) -> tuple[Program, Weights]:
    """Lower a module in inference mode to a program and its weights (float32, BatchNorm folded in float64).

    `stage_of` maps a module path to its stage; without it the path's first part is the stage. `check` compares the
    program with the module on two random images (modules without data, on the meta device, are not compared).
    Raises UnsupportedLayer for what private inference here cannot express.
    """
    inference = copy.deepcopy(module).eval()  # the caller's module stays as it is
    walk = _Walk(_trace(inference), tuple(input_shape), stage_of or _first_part)
    output = walk.result()
    program, weights = walk.builder.finish(output)
    if check and not any(w.is_meta for w in weights.values()):
        _compare(inference, program, weights)
    return program, weights


class _Tracer(fx.Tracer):
    """Keeps the modules that have a handler whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _module_handler(m) is not None or super().is_leaf_module(m, module_qualified_name)


class _Walk(fx.Interpreter):
    """Runs shapes (meta tensors) through the traced module and lowers each call on the way."""

    def __init__(self, traced: fx.GraphModule, input_shape: Shape, stage_of: StageOf) -> None:
        # The original keeps the values, this copy only runs shapes.
        super().__init__(copy.deepcopy(traced).to("meta"))
        self.extra_traceback = False  # torch would append its own lines to our messages
        self._real, self._stage_of = traced, stage_of
        self.builder = Builder(input_shape)
        self._refs: dict[fx.Node, Any] = {}
        self._shape = input_shape

    def result(self) -> Ref:
        """Walk the whole module and return the value of its output."""
        inputs = [node for node in self._real.graph.nodes if node.op == "placeholder"]
        if sum(not node.args for node in inputs) != 1:
            raise UnsupportedLayer(f"the module takes {len(inputs)} inputs; a network here takes one tensor of images")
        self.run(torch.zeros(_BATCH, *self._shape, device="meta"))
        out = next(ref for node, ref in self._refs.items() if node.op == "output")
        if not isinstance(out, Ref):
            raise UnsupportedLayer("the module returns something else than one tensor of logits")
        return out

    def run_node(self, n: fx.Node) -> Any:
        """Run one node on shapes, then lower it."""
        try:
            result = super().run_node(n)
        except PibenchError:
            raise
        except Exception as error:
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(
                f"{_operation(n, self.module)} fails on an input of shape {self._shape}: {message}",
                where=f"module {_site(n)}",
                remedy="check the input shape that was given for this network",
            ) from error
        self._refs[n] = self._lowered(n, result)
        return result

    def _lowered(self, node: fx.Node, result: Any) -> Any:
        if node.op == "placeholder":
            return Ref(INPUT, self._shape) if isinstance(result, Tensor) else result
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self._refs[n])
        if node.op == "output":
            return args[0]
        if node.op == "get_attr" or not _has_tensors(result):
            return result
        return self._call(node, args, kwargs, result)

    def _call(self, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        site = _site(node)
        shape = tuple(result.shape[1:]) if isinstance(result, Tensor) else ()
        call = Call(self.builder, site, self._stage_of(site), _operation(node, self.module), shape)
        if isinstance(result, Tensor) and (result.dim() == 0 or result.shape[0] != _BATCH):
            call.refuse(f"its result of shape {tuple(result.shape)} mixes the images of a batch")
        handler, args = self._handler(call, node, args)
        try:
            ref = handler(call, *args, **kwargs)
        except (TypeError, AttributeError, IndexError) as error:
            call.refuse(f"not with these arguments ({error})")
        if _in_place(node, self._real):
            self._rebind(args, ref)
        return ref

    def _handler(self, call: Call, node: fx.Node, args: tuple[Any, ...]) -> tuple[Handler, tuple[Any, ...]]:
        if node.op == "call_module":
            module = self._real.get_submodule(str(node.target))
            handler, args = _module_handler(module), (module, *args)
        elif node.op == "call_method":
            handler = METHODS.get(str(node.target))
        else:
            handler = FUNCTIONS.get(node.target)
        return handler or call.refuse("it is not among the supported operations"), args

    def _rebind(self, args: tuple[Any, ...], ref: Any) -> None:
        """After a call in place, whoever reads the old value reads the new one."""
        old = next(arg for arg in args if isinstance(arg, Ref))
        for node, value in self._refs.items():
            if value == old:
                self._refs[node] = ref


def _trace(module: nn.Module) -> fx.GraphModule:
    tracer = _Tracer()
    root = nn.Sequential(module) if tracer.is_leaf_module(module, "") else module  # a single layer is a network too
    try:
        graph = tracer.trace(root)
    except Exception as error:
        raise UnsupportedLayer(
            f"{type(module).__name__} cannot be traced: {str(error).splitlines()[0]}",
            remedy="its forward must not branch on values; torch.fx.symbolic_trace shows where it does",
        ) from error
    return fx.GraphModule(tracer.root, graph)


@torch.no_grad()
def _compare(module: nn.Module, program: Program, weights: Weights) -> None:
    """Refuse a program that computes something else: tracing does not see every change in place."""
    images = torch.randn(_BATCH, *program.input_shape, generator=torch.Generator().manual_seed(0))
    like = next(module.parameters(), images)
    expected = module(images.to(like.device, like.dtype)).to("cpu", torch.float32)
    error = float((evaluate(program, weights, images) - expected).abs().max())
    if error > _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UnsupportedLayer(
            f"the lowered program differs from {type(module).__name__} by {error:.3g} on random images",
            remedy="a value changed in place and read again under another name is the usual cause: write y = y + x",
        )


def _module_handler(module: nn.Module) -> Handler | None:
    return MODULES.get(type(module)) or NAMED_MODULES.get(type(module).__name__)


def _operation(node: fx.Node, root: nn.Module) -> str:
    """Return what the user calls this node's operation."""
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))).__name__
    if node.op == "call_function":
        return str(getattr(node.target, "__name__", node.target))
    return f"{node.op.removeprefix('call_')} {node.target}"


def _site(node: fx.Node) -> str:
    """Return a module's path, or for other calls the enclosing module's path and the call's own name."""
    if node.op == "call_module":
        return str(node.target)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return f"{stack[-1][0]}.{node.name}" if stack and stack[-1][0] else node.name


def _first_part(site: str) -> str:
    return site.split(".", 1)[0] if "." in site else ""


def _has_tensors(result: Any) -> bool:
    return isinstance(result, Tensor) or (
        isinstance(result, tuple | list) and bool(result) and all(isinstance(item, Tensor) for item in result)
    )


def _in_place(node: fx.Node, root: nn.Module) -> bool:
    """Return whether the call changes its first argument."""
    if node.kwargs.get("inplace"):
        return True
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    return name == "iadd" or (name.endswith("_") and not name.endswith("__"))
