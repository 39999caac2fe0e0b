"""`accelerate` and `swap`: the same outputs, gradients, state and hooks, and nothing unproven is touched."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from torch import Tensor, nn

import poolwise.torch
from architectures import ARCHITECTURES, VGG, DenseNet, ResNet
from poolwise import InvalidType
from poolwise.torch import accelerate, swap

each_architecture = pytest.mark.parametrize("kind", ARCHITECTURES, ids=lambda kind: kind.__name__)


def twins(kind: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A model and the same one accelerated."""
    torch.manual_seed(0)
    model = kind()
    return model, accelerate(copy.deepcopy(model))


def images(*shape: int) -> Tensor:
    return torch.randn(shape or (2, 3, 64, 64), generator=torch.Generator().manual_seed(1))


def step(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Output, and every gradient, with the same dropout."""
    torch.manual_seed(2)
    x = x.clone().requires_grad_()
    y = model(x)
    return (y.detach(), *torch.autograd.grad(y.square().sum(), [x, *model.parameters()]))


def joined(model: nn.Module) -> int:
    return sum("ReLU and max pool" in change.before for change in model.poolwise_changes)


@each_architecture
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_outputs_gradients_and_state_are_the_same(kind: Callable[[], nn.Module], training: bool) -> None:
    stock, ours = twins(kind)
    stock.train(training), ours.train(training)
    torch.testing.assert_close(step(ours, images()), step(stock, images()), rtol=1e-4, atol=1e-5)
    assert list(ours.state_dict()) == list(stock.state_dict())
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, stock.state_dict()[name])
    stock.load_state_dict(ours.state_dict())


@each_architecture
def test_what_was_changed_is_said(kind: type[nn.Module]) -> None:
    ours = twins(kind)[1]
    replaced, together = ARCHITECTURES[kind]
    assert joined(ours) == together
    assert len(ours.poolwise_changes) - joined(ours) == replaced, list(map(str, ours.poolwise_changes))
    assert isinstance(ours, kind)
    assert repr(ours) == repr(twins(kind)[0])
    before = ours.poolwise_changes
    assert accelerate(ours).poolwise_changes == before  # twice changes nothing more


@each_architecture
def test_copies_and_pickles_stay_accelerated(kind: Callable[[], nn.Module]) -> None:
    ours = twins(kind)[1].eval()
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), torch.load(file, weights_only=False)):
        torch.testing.assert_close(step(twin, images()), step(ours, images()))
        assert type(twin) is type(ours)
        assert twin.poolwise_changes == ours.poolwise_changes


@each_architecture
def test_an_accelerated_model_compiles_and_exports(kind: Callable[[], nn.Module]) -> None:
    torch._dynamo.reset()
    ours = twins(kind)[1].eval()
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images()), ours(images()))
    torch.testing.assert_close(torch.export.export(ours, (images(),)).module()(images()), ours(images()))


def test_every_hook_sees_what_it_saw() -> None:
    def watched(model: nn.Module) -> dict[str, list[Tensor]]:
        seen: dict[str, list[Tensor]] = {}
        for name, module in model.named_modules():
            module.register_forward_hook(
                lambda _, given, y, name=name: seen.setdefault(name, []).extend([given[0].detach().clone(), y.detach()])
            )
        model(images())
        return seen

    stock, ours = twins(VGG)
    torch.manual_seed(0)
    expected = watched(stock)
    torch.manual_seed(0)
    seen = watched(ours)
    assert list(seen) == list(expected)
    for name, values in seen.items():
        torch.testing.assert_close(values, expected[name])


def test_a_hook_that_was_there_before_is_called() -> None:
    model, seen = VGG(), []
    model.features[1].register_forward_hook(lambda *_: seen.append("relu"))
    model.features[2].register_forward_pre_hook(lambda *_: seen.append("pool"))
    accelerate(model)(images())
    assert seen == ["relu", "pool"]


def test_joined_steps_keep_one_byte_per_output() -> None:
    def kept(model: nn.Module) -> int:
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.update({t.data_ptr(): t.nbytes}) or t, lambda t: t
        ):
            model(x)
        return sum(sizes.values())

    x = images(4, 8, 32, 32).requires_grad_()
    stock = nn.Sequential(nn.Identity(), nn.ReLU(), nn.MaxPool2d(2))
    ours = accelerate(copy.deepcopy(stock))
    assert joined(ours) == 1
    assert kept(ours) == 4 * 8 * 16 * 16
    assert kept(stock) == 4 * 8 * 32 * 32 * 4 + 4 * 8 * 16 * 16 * 8


# What must not be joined, or not be touched at all.


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(x)
        return self.pool(y) + y[..., ::2, ::2]


digit, maps, scale = torch.zeros(1), 3, 2.0  # as in a notebook: globals of the names that a forward has for its own


class NamesOfGlobals(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, digit: Tensor) -> Tensor:
        maps = F.relu(self.conv(digit))
        return F.max_pool2d(maps, 2)


class NameOfAComprehension(NamesOfGlobals):
    def forward(self, digit: Tensor) -> Tensor:
        kept = [scale for scale in [digit]]  # noqa: C416  (its own; the one below is the global)
        return F.max_pool2d(F.relu(self.conv(kept[0] * scale)), 2)


def test_globals_of_the_names_of_locals_stop_nothing_and_those_that_are_read_do() -> None:
    x = images(2, 3, 12, 12)
    for kind, changes in ((NamesOfGlobals, 1), (NameOfAComprehension, 0)):
        model = kind()
        expected = model(x)
        assert len(accelerate(model).poolwise_changes) == changes
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("functional", [False, True])
def test_a_window_without_elements_is_what_it_was(functional: bool) -> None:
    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(F.relu(x), 2, 1, 1, dilation=3)

    x = images(1, 1, 2, 2)
    stock = Functional() if functional else nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, 1, 1, dilation=3))
    expected = stock(x)
    assert expected.isinf().any()
    ours = accelerate(stock)
    assert joined(ours) == 1
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=0)


class InPlaceOfAnAlias(nn.Module):
    """The ReLU changes what the caller handed in, and what `kept` shows."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        kept = x * 1
        seen = kept[:, :1]
        return self.pool(self.relu(kept)) + seen[..., ::2, ::2]


class InPlaceOfTheInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.relu(x))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return F.max_pool2d(F.relu(x), 2)


