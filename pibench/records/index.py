"""The index of records: one row a run and one a (case, measure), derived from the JSON files and rebuildable from them.

SQLite beside the records by default. A team shares one through any URL that SQLAlchemy understands
(`postgresql+psycopg://...`); there the records' text travels along, since the others do not have the files.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from pibench.errors import UsageError
from pibench.records.files import dump_record, load_record, parse_record
from pibench.records.measures import MEASURES, Measure, estimate_of
from pibench.records.record import Case, Record

RUNS = Path(".pibench/runs")
INDEX = "index.sqlite"
VERSION = 2  # of the tables; those of an older one are derived again
Params = dict[str, Any]

TABLES = (
    "CREATE TABLE IF NOT EXISTS pibench_meta (version INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pibench_runs (id VARCHAR(200) PRIMARY KEY, source VARCHAR(4096), stamp VARCHAR(64),"
    " created_utc VARCHAR(40), suite VARCHAR(200), machine VARCHAR(64), commit_id VARCHAR(64), dirty INTEGER,"
    " finished INTEGER, body TEXT)",
    "CREATE TABLE IF NOT EXISTS pibench_points (run_id VARCHAR(200), case_id VARCHAR(500), measure VARCHAR(60),"
    " setting VARCHAR(300), value DOUBLE PRECISION, low DOUBLE PRECISION, high DOUBLE PRECISION, sessions INTEGER,"
    " PRIMARY KEY (run_id, case_id, measure))",
)
INSERT_RUN = (
    "INSERT INTO pibench_runs VALUES (:id, :source, :stamp, :created_utc, :suite, :machine, :commit_id, :dirty,"
    " :finished, :body)"
)
INSERT_POINT = (
    "INSERT INTO pibench_points VALUES (:run_id, :case_id, :measure, :setting, :value, :low, :high, :sessions)"
)


class Connection(Protocol):
    """What the index needs of a data base: statements with `:named` parameters, and a commit."""

    def execute(self, statement: str, rows: Params | Sequence[Params] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement, once a row of parameters; return what it selects."""
        ...

    def commit(self) -> None:
        """Make it permanent."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Index:
    """Runs and points of one store."""

    def __init__(self, connection: Connection, runs: Path | None) -> None:
        self._db, self._runs = connection, runs
        for statement in TABLES:
            self._db.execute(statement)
        versions = self._db.execute("SELECT version FROM pibench_meta")
        if versions and versions[0][0] > VERSION:
            raise UsageError(
                f"the store is of a newer pibench (its tables are version {versions[0][0]})", remedy="update"
            )
        if versions != [(VERSION,)]:
            self._derive_again()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def refresh(self) -> list[str]:
        """Take in new and changed files, forget vanished ones; returns a line about each file that is no record."""
        if self._runs is None:
            return []
        known = dict(self._db.execute("SELECT source, stamp FROM pibench_runs"))
        found = {str(path): _stamp(path) for path in sorted(self._runs.glob("*.json"))}
        for gone in known.keys() - found.keys():
            self._forget("source", gone)
        refused = []
        for source, stamp in found.items():
            if known.get(source) == stamp:
                continue
            self._forget("source", source)
            try:
                self.add(load_record(Path(source)), source=source, stamp=stamp, commit=False)
            except UsageError as error:
                refused.append(str(error))
        self._db.commit()
        return refused

    def rebuild(self) -> list[str]:
        """Throw everything derived away and derive it again."""
        self._derive_again()
        return self.refresh()

    def _derive_again(self) -> None:
        """Make the tables anew, with the records that the store itself holds."""
        bodies = self._db.execute("SELECT body FROM pibench_runs WHERE body IS NOT NULL")
        self._clear()  # made permanent together with what follows: a shared store holds the only copy
        for (body,) in bodies:
            self.add(parse_record(body, where="shared store"), body=body, commit=False)
        self._db.commit()

    def add(
        self, record: Record, *, source: str = "", stamp: str = "", body: str | None = None, commit: bool = True
    ) -> None:
        """Index one record (in the place of an older state of the same run)."""
        self._forget("id", record.id)
        row = {
            "id": record.id, "source": source, "stamp": stamp, "created_utc": record.created_utc,
            "suite": record.suite.name, "machine": record.machine.key, "commit_id": record.git.commit,
            "dirty": int(bool(record.git.dirty)), "finished": int(record.finished), "body": body,
        }  # fmt: skip
        self._db.execute(INSERT_RUN, row)
        if points := [{"run_id": record.id, **point} for point in _points(record)]:
            self._db.execute(INSERT_POINT, points)
        if commit:
            self._db.commit()

    def share(self, records: Iterable[Record]) -> int:
        """Put records into a shared store together with their text; returns how many."""
        given = list(records)
        for record in given:
            self.add(record, body=dump_record(record), commit=False)
        self._db.commit()
        return len(given)

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs, oldest first."""
        names = ("id", "source", "created_utc", "suite", "machine", "commit_id", "dirty", "finished")
        rows = self._db.execute(f"SELECT {', '.join(names)} FROM pibench_runs ORDER BY created_utc, id")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def cases(self) -> list[tuple[str, int]]:
        """Return the cases that have points, with the number of runs of each."""
        rows = self._db.execute(
            "SELECT case_id, COUNT(DISTINCT run_id) FROM pibench_points GROUP BY case_id ORDER BY case_id"
        )
        return [(case, int(runs)) for case, runs in rows]

    def series(self, case_id: str, measure: str) -> list[dict[str, Any]]:
        """Return the points of one measure of one case, oldest run first."""
        names = (
            "run_id", "created_utc", "machine", "commit_id", "dirty", "setting", "value", "low", "high", "sessions",
        )  # fmt: skip
        rows = self._db.execute(
            "SELECT p.run_id, r.created_utc, r.machine, r.commit_id, r.dirty, p.setting, p.value, p.low, p.high,"
            " p.sessions"
            " FROM pibench_points p JOIN pibench_runs r ON r.id = p.run_id"
            " WHERE p.case_id = :case_id AND p.measure = :measure ORDER BY r.created_utc, r.id",
            {"case_id": case_id, "measure": measure},
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def body(self, run_id: str) -> str | None:
        """Return a record's text where the store holds it."""
        rows = self._db.execute("SELECT body FROM pibench_runs WHERE id = :id", {"id": run_id})
        return rows[0][0] if rows else None

    def _forget(self, column: str, value: str) -> None:
        where = "SELECT id FROM pibench_runs WHERE " + ("source = :value" if column == "source" else "id = :value")
        self._db.execute(f"DELETE FROM pibench_points WHERE run_id IN ({where})", {"value": value})
        self._db.execute(where.replace("SELECT id", "DELETE"), {"value": value})

    def _clear(self) -> None:
        for table in ("pibench_points", "pibench_runs", "pibench_meta"):
            self._db.execute(f"DROP TABLE {table}")
        for statement in TABLES:
            self._db.execute(statement)
        self._db.execute("INSERT INTO pibench_meta VALUES (:version)", {"version": VERSION})


class _Sqlite:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=30.0)

    def execute(self, statement: str, rows: Params | Sequence[Params] | None = None) -> list[tuple[Any, ...]]:
        if isinstance(rows, Sequence):
            self._db.executemany(statement, rows)
            return []
        with closing(self._db.execute(statement, rows or {})) as cursor:
            return cursor.fetchall()

    def commit(self) -> None:
        self._db.commit()

    def close(self) -> None:
        self._db.close()


