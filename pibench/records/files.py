"""A record's file: written whole or not at all, so that a crash at any moment leaves a complete one; read with care."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path

from pydantic import ValidationError

from pibench.errors import StoreError, UsageError
from pibench.records.record import SCHEMA, Record
from pibench.records.store import find_record

MAX_RECORD_BYTES = 1 << 30  # refuse to read what no run of ours writes


def dump_record(record: Record) -> str:
    """Return the JSON text of a record."""
    return record.model_dump_json(by_alias=True)


def save_record(record: Record, path: Path) -> None:
    """Write the record whole or not at all: a temporary file beside it, then a rename."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(dump_record(record))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise _unwritable(path, error) from error


def load_record(path: Path) -> Record:
    """Read a record; UsageError for a file that is missing, corrupt or of another schema."""
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise UsageError(f"the file is larger than {MAX_RECORD_BYTES >> 20} MiB", where=str(path))
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the record cannot be read: {error.strerror}", where=str(path), remedy="`pibench ls` lists the records"
        ) from error
    return parse_record(text, where=str(path))


def open_record(name: str) -> Record:
    """Read the record meant by a path, the beginning of an id, `last` (`latest`) or `last~N`; UsageError if none."""
    return load_record(find_record(name))


def parse_record(text: bytes | str, where: str = "record") -> Record:
    """Read a record from its JSON text."""
    try:
        return _checked(Record.model_validate_json(text), where)
    except ValidationError as error:
        raise _malformed(text, error, where) from error


def _checked(record: Record, where: str) -> Record:
    if record.schema_ != SCHEMA:
        raise _other_schema(record.schema_, where)
    return record


def _malformed(text: bytes | str, error: ValidationError, where: str) -> UsageError:
    """Say what is wrong with a file: not JSON, another schema, or the first few wrong fields."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return UsageError("this is not a record: it is not JSON", where=where, remedy="was it cut short or edited?")
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        return _other_schema(schema, where)
    problems = error.errors(include_url=False, include_input=False)
    shown = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems[:5])
    more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
    return UsageError(f"the record is damaged: {shown}{more}", where=where, remedy="was it edited by hand?")


def _other_schema(schema: object, where: str) -> UsageError:
    what = f"its schema is {str(schema)[:60]!r}, this version reads {SCHEMA!r}"
    return UsageError(what, where=where, remedy="give a record that `pibench run` wrote, or another version of pibench")


def _unwritable(path: Path, error: OSError) -> StoreError:
    remedy = {
        errno.ENOSPC: "free some space, then go on with --resume",
        errno.EDQUOT: "free some of your quota, then go on with --resume",
        errno.EACCES: "make the folder writable, or name another with --record",
        errno.EROFS: "name a record elsewhere with --record",
    }.get(error.errno or 0, "name another place with --record")
    return StoreError(f"the record cannot be written: {error.strerror}", where=str(path), remedy=remedy)