class Frozen(nn.Module):
    """A trace forgets what `no_grad` does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.conv(x)
        return F.max_pool2d(F.relu(x), 2)


class Optional(nn.Module):
    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        y = F.max_pool2d(F.relu(x), 2)
        return y if skip is None else y + skip


class Typed(nn.Module):
    def forward(self, x: Any) -> Tensor:
        if isinstance(x, list):
            x = torch.cat(x)
        return F.max_pool2d(F.relu(x), 2)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return F.max_pool2d(F.relu(x), 2)


SCALE = 2.0


class ReadsAGlobal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(x * SCALE), 2)


class Checks(nn.Module):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(x), 2)


class Parent(Counting):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(super().forward(x)), 2)


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(x + torch.rand(1)), 2)


class Custom(nn.MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize("kind", [ReadTwice, InPlaceOfAnAlias, InPlaceOfTheInput], ids=lambda kind: kind.__name__)
def test_a_relu_that_something_else_sees_is_not_joined(kind: Callable[[], nn.Module]) -> None:
    stock, ours = twins(kind)
    assert joined(ours) == 0
    x, twin = images(), images()
    torch.testing.assert_close(ours(x), stock(twin))
    torch.testing.assert_close(x, twin)


@pytest.mark.parametrize(
    "kind",
    [Branching, Frozen, Optional, Typed, Counting, ReadsAGlobal, Checks, Parent, Random, lambda: Custom(2)],
    ids=lambda kind: kind.__name__,
)
def test_what_a_trace_does_not_show_is_left_as_it_is(kind: Callable[[], nn.Module]) -> None:
    stock, ours = twins(kind)
    assert ours.poolwise_changes == ()
    assert type(ours) is type(stock)


def test_what_is_left_alone_still_works() -> None:
    x = images()
    torch.testing.assert_close(accelerate(Optional())(x, skip=torch.ones(1)), Optional()(x) + 1)
    torch.testing.assert_close(accelerate(Typed())([x, x]), Typed()(torch.cat([x, x])))


def test_an_attribute_that_changes_later_is_obeyed() -> None:
    stock, ours = twins(DenseNet)
    for model in (stock, ours):
        model.drop_rate = 0.0
    torch.testing.assert_close(step(ours, images()), step(stock, images()), rtol=1e-4, atol=1e-5)
    for model in (stock, ours):
        model.drop_rate = 0.7
    torch.testing.assert_close(step(ours, images()), step(stock, images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.features.append(nn.Sigmoid()),
        lambda model: model.features.__delitem__(8),
        lambda model: model.features.__setitem__(1, nn.Tanh()),
        lambda model: model.features.__setitem__(2, nn.AvgPool2d(2)),
        lambda model: setattr(model.features[2], "kernel_size", 3),
        lambda model: model.features[1].register_forward_hook(lambda *given: given[-1] * 2),
        lambda model: setattr(model, "avgpool", nn.AdaptiveMaxPool2d(7)),
    ],
)
def test_modules_that_change_later_are_obeyed(change: Callable[[Any], object]) -> None:
    stock, ours = twins(VGG)
    for model in (stock, ours):
        change(model)
        model.eval()
    torch.testing.assert_close(ours(images()), stock(images()))


def test_a_none_that_becomes_a_module_is_obeyed() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = None

        def forward(self, x: Tensor) -> Tensor:
            if self.norm is not None:
                x = self.norm(x)
            return F.max_pool2d(F.relu(x), 2)

    stock, ours = twins(Block)
    assert joined(ours) == 1
    for model in (stock, ours):
        model.norm = nn.GroupNorm(1, 3)
    torch.testing.assert_close(ours(images()), stock(images()))


def test_on_a_device_without_our_kernel_the_results_are_shapes() -> None:
    with torch.device("meta"):
        model = accelerate(ResNet())
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 10)


# swap


def test_classes_instances_and_callables_are_swapped() -> None:
    model = VGG()
    assert swap(model, nn.MaxPool2d, nn.AvgPool2d) is model
    pools = [model.features[i] for i in (2, 5, 8)]
    assert [type(pool) for pool in pools] == [nn.AvgPool2d] * 3
    assert [(pool.kernel_size, pool.stride) for pool in pools] == [(2, 2)] * 3
    assert [change.path for change in model.poolwise_changes] == ["features.2", "features.5", "features.8"]
    swap(model, model.features[5], poolwise.torch.LPPool2d(2, 2))
    assert [type(model.features[i]) for i in (2, 5, 8)] == [nn.AvgPool2d, poolwise.torch.LPPool2d, nn.AvgPool2d]
    swap(model, lambda module: isinstance(module, nn.AvgPool2d), lambda old: poolwise.torch.MinPool2d(old.kernel_size))
    assert type(model.features[8]) is poolwise.torch.MinPool2d
    assert model(images()).shape == (2, 10)


def test_what_is_swapped_in_takes_over_hooks_mode_and_every_place() -> None:
    shared, seen = nn.MaxPool2d(2), []
    model = nn.Sequential(shared, nn.Sequential(shared)).eval()
    shared.register_forward_hook(lambda *_: seen.append(1))
    swap(model, nn.MaxPool2d, poolwise.torch.MinPool2d)
    assert model[0] is model[1][0]
    assert not model[0].training
    model(images())
    assert seen == [1, 1]


def test_the_model_itself_can_be_swapped() -> None:
    assert type(swap(nn.MaxPool2d(3), nn.MaxPool2d, nn.AvgPool2d)) is nn.AvgPool2d


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mean", "poolwise.torch.Pool"),
        ("strided", "strided"),
        ("max-blur", "poolwise.torch.MaxBlurPool2d"),
        (nn.AvgPool2d, "torch.nn.AvgPool2d"),
    ],
)
def test_changes_are_told_in_names_that_can_be_imported(name: Any, said: str) -> None:
    what = nn.MaxPool2d if isinstance(name, type) else "max"
    (change,) = swap(nn.Sequential(nn.MaxPool2d(2)), what, name).poolwise_changes
    assert str(change) == f"0: torch.nn.MaxPool2d → {said}"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: accelerate(3), "accelerate: model must be a torch.nn.Module, got int"),
        (lambda: swap(3, nn.ReLU, nn.ReLU), "swap: model must be a torch.nn.Module, got int"),
        (lambda: swap(VGG(), "MaxPool2d", nn.AvgPool2d), "swap: what must be a class"),
        (lambda: swap(VGG(), nn.MaxPool2d, "AvgPool2d"), "swap: with_ must be a module"),
        (
            lambda: swap(VGG(), nn.MaxPool2d, nn.LPPool2d),
            "swap: with_ .* got LPPool2d, whose norm_type MaxPool2d has not",
        ),
        (lambda: swap(VGG(), nn.MaxPool2d, int), "swap: with_ must be a module, a class of modules or a callable"),
        (lambda: swap(VGG(), nn.MaxPool2d, lambda _: 3), "swap: with_ must give a torch.nn.Module, got int"),
    ],
)
def test_bad_input_gets_one_clear_error(call: Callable[[], object], text: str) -> None:
    with pytest.raises(InvalidType, match=text):
        call()
