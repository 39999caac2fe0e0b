"""The rules that look at more than one stage: skips, receptive fields and the image, heads, what training keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from poolwise import Max
from poolwise.design.graph import MERGES, Graph, Step
from poolwise.design.stage_rules import Evidence, along, sliding
from poolwise.design.stages import Stage, Views, seen

ENLARGES = {"ConvTranspose", "Resize", "MaxUnpool", "DepthToSpace"}
DENSE = {"Gemm", "MatMul"}
FUSED = {"pytorch": "poolwise.torch.accelerate(model)", "keras": "poolwise.keras.ReLUMaxPooling2D in place of both"}


def unfit(graph: Graph, _: Sequence[Stage]) -> Iterator[Evidence]:
    """The input that was asked for, where the network runs only on another."""
    if graph.unfit is not None:
        shape = _shape(graph.values[graph.inputs[0]].shape)
        message = f"it does not run on {_shape(graph.unfit.shape)} ({graph.unfit.said}), but on {shape}"
        multiple = graph.unfit.multiple
        yield Evidence(graph.name, message, f"sizes that are multiples of {multiple}, such as {shape}")


def odd_skips(graph: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    """Stages that round, between an array and its like that is made larger again and joined with it."""
    before = _ancestors(graph)
    enlarged = {step.output for step in graph.steps if step.op in ENLARGES}
    joined = [before[step.output] for step in graph.steps if step.op in MERGES and len(step.inputs) > 1]
    under = {made for ways in joined for up in enlarged & ways for made in before[up]}
    for stage in stages:
        if stage.step.output not in under:
            continue
        for number, table, _unread, _pads in sliding(stage):
            if table.step > 1 and table.size % table.step:
                message = (
                    f"{table.size} {{axes}} mod stride {table.step} = {table.size % table.step}: what is made "
                    f"{table.step} times larger again cannot have {table.size}, and is cropped, padded or resized to it"
                )
                less, more = _around(table.size, table.step)
                yield along(stage.step, number, message, f"an input for which this size is {less} or {more}")


def _around(size: int, step: int) -> tuple[int, int]:
    less = size // step * step
    return less, less + step


def _ancestors(graph: Graph) -> dict[str, set[str]]:
    """For each value all those that flow into it, itself included."""
    before = {name: {name} for name in graph.inputs}
    for step in graph.steps:
        flowing: set[str] = set().union(*(before.get(name, {name}) for name in step.inputs))
        before[step.output] = flowing | {step.output}
    return before


def beyond_the_image(graph: Graph, _: Sequence[Stage]) -> Iterator[Evidence]:
    """Convolutions whose input already sees all of the image."""
    whole, views = _image(graph), seen(graph)
    wide = [step for step in graph.steps if step.op == "Conv" and step.reads and max(step.reads.window) > 1]
    late = [step for step in wide if _sees(views[step.inputs[0]], whole)]
    if late:
        fields = _shape(_fields(views[late[0].inputs[0]]))
        message = (
            f"what it reads already sees {fields} of {_shape(whole)}: {len(late)} of {len(wide)} convolutions "
            "with windows larger than 1, from this one on, see nothing new"
        )
        yield Evidence(late[0].name, message, "a larger input, less stride before it, or fewer such layers")


def within_the_image(graph: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    """What those cells see that see most, of maps with more than one position, where it is less than the image."""
    whole, views = _image(graph), seen(graph)

    def share(step: Step) -> float:
        return min(field / size for field, size in zip(_fields(views[step.output]), whole, strict=True))

    maps = [step for step in graph.steps if step.reads and views[step.output] and prod(step.reads.outputs) > 1]
    widest = max(maps, key=share, default=None) if stages and whole else None
    if widest is not None and share(widest) < 1:
        message = (
            f"no cells see more than its {_shape(_fields(views[widest.output]))} of the input's {_shape(whole)} "
            f"({100 * share(widest):.0f} %); what counts in it is less still, growing as the square root of the depth"
        )
        yield Evidence(widest.name, message, "more stride, dilation or layers, until the field covers the objects")


def _image(graph: Graph) -> tuple[int, ...]:
    """The sizes of the one input that has positions; none where several have."""
    sizes = [graph.values[name].sizes for name in graph.inputs if graph.values[name].axes]
    return sizes[0] if len(sizes) == 1 else ()


def _fields(views: Views) -> list[int]:
    return [view.span.field for view in views or ()]


def _sees(views: Views, whole: Sequence[int]) -> bool:
    return bool(views) and bool(whole) and all(field >= size for field, size in zip(_fields(views), whole, strict=True))


def flattened(graph: Graph, _: Sequence[Stage]) -> Iterator[Evidence]:
    """Maps of many positions that are laid flat and read by a dense layer."""
    all_weights = sum({name: size for step in graph.steps for name, size in step.weights.items()}.values())
    for flat in graph.steps:
        before, after = graph.values[flat.inputs[0]], graph.values[flat.output]
        places = prod(before.sizes)
        if not before.axes or after.axes or places == 1 or before.elements != after.elements:
            continue
        dense = _dense_behind(graph, flat)
        weights = max(dense.weights.values(), default=0) if dense else 0
        if dense and weights and weights % places == 0:
            message = (
                f"it reads {_shape(before.sizes)} positions laid flat: {weights:,} weights, "
                f"{100 * weights / all_weights:.0f} % of the network's parameters, and one input size only"
            )
            fix = f"a global average before it: {weights // places:,} weights, and any input size"
            yield Evidence(dense.name, message, fix)


def _dense_behind(graph: Graph, flat: Step) -> Step | None:
    """The dense layer that reads a flat array, steps that only change its numbers left out."""
    value = flat.output
    for step in graph.steps[graph.steps.index(flat) + 1 :]:
        if step.inputs[0] != value:
            continue
        if step.op in DENSE:
            return step
        if graph.values[step.output].elements != graph.values[value].elements:
            return None
        value = step.output
    return None


def fusible(graph: Graph, stages: Sequence[Stage]) -> Iterator[Evidence]:
    """Maxima of a ReLU that nobody else reads: one byte for each output would do for both."""
    readers: dict[str, int] = dict.fromkeys(graph.outputs, 1)
    for step in graph.steps:
        for name in step.inputs:
            readers[name] = readers.get(name, 0) + 1
    relus = {step.output for step in graph.steps if step.op == "Relu" and readers.get(step.output) == 1}
    for stage in stages:
        if isinstance(stage.step.pooling, Max) and stage.step.inputs[0] in relus and stage.kept[1]:
            message = (
                f"for training the ReLU before it and its indices keep {stage.before.nbytes:,} + {stage.kept[1]:,} "
                f"bytes in PyTorch; joined with it, {stage.kept[0]:,}"
            )
            yield Evidence(stage.step.name, message, FUSED.get(graph.framework, ", or ".join(FUSED.values())))


def _shape(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
