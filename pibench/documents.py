"""YAML documents checked against a pydantic model: every problem at once, each with its file and line.

YAML is read by the rules of its 1.2 core schema, because those of 1.1 surprise: there `on` is true, `010` is 8,
`12:30` is 750 and `1e3` is a string.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pibench.errors import UsageError
from pibench.registry import nearest

MAX_BYTES, MAX_NESTING = 1 << 20, 10_000  # what no honest document reaches; deep nesting would exhaust the stack
_OPENINGS = (b"[", b"{", b"- ", b"? ", b"-\t")
Loc = tuple[int | str, ...]
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of everything read from a file: no unknown key, no silent conversion, no change afterwards."""

    # deferred: a model inside another one is built once, with it
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


# libyaml's parser where PyYAML was built with it: ten times quicker
if typing.TYPE_CHECKING:
    from yaml import SafeLoader as _Base
else:
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """Safe loader with the 1.2 core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node), 10)  # `010` is ten


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def _walk(node: yaml.Node, loc: Loc, lines: dict[Loc, int], problems: list[tuple[int, str]], seen: set[int]) -> None:
    """Note the line of every key and item; report keys that stand twice, and aliases (which may be endless)."""
    if id(node) in seen:
        raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=node.start_mark)
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name, line = str(key.value) if isinstance(key, yaml.ScalarNode) else "?", key.start_mark.line + 1
            if (*loc, name) in lines:
                problems.append((line, f"key '{name}' stands twice (first in line {lines[(*loc, name)]})"))
            lines[(*loc, name)] = line
            _walk(value, (*loc, name), lines, problems, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*loc, index)] = item.start_mark.line + 1
            _walk(item, (*loc, index), lines, problems, seen)


def read_yaml(path: Path, text: bytes | None = None) -> tuple[Any, dict[Loc, int]]:
    """Return the data of one YAML file and the line of each of its keys and items."""
    try:
        source = path.read_bytes() if text is None else text
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        source.decode("utf-8")  # YAML's parser would take UTF-16 too, and records, which keep the text, would not
    except UnicodeDecodeError as error:
        raise UsageError("not UTF-8 text", where=str(path), remedy="save it as UTF-8") from error
    if len(source) > MAX_BYTES or any(source.count(opening) > MAX_NESTING for opening in _OPENINGS):
        raise UsageError("too large or too deep for a suite or card", where=str(path))
    lines: dict[Loc, int] = {}
    problems: list[tuple[int, str]] = []
    try:
        loader = _Loader(source)
        node = loader.get_single_node()
        if node is None:
            raise UsageError("the file is empty", where=str(path))
        _walk(node, (), lines, problems, set())
        data = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(f"not valid YAML: {reason}", where=f"{path}:{mark.line + 1}" if mark else str(path)) from error
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise UsageError(f"not valid YAML: {str(error) or type(error).__name__}", where=str(path)) from error
    if problems:
        raise collect(path, problems)
    return data, lines


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation mentions at any depth of list, optional, union and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """Return the keys that are allowed where `loc` points into `model`."""
    models = [model]
    for item in loc:
        known = [m.model_fields[item].annotation for m in models if isinstance(item, str) and item in m.model_fields]
        if known:
            models = [found for annotation in known for found in _models_in(annotation)]
        elif isinstance(item, str):  # the tag of a union: keep the members that carry it
            tagged = [m for m in models if any(item in typing.get_args(f.annotation) for f in m.model_fields.values())]
            models = tagged or models
    return sorted({f.alias or name for m in models for name, f in m.model_fields.items()})


def _line_of(loc: Loc, lines: Mapping[Loc, int]) -> int:
    """Return the line of the deepest part of `loc` that stands in the file (tags of unions do not)."""
    here: Loc = ()
    for item in loc:
        if (*here, item) in lines:
            here = (*here, item)
    return lines.get(here, 1)


def _path(loc: Loc, lines: Mapping[Loc, int]) -> str:
    """Return a place as the file's author would write it: without the tags of unions."""
    shown: Loc = ()
    for number, item in enumerate(loc):
        if (*shown, item) in lines or number == len(loc) - 1:
            shown = (*shown, item)
    return "".join(f"[{item}]" if isinstance(item, int) else f".{item}" for item in shown).lstrip(".")


def _message(error: Mapping[str, Any], model: type[BaseModel], lines: Mapping[Loc, int], at: Loc) -> str:
    loc: Loc = error["loc"]
    key, path = str(loc[-1]) if loc else "", _path(at + loc, lines)
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        hint = nearest(str(context["tag"]), tags) or f"; known: {', '.join(tags)}"
        return f"{path}: there is no {str(context['discriminator']).strip(chr(39))} '{context['tag']}'{hint}"
    if error["type"] == "union_tag_not_found":
        return f"{path}: key {error['ctx']['discriminator']} is missing"
    if error["type"] == "extra_forbidden":
        keys = _keys_at(model, loc[:-1])
        return f"unknown key '{key}'" + (nearest(key, keys) or f"; known: {', '.join(keys)}")
    if error["type"] == "missing":
        return f"key '{path}' is missing"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        choices = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
        hint = nearest(error["input"], choices) or f"; known: {', '.join(choices)}"
        return f"{path}: '{error['input']}' is not known{hint.replace('; known:', '; there are')}"
    if error["type"] in {"model_type", "model_attributes_type"}:
        return f"{path}: keys with values are expected here".removeprefix(": ")
    message = str(error["msg"]).replace(" after validation", "")
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = repr(error.get("input"))
    shown = "" if error["type"] == "value_error" else f" (given: {given if len(given) < 60 else given[:57] + '...'})"
    return f"{path}: {message[:1].lower()}{message[1:]}{shown}" if path else message


def collect(path: Path, problems: list[tuple[int, str]]) -> UsageError:
    """Return one error that lists every problem with its line."""
    rows = sorted(set(problems))
    if len(rows) == 1:
        return UsageError(rows[0][1], where=f"{path}:{rows[0][0]}")
    return UsageError(f"{len(rows)} problems" + "".join(f"\n  {path}:{line}: {text}" for line, text in rows))


def _validated(
    data: Any, model: type[Model], lines: Mapping[Loc, int], at: Loc = ()
) -> tuple[Model | None, list[tuple[int, str]]]:
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        found = error.errors(include_url=False)
        return None, [(_line_of(at + e["loc"], lines), _message(e, model, lines, at)) for e in found]
    except RecursionError:
        return None, [(1, "nested too deeply")]


def problems_of(data: Any, model: type[BaseModel], lines: Mapping[Loc, int], at: Loc = ()) -> list[tuple[int, str]]:
    """Return the line and text of everything wrong with the part `at` of a document."""
    return _validated(data, model, lines, at)[1]


def parse(model: type[Model], path: Path, parts: Mapping[str, type[BaseModel]] | None = None) -> Model:
    """Read a file as `model`; `parts` names keys that have a model of their own. All errors come at once."""
    data, lines = read_yaml(path)
    parsed, problems = _validated(data, model, lines)
    for key, part in (parts or {}).items():
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            problems += problems_of(data[key], part, lines, (key,))
    if problems:
        raise collect(path, problems)
    assert parsed is not None
    return parsed