class _Url:
    """A data base named by URL."""

    def __init__(self, url: str) -> None:
        try:
            import sqlalchemy
        except ImportError as error:
            raise UsageError(
                "a store named by URL needs SQLAlchemy", where=url.split("@")[-1], remedy="pip install 'pibench[team]'"
            ) from error
        self._text, self._error = sqlalchemy.text, sqlalchemy.exc.SQLAlchemyError
        try:
            self._engine = sqlalchemy.create_engine(url)
            self._db = self._engine.connect()
        except (self._error, ImportError) as error:
            raise UsageError(f"the store cannot be opened: {error}", where=url.split("@")[-1]) from error

    def execute(self, statement: str, rows: Params | Sequence[Params] | None = None) -> list[tuple[Any, ...]]:
        result = self._db.execute(self._text(statement), rows or {})
        return [tuple(row) for row in result] if result.returns_rows else []

    def commit(self) -> None:
        self._db.commit()

    def close(self) -> None:
        self._db.close()
        self._engine.dispose()


def open_index(store: str | None = None, runs: Path | None = None) -> Index:
    """Return the index of a folder of records, or of the shared store at a URL ($PIBENCH_STORE by default)."""
    url = store or os.environ.get("PIBENCH_STORE", "")
    if "://" in url:
        return Index(_Url(url), None)
    folder = runs or Path(url or RUNS)
    path = folder.parent / INDEX
    try:
        return Index(_Sqlite(path), folder)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise UsageError(f"the index cannot be opened: {error}", where=str(path)) from error
        path.unlink()  # not a data base any more: nothing is lost, everything in it is derived
        return Index(_Sqlite(path), folder)


def _points(record: Record) -> Iterator[Params]:
    for case in record.cases:
        if case.status != "done":
            continue  # a speed without correctness has no place in a history
        for measure in MEASURES.values():
            if (point := _point(case, measure, record.seed)) is not None:
                yield {"case_id": case.id, "measure": measure.name, "setting": case.setting, **point}


def _point(case: Case, measure: Measure, seed: int) -> Params | None:
    estimate = estimate_of(case, measure, seed)
    if estimate is None:
        return None
    return {"value": estimate.point, "low": estimate.low, "high": estimate.high, "sessions": estimate.n_sessions}


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_mtime_ns}-{status.st_size}"
