"""Doing the tasks of a wave: here one after another, in local processes, or on a Ray cluster.

A task that fails is tried once more; if it fails again, the others still finish, and then everything that failed is
reported. Finished tasks stay in the cache either way.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from pibench.errors import PibenchError
from pibench.reduction.board import TRIES, Board, Say
from pibench.reduction.tasks import Cache, Result, Task


def run_here(tasks: Sequence[Task], cache: Cache, say: Say) -> dict[str, Result]:
    """Do the tasks one after another in this process."""
    from pibench.reduction.actions import perform, threads_from_environment
    from pibench.training.data import load_dataset

    board = Board(cache, say)
    open_tasks = board.open(tasks)
    if open_tasks:
        import torch

        torch.set_num_threads(threads_from_environment())
        data = load_dataset(open_tasks[0].dataset)
    for task in open_tasks:
        for tried in range(1, TRIES + 1):
            try:
                board.finished(task, perform(task, cache, say, data))
                break
            except Exception as error:
                if not board.failed(task, error, tried):
                    break
    return board.close()


def run_processes(tasks: Sequence[Task], cache: Cache, say: Say, jobs: int) -> dict[str, Result]:
    """Do the tasks in up to `jobs` local processes; a process that dies fails its tasks, which are tried again."""
    board = Board(cache, say)
    waiting: list[tuple[Task, int]] = [(task, 1) for task in board.open(tasks)]
    while waiting:
        waiting = _round(waiting, board, min(jobs, len(waiting)))
    return board.close()


def _round(waiting: Iterable[tuple[Task, int]], board: Board, jobs: int) -> list[tuple[Task, int]]:
    """Do tasks in one pool; returns those to be tried again."""
    again: list[tuple[Task, int]] = []
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_watch, initargs=(os.getpid(),)
    ) as pool:
        futures: dict[Future[Result], tuple[Task, int]] = {
            pool.submit(work, task.model_dump_json(), str(board.cache.folder)): (task, tried) for task, tried in waiting
        }
        while futures:
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                task, tried = futures.pop(future)
                try:
                    board.finished(task, future.result())
                except BrokenProcessPool:  # whichever task it was: each counts one try
                    if board.failed(task, PibenchError("a worker process died"), tried):
                        again.append((task, tried + 1))
                except Exception as error:
                    if board.failed(task, error, tried):
                        again.append((task, tried + 1))
    return again


def work(document: str, folder: str) -> Result:
    """Do one task (in a worker process)."""
    import torch

    from pibench.reduction.actions import perform, threads_from_environment

    torch.set_num_threads(threads_from_environment())
    last = [0.0]

    def say(text: str) -> None:
        if time.monotonic() - last[0] > 20.0:
            last[0] = time.monotonic()
            print(text, flush=True)

    return perform(Task.model_validate_json(document), Cache(Path(folder)), say)


def _watch(parent: int) -> None:
    """End this worker when the process that started it is gone, however it went."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()


def runner(
    cache: Cache, say: Say, jobs: int, ray_address: str | None
) -> Callable[[Sequence[Task]], Mapping[str, Result]]:
    """Return what does the tasks of a wave."""
    if ray_address is not None:
        from pibench.reduction.cluster import run_cluster

        return lambda tasks: run_cluster(tasks, cache, say, ray_address)
    if jobs > 1:
        return lambda tasks: run_processes(tasks, cache, say, jobs)
    return lambda tasks: run_here(tasks, cache, say)
