"""Where runs are computed: here, in other processes, or on a Dask cluster; always through `Executor`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch

from poolwise.errors import InvalidValue, MissingExtra
from poolwise.lab.provenance import cores


class Here(Executor):
    """Runs in this process, one after the other; an interruption goes straight through."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as cause:  # the future's own contract: whoever reads the result gets it
            future.set_exception(cause)
        return future


@contextmanager
def executor(jobs: int, scheduler: str | None) -> Iterator[tuple[Executor, int]]:
    """An executor, and how many runs to hand it at once."""
    if scheduler is not None:
        with cluster(scheduler) as client:
            yield client.get_executor(), max(1, sum(client.nthreads().values()))
    elif jobs == 1:
        yield Here(), 1
    else:
        share = max(1, cores() // jobs)
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may deadlock
        pool = ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(share,))
        try:
            yield pool, jobs
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """A client of the Dask scheduler at that address."""
    try:
        from dask.distributed import Client  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  (an extra of its own)
    except ImportError as cause:
        raise MissingExtra(f'scheduler needs {cause.name}: pip install "poolwise[dask]"', "lab") from None
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as cause:
        raise InvalidValue(
            f"scheduler must be the address of a running one, got {address!r} ({cause})", "lab"
        ) from None
    with client:
        yield client


def as_completed(
    pool: Executor, width: int, run: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
) -> Iterator[Any]:
    """The results of run(*task), as they come, with at most `width` tasks in flight."""
    waiting, flying = list(reversed(tasks)), set[Future[Any]]()
    while waiting or flying:
        while waiting and len(flying) < width:
            flying.add(pool.submit(run, *waiting.pop()))
        done, flying = next_done(flying)
        for future in done:
            yield future.result()


def next_done(flying: set[Future[Any]]) -> tuple[set[Future[Any]], set[Future[Any]]]:
    """(finished, unfinished), once at least one is finished; works for every kind of future."""
    finished = {future for future in flying if future.done()}
    if not finished and all(isinstance(future, Future) for future in flying):
        finished = wait(flying, return_when=FIRST_COMPLETED).done
    if not finished:
        oldest = next(iter(flying))
        oldest.exception()
        finished = {oldest}
    return finished, flying - finished
