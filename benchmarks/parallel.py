"""Independent jobs in parallel processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def run_all(
    work: Callable[[Job], Answer], jobs: Sequence[Job], processes: int, title: str
) -> Iterator[tuple[Job, Answer]]:
    """Yield each job with its answer, in the order in which they finish.

    Args:
        work: a function of a module; it and the jobs go to other processes.
        processes: 1 stays in this one.
        title: of the progress bar.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=len(jobs))
        if processes <= 1:
            for job in jobs:
                yield job, work(job)
                progress.advance(task)
            return
        # spawn: a child that is forked from a process with threads may hang
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            futures = {pool.submit(work, job): job for job in jobs}
            for future in as_completed(futures):
                yield futures[future], future.result()
                progress.advance(task)
