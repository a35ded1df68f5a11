"""Recording: the network runs once on shapes, and every call of torch that touches the image is written down.

The image is a tensor without data (torch's meta device) whose type sees each call before torch does. All that does not
depend on it is computed as always: attributes of shapes are numbers, layers may be made on the way or lie in lists,
weights may be computed from others. Only what looks at values of the image cannot run, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from pibench.errors import UnsupportedLayer, UsageError
from pibench.lowering.builder import Builder, Call, Ref
from pibench.lowering.handlers import ENDINGS, FRESH, HANDLERS, LIKE, MOVES, POINTWISE, READS, SAME, why_not
from pibench.lowering.moves import move, whole_numbers, written
from pibench.lowering.pointwise import Form, plain, value_of
from pibench.lowering.program import Shape

StageOf = Callable[[str], str]
BATCH = 2  # shapes are run with two images, so that a call that mixes images is seen
_IN_PLACE = {"__iadd__", "__isub__", "__imul__", "__itruediv__"}
_WHOLE = "MaskedQuadratic"  # of two parts, yet one activation


@dataclass(frozen=True)
class Refusal:
    """A value that private inference here cannot make; an error where the network's output needs it."""

    error: UnsupportedLayer


@dataclass(frozen=True)
class Ending:
    """What a network may end in and no private inference needs: softmax of this value."""

    form: Form
    name: str
    function: Callable[[Tensor], Tensor]  # from the logits to the module's own output
    error: UnsupportedLayer  # where anything reads it


Value = Form | Refusal | Ending


