"""Geometry: sizes, padding, tables, by literals and by rules published elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from poolwise import Geometry, InvalidType, InvalidValue


@pytest.mark.parametrize(
    ("size", "arguments", "output"),
    [
        (28, {"window": (2,)}, 14),
        (29, {"window": (2,)}, 14),
        (29, {"window": (2,), "ceil_mode": True}, 15),
        (112, {"window": (3,), "stride": 2, "padding": 1}, 56),
        (5, {"window": (2,), "stride": 2, "padding": 1, "ceil_mode": True}, 3),
        (4, {"window": (1,), "stride": 3, "padding": 0, "ceil_mode": True}, 2),
        (3, {"window": (1,), "stride": 3, "padding": 0, "ceil_mode": True}, 1),  # the second would start in the padding
        (2, {"window": (3,), "stride": 2, "ceil_mode": True}, 1),  # larger than the input, and ceil yields one window
        (7, {"window": (3,), "stride": 2, "padding": "same"}, 4),
        (7, {"window": (3,), "stride": 4, "padding": "same"}, 2),
        (10, {"window": (3,), "stride": 1, "dilation": 4}, 2),
        (1, {"window": (10**12,), "stride": 10**12, "padding": 10**12}, 2),
    ],
)
def test_output_size(size: int, arguments: dict, output: int) -> None:
    assert Geometry.of((size,), **arguments).output_shape == (output,)


@pytest.mark.parametrize(
    ("padding", "low_high"),
    [("same", (1, 2)), ("same_lower", (2, 1)), ("valid", (0, 0)), (1, (1, 1)), ([[3, 0]], (3, 0))],
)
def test_padding_by_name_number_and_pair(padding: object, low_high: tuple[int, int]) -> None:
    table = Geometry.of((5,), window=(4,), stride=1, padding=padding).tables[0]
    assert (table.low, table.high) == low_high


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_padding_modes_read_what_numpy_pads_with(mode: str, size: int) -> None:
    numpy_mode = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}[mode]
    table = Geometry.of((size,), window=(3,), stride=1, padding=((4, 7),), padding_mode=mode).tables[0].table()
    padded = np.pad(np.arange(size), (4, 7), mode=numpy_mode)
    np.testing.assert_array_equal(table.index, np.lib.stride_tricks.sliding_window_view(padded, 3))


def test_adaptive_bins_overlap_as_pytorchs_and_divide_as_equinoxs() -> None:
    def bins(rule: str) -> list[list[int]]:
        table = Geometry.adaptive((7,), output_size=(3,), bins=rule).tables[0].table()
        return [row[read].tolist() for row, read in zip(table.index, table.mask, strict=True)]

    assert bins("overlapping") == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert bins("disjoint") == [[0, 1, 2], [3, 4], [5, 6]]


def test_bins_of_one_size_are_a_regular_table() -> None:
    assert Geometry.adaptive((8, 6), output_size=(4, 3)).regular
    assert not Geometry.adaptive((8, 7), output_size=(4, 3)).regular
    assert Geometry.whole((2, 5, 7), (1, 2)).window == (5, 7)


def test_count_is_of_the_declared_padding_never_of_ceils_overhang() -> None:
    table = Geometry.of((4,), window=(3,), stride=2, padding=1, ceil_mode=True).tables[0].table()
    assert table.count.tolist() == [3, 3, 2]
    assert table.present.tolist() == [2, 3, 1]


def test_a_geometry_prints_what_is_never_read_and_what_is_empty() -> None:
    text = str(Geometry.of((2, 8), window=(2,), stride=3, padding=((0, 2),)))
    assert text.splitlines()[0] == "Geometry (2, 8) → (2, 3)"
    assert text.splitlines()[2].split() == ["1", "8", "2", "3", "1", "0+2", "3", "2", "0"]
    wholly_padding = Geometry.of((2,), window=(2,), stride=2, padding=4)
    assert wholly_padding.has_empty_windows
    assert str(wholly_padding).split()[-1] == "4"


def test_coverage_counts_the_windows_that_read_each_element() -> None:
    assert Geometry.of((6,), window=(3,), stride=2).coverage()[0].tolist() == [1, 1, 2, 1, 1, 0]


def test_equal_geometries_are_equal_and_hash_alike() -> None:
    one, other = (Geometry.of((4, 4), window=window, stride=(2, 2)) for window in ((2, 2), [2, 2]))
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("arguments", "fault", "text"),
    [
        ({"window": (0, 2)}, InvalidValue, "window must be at least 1, got (0, 2)"),
        ({"window": (-1, 2)}, InvalidValue, "window must be at least 1, got (-1, 2)"),
        ({"window": 2}, InvalidType, "window must be a tuple"),
        ({}, InvalidType, "window must be a tuple of ints, got None"),
        ({"axes": (1, 2), "offsets": "middle"}, InvalidType, "window must be an int or a tuple of 2 ints, got None"),
        ({"window": ()}, InvalidValue, "window must have 1 to 3 entries"),
        ({"window": (2.0, 2)}, InvalidType, "window must be made of ints, got (2.0, 2)"),
        ({"window": (True, 2)}, InvalidType, "window must be made of ints, got (True, 2)"),
        ({"window": "22"}, InvalidType, "window must be a tuple of ints, got '22'"),
        ({"window": (9, 2)}, InvalidValue, "it spans 9 on axis 1, which has 4 + padding 0+0"),
        ({"window": (2, 2), "stride": 0}, InvalidValue, "stride must be at least 1, got 0"),
        ({"window": (2, 2), "stride": (1, 2, 3)}, InvalidValue, "stride must have 2 entries"),
        ({"window": (2, 2), "stride": 2**40}, InvalidValue, "stride must give sizes that fit 64 bits"),
        ({"window": (2, 2), "dilation": 2**31 - 1}, InvalidValue, "it spans 2147483648"),
        ({"window": (2, 2), "padding": -1}, InvalidValue, "padding must be at least 0, got -1"),
        ({"window": (2, 2), "padding": 2**62}, InvalidValue, "padding must be less than 2**62"),
        ({"window": (2, 2), "padding": "full"}, InvalidValue, "padding must be one of 'valid', 'same', 'same_lower'"),
        ({"window": (2, 2), "padding": (1, 2, 3)}, InvalidValue, "padding must be an int, 2 entries"),
        ({"window": (2, 2), "padding_mode": "zeros"}, InvalidValue, "padding_mode must be one of"),
        ({"window": (2, 2), "ceil_mode": 1}, InvalidType, "ceil_mode must be True or False, got 1"),
        ({"window": (2, 2), "axes": (1, 1)}, InvalidValue, "axes must not repeat, got (1, 1)"),
        ({"window": (2, 2), "axes": (1, -2)}, InvalidValue, "axes must not repeat, got (1, -2)"),
        ({"window": (2, 2), "axes": (0, 3)}, InvalidValue, "axes must be between -3 and 2"),
        ({"window": (2, 2), "axes": (0.5, 1)}, InvalidType, "axes must be made of ints"),
        ({"window": (2,), "axes": (1, 2)}, InvalidValue, "window must have 2 entries"),
        ({"window": (2**40, 2**40), "padding": 2**41}, InvalidValue, "window must give sizes that fit 64 bits"),
        ({"window": (1, 1), "stride": 1, "padding": 2**45}, InvalidValue, "more than memory can address"),
    ],
)
def test_what_is_refused_names_argument_value_and_what_is_allowed(
    arguments: dict, fault: type[Exception], text: str
) -> None:
    with pytest.raises(fault) as caught:
        Geometry.of((3, 4, 5), **arguments)
    assert text in str(caught.value)


def test_bins_of_no_size_are_refused_by_name() -> None:
    with pytest.raises(InvalidType, match="output_size must be a tuple of ints, got None"):
        Geometry.adaptive((3, 4))


@pytest.mark.parametrize("size", [0, -1, 9 * 10**18])
def test_an_output_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(InvalidValue, match="output_size"):
        Geometry.adaptive((3, 4), output_size=(size, 1))
