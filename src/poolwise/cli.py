"""The shell's `poolwise`: parses, calls, prints. No logic.

What a command needs is imported inside it, so that `poolwise --help` stays quick.
"""

# ruff: noqa: PLC0415 (imports inside the commands, for the reason above)

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from poolwise import Fault, InvalidValue, __version__

if TYPE_CHECKING:
    from rich.console import Console

    from poolwise.design import Review


class _Group(TyperGroup):
    """The commands; a fault of the library's own is one line on standard error and exit status 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Fault as fault:
            typer.echo(f"poolwise: {' '.join(str(fault).split())}", err=True)
            raise typer.Exit(2) from None


class Format(StrEnum):
    """How a report is written."""

    text = "text"
    json = "json"


class ReviewFormat(StrEnum):
    """How a review is written."""

    text = "text"
    json = "json"
    sarif = "sarif"
    html = "html"


app = typer.Typer(
    cls=_Group,
    help="Pooling for convolutional networks: see it, size it, measure it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

FormatOption = Annotated[Format, typer.Option("--format", help="How to write the report.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without → must not end the report


@app.command()
def lab(
    variants: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Joined by commas, or: all.", show_default="the five of the tutorial"),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Runs per variant, with the same seeds for all.")] = 3,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Passes over the training images.")] = 12,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="An .npz, or a folder of images by class.", show_default="MNIST digits"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="module:factory of the CNN.", show_default="the tutorial's")
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs at a time.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler, tcp://….", show_default="this machine")
    ] = None,
    report: Annotated[Path, typer.Option(metavar="FILE", help="Where the report goes.")] = Path("report.html"),
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where every run is kept, to resume and add.",
            show_default="lab.sqlite beside the report",
        ),
    ] = None,
) -> None:
    """Train a CNN with each pooling on real images, compare, and write a report."""
    import poolwise.lab

    poolwise.lab.run(
        variants=variants.split(",") if variants else None,
        seeds=seeds,
        epochs=epochs,
        data=data,
        model=model,
        jobs=jobs,
        scheduler=scheduler,
        report=report,
        store=store,
    )


def _grammar(wanted: bool) -> None:
    if wanted:
        from poolwise.design import GRAMMAR

        typer.echo(GRAMMAR, nl=False)
        raise typer.Exit


@app.command(no_args_is_help=True)
def shapes(
    stack: Annotated[
        list[str], typer.Argument(metavar="INPUT LAYER", help="Such as: 28x28 conv3 max2/2 max3/2p1 (see --grammar).")
    ],
    form: FormatOption = Format.text,
    grammar: Annotated[
        bool, typer.Option("--grammar", callback=_grammar, is_eager=True, help="How to write an input and a layer.")
    ] = False,
) -> None:
    """Sizes, strides and receptive fields through a stack of layers, and the elements that nothing reads."""
    from poolwise.design import parse, show, trace

    given, layers = parse(stack)
    stages = trace(given, layers)
    if form is Format.json:
        typer.echo(json.dumps(show.data(given, stages), indent=2))
    else:
        console = _console()
        console.print(show.table(given, stages, console.width))
        console.print(show.summary(given, stages), highlight=False)


def _list_cases(wanted: bool) -> None:
    if wanted:
        from poolwise import bench as library

        library.show_cases(_console())
        raise typer.Exit


@app.command()
def bench(
    cases: Annotated[
        str,
        typer.Option(metavar="GLOB", help="Only the cases or the sections whose name holds this, such as 'max*NHWC'."),
    ] = "*",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads for every contender.", show_default="all cores")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller arrays and 3 rounds: a look, not a measurement.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every number here.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What an earlier run wrote with --json: say what changed.")
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", callback=_list_cases, is_eager=True, help="What --cases can name.")
    ] = False,
) -> None:
    """Measure poolwise beside the other frameworks that are installed, against the speed of a copy."""
    from poolwise import bench as library

    console, errors = _console(), _console(stderr=True)
    before = None if compare is None else library.earlier(compare)
    _check_target("json", json_file)
    with library.progress(errors) as said:
        result = library.run(cases=cases, threads=threads, size=library.QUICK if quick else library.FULL, said=said)
    library.show(result, console)
    if before is not None:
        library.show_changes(result, before, console)
    if json_file is not None:
        json_file.write_text(json.dumps(library.report(result), indent=2) + "\n")
    raise typer.Exit(0 if result.sound else 1)


@app.command()
def accelerate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="module:factory (the current folder is importable).")],
    shape: Annotated[str, typer.Option("--input", metavar="SHAPE", help="One batch, such as 8x3x224x224.")],
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="PyTorch's threads.", show_default="PyTorch's own")
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of each, in turns.")] = 7,
    form: FormatOption = Format.text,
) -> None:
    """Show what poolwise changes in a PyTorch model, and measure what that saves in time and memory."""
    from poolwise.bench import accelerated

    result = accelerated.measured(model, shape, rounds=rounds, threads=threads)
    if form is Format.json:
        typer.echo(json.dumps(result.data(), indent=2))
    else:
        accelerated.show(result, _console())


@app.command()
def review(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A file (.onnx, .keras) or module:factory.")],
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="One batch, such as 1x3x224x224; once for each input.",
            show_default="as declared",
        ),
    ] = None,
    form: Annotated[
        ReviewFormat,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="text, json, sarif (for code scanning) or html (one file with the strip).",
        ),
    ] = ReviewFormat.text,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it here.", show_default="printed")
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            metavar="RULES",
            help="Only these, or their beginnings, joined by commas.",
            show_default="pyproject.toml's, or all",
        ),
    ] = None,
    ignore: Annotated[
        str | None, typer.Option(metavar="RULES", help="Not these, likewise.", show_default="pyproject.toml's")
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(help="Exit status 1 where there are findings.", show_default="pyproject.toml's, or not"),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let a model file run its own code (Lambda layers, .pt, .pth, .h5).")
    ] = False,
) -> None:
    """What is wrong with a network's downsampling: each stage's figures, and findings with their fixes."""
    from poolwise.design import review as library
    from poolwise.design.settings import settings
    from poolwise.named import shape as read_shape

    own = settings(Path.cwd())
    report = library(
        model,
        [read_shape(shape) for shape in shapes or ()],
        select=own.select if select is None else _listed(select),
        ignore=own.ignore if ignore is None else _listed(ignore),
        allowed=own.per_step_ignores,
        trust=trust,
    )
    console = _console()
    if form is ReviewFormat.text and output is None and (console.is_terminal or "COLUMNS" in os.environ):
        console.print(report.text(console.width), highlight=False)
    else:
        _written(_reviewed(report, form), output)
    raise typer.Exit(1 if (own.strict if strict is None else strict) and report.findings else 0)


@app.command()
def rule(
    name: Annotated[
        str | None, typer.Argument(metavar="ID", help="Such as PW101.", show_default="a list of all")
    ] = None,
) -> None:
    """What a rule of the review means, why, by which source, how to mend it, and when to ignore it."""
    from rich.markdown import Markdown

    from poolwise.design.rules import RULES

    if name is None:
        for each in RULES:
            typer.echo(f"{each.id}  {each.severity:<7}  {each.title}")
    else:
        asked = [each for each in RULES if name and each.id.startswith(name.upper())]
        if not asked:
            raise InvalidValue(f"ID must be one of {', '.join(each.id for each in RULES)}, got {name!r}", "rule")
        for each in asked:
            _console().print(Markdown(each.page))


@app.command()
def measure(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A file (.onnx, .keras) or module:factory.")],
    images: Annotated[
        Path, typer.Option(metavar="PATH", help="A folder of pictures, or an .npy or .npz with a batch as the model's.")
    ],
    swap: Annotated[
        str | None,
        typer.Option(metavar="WHAT:WITH", help="Compare before and after: max:max-blur, max:mean, relu+max:fused …"),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="What numbers are multiplied by, such as 1/255; bytes need one."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Taken away after that: one, or one for each channel.")
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="NUMBERS", help="Divided by after that, likewise.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Such as 224x224: larger images are cropped to it.", show_default="the images'"
        ),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(metavar="AXES", help="Those of position, such as 2,3.", show_default="the framework's own"),
    ] = None,
    answer: Annotated[
        str, typer.Option(metavar="class|cosine", help="What must agree: the class, or the cosine of any outputs.")
    ] = "class",
    reach: Annotated[int, typer.Option(metavar="N", min=1, help="Pixels that images move by at most.")] = 2,
    shifts: Annotated[int, typer.Option(metavar="N", min=1, help="Circular shifts, at most.")] = 24,
    maps: Annotated[int, typer.Option(metavar="N", min=1, help="Images whose feature maps are looked at.")] = 64,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Images at a time.")] = 32,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Batches that are timed.")] = 7,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Of shifts and crops: the same seed, the same ones.")
    ] = 0,
    trust: Annotated[bool, typer.Option("--trust", help="Let a model file run its own code.")] = False,
    form: FormatOption = Format.text,
) -> None:
    """A model on your images: whether shifts change its answer, what its poolings keep, time, bytes."""
    from poolwise.design import measured_by_name
    from poolwise.named import whole_numbers

    found = measured_by_name(
        model,
        images,
        swap=swap,
        scale=scale,
        mean=mean,
        std=std,
        trust=trust,
        answer=answer,
        size=None if size is None else whole_numbers("size", size, "x"),
        axes=None if axes is None else whole_numbers("axes", axes, ","),
        reach=reach,
        shifts=shifts,
        maps=maps,
        batch=batch,
        rounds=rounds,
        seed=seed,
    )
    if form is Format.json:
        typer.echo(json.dumps(found.data(), indent=2))
    else:
        _console().print(found.text(), highlight=False)


@app.command()
def explore(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="WHAT",
            help="A picture, an array (.npy, .npz) or a model (.onnx, .keras, module:factory).",
            show_default="a photograph and a digit",
        ),
    ] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What a model sees: a picture, or its batch as .npy.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--input", metavar="SHAPE", help="A model's batch, such as 1x3x224x224.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one HTML file instead of serving.")] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", help="Where 127.0.0.1 serves the page.", show_default="8765, or one that is free"),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the browser.")] = True,
) -> None:
    """See what a pooling does, on a page of this machine: windows, gradients, shifts, frameworks, your own model."""
    from poolwise import explorer
    from poolwise.named import shape as read_shape

    _check_target("save", save)
    explorer.explore(
        what,
        image=image,
        shape=None if shape is None else read_shape(shape),
        save=save,
        port=port,
        browser=browser,
        said=typer.echo,
    )


@app.command()
def doctor(form: FormatOption = Format.text) -> None:
    """What is installed, what is missing, and whether each kernel gives the reference's results."""
    from poolwise import doctor as library

    report = library.examine()
    if form is Format.json:
        typer.echo(json.dumps(report.data(), indent=2))
    else:
        library.show(report, _console())
    raise typer.Exit(0 if report.healthy else 1)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _reviewed(report: Review, form: ReviewFormat) -> str:
    """A review as the text of a file."""
    if form is ReviewFormat.text:
        from rich.console import Console

        held = StringIO()
        console = Console(file=held, width=120)
        console.print(report.text(console.width), highlight=False)
        return held.getvalue()
    if form is ReviewFormat.html:
        return report.html()
    return json.dumps(report.data() if form is ReviewFormat.json else report.sarif(), indent=2) + "\n"


def _check_target(name: str, path: Path | None) -> None:
    """Before there is anything to write."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InvalidValue(f"{name} must be a file in a folder that is there, got {str(path)!r}")


def _written(text: str, output: Path | None) -> None:
    """In UTF-8, whatever the terminal's encoding."""
    data = text.encode(errors="replace")  # a name may hold what no text should
    if output is None:
        typer.echo(data, nl=False)
        return
    try:
        output.write_bytes(data)
    except OSError as cause:
        raise InvalidValue(
            f"output must be a file that can be written, got {str(output)!r} ({cause.strerror})"
        ) from None


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)