class Traced(Tensor):
    """A tensor of the image's, known by its shape; what torch is asked to do with it is recorded."""

    value: Value
    recorder: Recorder

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Hand the call to the recorder that made one of its arguments."""
        given = tree_flatten((args, kwargs or {}))[0]
        recorder = next(item.recorder for item in given if isinstance(item, Traced) and hasattr(item, "recorder"))
        return recorder.call(func, args, kwargs or {})


class Recorder:
    """Runs a network once and collects what it does as a program's operations."""

    def __init__(self, input_shape: Shape, stage_of: StageOf) -> None:
        self.builder = Builder(input_shape)
        self.refused: list[UnsupportedLayer] = []
        self._shape, self._stage_of = input_shape, stage_of
        self._stack: list[tuple[str, nn.Module]] = []
        self._names: dict[str, int] = {}

    def run(self, module: nn.Module) -> Any:
        """Return what the module returns, its tensors traced."""
        image = self._traced(torch.empty(BATCH, *self._shape, device="meta"), plain(self.builder.image))
        with torch.no_grad(), self._watching(module):
            return module(image)

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record one call: shapes first, then what it makes."""
        name, in_place = _spelled(func, kwargs)
        if not args and "input" in kwargs:
            args, kwargs = (kwargs["input"],), {key: value for key, value in kwargs.items() if key != "input"}
        if name in ("getitem", "setitem"):
            args = (args[0], whole_numbers(args[1]), *args[2:])
        site = self._site(name)
        if name == "setitem":
            func, in_place = written, True
        if in_place and not isinstance(args[0], Traced):
            in_place = name not in POINTWISE  # += hands its result over; whoever does not take it is found by comparing
            if in_place:
                raise UnsupportedLayer(
                    "it writes values of the network into a tensor of constants", where=f"module {site}",
                    remedy="put them together by torch.cat or torch.where, or write into a clone of the value",
                )  # fmt: skip
        if str(getattr(func, "__name__", "")) in READS:
            raise UnsupportedLayer(
                f"{self._operation(name)} looks at values of the image, which nobody knows in private inference",
                where=f"module {site}", remedy="its forward must not branch on values or take them out of the network",
            )  # fmt: skip
        if name in LIKE and not isinstance(args[0], Traced):
            return func(args[0], *(torch.empty(x.shape) if isinstance(x, Traced) else x for x in args[1:]), **kwargs)
        if name in FRESH:
            return FRESH[name](*args, **kwargs)
        result = self._on_shapes(func, name, site, args, kwargs)
        if not any(isinstance(item, Tensor) for item in tree_flatten(result)[0]):
            return result
        made = self._made(func, name, site, args, kwargs, result)
        if in_place:
            args[0].value = made if isinstance(made, Value) else plain(made)
            return args[0]
        return self._wrapped(result, made)

    def _made(self, func: Any, name: str, site: str, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
        """Return the value of a call, or its refusal."""
        shape = tuple(result.shape) if isinstance(result, Tensor) else ()
        call = Call(self.builder, site, self._stage_of(site), self._operation(name), shape[1:], name)
        values = [item.value for item in _traced_in(args, kwargs)]
        failed = next((value for value in values if isinstance(value, Refusal)), None)
        try:
            if ended := next((value for value in values if isinstance(value, Ending)), None):
                raise ended.error
            if isinstance(result, Tensor) and (result.dim() == 0 or result.shape[0] != BATCH):
                call.refuse(f"its result of shape {shape} mixes the images of a batch")
            if name not in HANDLERS and name not in POINTWISE and name not in MOVES | SAME | set(ENDINGS):
                call.refuse(why_not(name))
            return failed or self._lowered(call, func, name, args, kwargs)
        except UnsupportedLayer as error:
            refused = error
        except (TypeError, AttributeError, IndexError, KeyError) as error:
            refused = call.error(f"not with these arguments ({error})")
        refused.__traceback__ = refused.__context__ = None  # frames hold the network
        self.refused += [] if refused in self.refused else [refused]
        return failed or Refusal(refused)

    def _lowered(self, call: Call, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        if name in SAME:
            if "dropout" in name and (args[2:3] == (True,) or kwargs.get("training", len(args) < 3)):
                call.refuse("it drops values in inference too: give it training=self.training")
            return args[0].value
        if name in MOVES:
            traced = {id(item): _ref(item) for item in _traced_in(args, kwargs)}
            return move(call, func, args, kwargs, traced)
        if name in ENDINGS:
            words = f"{call.operation} is not linear and no ReLU: only at a network's end can it be left out"
            return Ending(args[0].value, name, lambda x: func(x, *args[1:], **kwargs), call.error(words))
        if name in POINTWISE:
            forms = tree_map(lambda item: item.value if isinstance(item, Traced) else item, (args, kwargs))
            return POINTWISE[name](call, *forms[0], **forms[1])
        refs = tree_map(lambda item: _ref(item) if isinstance(item, Traced) else item, (args, kwargs))
        return HANDLERS[name](call, *refs[0], **refs[1])

    def _on_shapes(self, func: Any, name: str, site: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run the call without data; what fails here fails on this input's shape."""
        if name == "max_pool2d" and not kwargs.get("return_indices", True):
            kwargs = {key: value for key, value in kwargs.items() if key != "return_indices"}
        if name == "device":
            return torch.device("cpu")  # what the network makes beside the image is real
        meta = tree_map(lambda item: item.to("meta") if _real(item) else item, (args, kwargs))
        try:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*meta[0], **meta[1])
        except Exception as error:
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(
                f"{self._operation(name)} fails on an input of shape {self._shape}: {message}",
                where=f"module {site}", remedy="check the input shape that was given for this network",
            ) from error  # fmt: skip

    def _wrapped(self, result: Any, made: Any) -> Any:
        """Return the call's tensors, each with its value."""
        if isinstance(result, Tensor):
            return self._traced(result, plain(made) if not isinstance(made, Value) else made)
        values = made if isinstance(made, list | tuple) else [made] * len(result)
        return type(result)(self._wrapped(item, value) for item, value in zip(result, values, strict=True))

    def _traced(self, meta: Tensor, value: Value) -> Traced:
        traced = torch.Tensor._make_subclass(Traced, meta.as_subclass(Tensor))
        traced.value, traced.recorder = value, self
        return traced

    @contextmanager
    def _watching(self, root: nn.Module) -> Iterator[None]:
        """Know at each call which module runs."""
        hooks = []
        for path, module in root.named_modules():
            if path:
                hooks.append(module.register_forward_pre_hook(self._entering(path), prepend=True))
                hooks.append(module.register_forward_hook(self._leaving, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _entering(self, path: str) -> Callable[..., None]:
        def enter(module: nn.Module, _args: Any) -> None:
            if _of_torch(module) and self._enclosing() is None:
                self._numbered(path.replace(".", "_"))
            self._stack.append((path, module))

        return enter

    def _leaving(self, _module: nn.Module, _args: Any, _out: Any) -> None:
        self._stack.pop()

    def _enclosing(self) -> tuple[str, nn.Module] | None:
        """Return the outermost running module that counts as one, such as a Conv2d."""
        return next((entry for entry in self._stack if is_whole(entry[1])), None)

    def _site(self, name: str) -> str:
        """Return a whole module's path, or for other calls the enclosing module's path and the call's own name."""
        if (whole := self._enclosing()) is not None and (_of_torch(whole[1]) or name not in MOVES):
            return whole[0]
        word = self._numbered(name) if name in HANDLERS or name in POINTWISE or name in MOVES else name
        return f"{self._stack[-1][0]}.{word}" if self._stack else word

    def _numbered(self, word: str) -> str:
        count = self._names[word] = self._names.get(word, -1) + 1
        return f"{word}_{count}" if count else word

    def _operation(self, name: str) -> str:
        """Return what the user calls it: the class of a whole module, or the function."""
        whole = self._enclosing()
        return type(whole[1]).__name__ if whole is not None else name


def is_whole(module: nn.Module) -> bool:
    """Whether a module is one thing to its author: a layer of torch's, or one without parts."""
    return type(module).__name__ == _WHOLE or _of_torch(module) or not any(True for _ in module.children())


def _of_torch(module: nn.Module) -> bool:
    containers = nn.Sequential | nn.ModuleList | nn.ModuleDict
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, containers)


def _spelled(func: Any, kwargs: dict[str, Any]) -> tuple[str, bool]:
    """Return a function's name, the same for all its forms, and whether it changes its first argument."""
    name = str(getattr(func, "__name__", func))
    if name == "__get__":
        return str(func.__self__.__name__), False
    if name.startswith("__"):
        return name.strip("_"), name in _IN_PLACE
    return name.rstrip("_").removeprefix("_"), name.endswith("_") or bool(kwargs.get("inplace"))


def _ref(traced: Traced) -> Ref:
    assert isinstance(traced.value, Form)
    return value_of(traced.value)


def _traced_in(args: Any, kwargs: Any) -> list[Traced]:
    return [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, Traced)]


def _real(item: Any) -> bool:
    return isinstance(item, Tensor) and not isinstance(item, Traced) and not item.is_meta
