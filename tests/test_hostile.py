"""What bad input must meet: one clear ValueError or TypeError, never a signal, a hang or a number that means nothing.

Every row runs in a child process (see child.py); its name says where the input broke a library that people trust.
"""

from __future__ import annotations

import pytest

from child import Outcome, outcomes

PRELUDE = """
import copy, os, pickle, threading
import numpy as np
import torch
import poolwise
import poolwise.torch as layers
import poolwise.torch.functional as F
import poolwise.torch._operator as operator
from poolwise import Geometry, Max, Mean, Min, Sum, adaptive_pool, avg_pool, explain, global_pool, max_pool, min_pool
from poolwise import pool, set_num_threads, sum_pool
from poolwise.kernels.native import Native
from torch._subclasses import FakeTensorMode

x = np.arange(16.0).reshape(4, 4)
t = torch.arange(16.0).reshape(1, 1, 4, 4)

def leaf(*shape):
    return torch.arange(float(np.prod(shape))).reshape(shape).requires_grad_()

def kept_as(pack, unpack):
    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)

def gradient(pooled, of, g=None):
    pooled.backward(torch.ones_like(pooled) if g is None else g)
    return of.grad

ENCODED = operator._encoded(Max(), operator.sliding, ((2, 2), None, 0, 1, False, "absent", None), None)
"""

VALUE, TYPE = "ValueError", "TypeError"
INF = float("inf")

# name -> snippet, kind of fault, words that its text must hold: the argument, the value, what is allowed
Row = tuple[str, str, tuple[str, ...]]
GEOMETRY: dict[str, Row] = {
    "window 0 (CVE-2021-41196)": ("max_pool(x, (0, 2))", VALUE, ("max_pool", "window", "at least 1", "(0, 2)")),
    "window negative (CVE-2022-35941)": ("avg_pool(x, (2, -1))", VALUE, ("window", "at least 1", "(2, -1)")),
    "window empty (pytorch #50967)": ("max_pool(x, ())", VALUE, ("window", "1 to 2 entries", "()")),
    "window an int without axes": ("max_pool(x, 2)", TYPE, ("window", "tuple", "axes", "2")),
    "window of floats": ("max_pool(x, (2.0, 2.0))", TYPE, ("window", "ints", "(2.0, 2.0)")),
    "window NaN": ("max_pool(x, (np.nan, 2))", TYPE, ("window", "ints", "nan")),
    "window of bools": ("max_pool(x, (True, True))", TYPE, ("window", "ints", "(True, True)")),
    "window a string": ("max_pool(x, '22')", TYPE, ("window", "ints", "'22'")),
    "window None": ("max_pool(x, None)", TYPE, ("window", "ints", "None")),
    "window an array": ("max_pool(x, np.array([2, 2]))", TYPE, ("window", "ints", "array([2, 2])")),
    "window of too many axes": ("max_pool(x, (2, 2, 2))", VALUE, ("window", "2 axes", "(2, 2, 2)")),
    "window beyond the input": ("max_pool(x, (5, 2))", VALUE, ("window", "spans 5", "axis 0", "has 4")),
    "window product overflows": ("max_pool(x, (2**40, 2**40))", VALUE, ("window", "64 bits", str(2**40))),
    "stride 0 (CVE-2021-29586, pytorch #41767)": (
        "max_pool(x, (2, 2), stride=0)",
        VALUE,
        ("stride", "at least 1", "0"),
    ),
    "stride negative": ("max_pool(x, (2, 2), stride=(2, -1))", VALUE, ("stride", "at least 1", "(2, -1)")),
    "stride NaN": ("max_pool(x, (2, 2), stride=np.nan)", TYPE, ("stride", "int", "nan")),
    "stride empty": ("max_pool(x, (2, 2), stride=())", VALUE, ("stride", "2 entries", "()")),
    "stride beyond 64 bits": ("max_pool(x, (2, 2), stride=2**64)", VALUE, ("stride", "64 bits", str(2**64))),
    "stride product overflows": (
        "max_pool(x, (2, 2), stride=(2**33, 2**33))",
        VALUE,
        ("stride", "64 bits", str(2**33)),
    ),
    "padding negative": ("max_pool(x, (2, 2), padding=-1)", VALUE, ("padding", "at least 0", "-1")),
    "padding 2**62": ("max_pool(x, (2, 2), padding=2**62)", VALUE, ("padding", "2**62", str(2**62))),
    "padding overflows (CVE-2022-35963)": (
        "max_pool(x, (2, 2), padding=2**62 - 1)",
        VALUE,
        ("padding", "64 bits", str(2**62 - 1)),
    ),
    "padding beyond memory": ("max_pool(x, (2, 2), padding=2**40)", VALUE, ("padding", str(2**40), "memory")),
    "padding a fraction": ("max_pool(x, (2, 2), padding=0.5)", TYPE, ("padding", "int", "0.5")),
    "padding None": ("max_pool(x, (2, 2), padding=None)", TYPE, ("padding", "int", "None")),
    "padding of three numbers": ("max_pool(x, (2, 2), padding=((1, 1, 1), 0))", VALUE, ("padding", "two", "(1, 1, 1)")),
    "padding of too few axes": ("max_pool(x, (2, 2), padding=(1,))", VALUE, ("padding", "2 entries", "(1,)")),
    "padding of an unknown name": ("max_pool(x, (2, 2), padding='SAME')", VALUE, ("padding", "'same'", "'SAME'")),
    "padding_mode unknown": (
        "max_pool(x, (2, 2), padding_mode='zeros')",
        VALUE,
        ("padding_mode", "'reflect'", "'zeros'"),
    ),
    "padding_mode None": ("max_pool(x, (2, 2), padding_mode=None)", TYPE, ("padding_mode", "'absent'", "None")),
    "dilation 0": ("max_pool(x, (2, 2), dilation=0)", VALUE, ("dilation", "at least 1", "0")),
    "dilation 2**31 - 1 (pytorch #189664)": (
        "max_pool(x, (2, 2), dilation=2**31 - 1)",
        VALUE,
        ("window", f"spans {2**31}", "has 4"),
    ),
    "dilation overflows": ("max_pool(x, (2, 2), dilation=2**63 - 1)", VALUE, ("dilation", "64 bits", str(2**63 - 1))),
    "ceil_mode a number": ("max_pool(x, (2, 2), ceil_mode=1)", TYPE, ("ceil_mode", "True or False", "1")),
    "axes repeated": ("max_pool(x, (2, 2), axes=(0, -2))", VALUE, ("axes", "repeat", "(0, -2)")),
    "axes out of range": ("max_pool(x, (2, 2), axes=(0, 2))", VALUE, ("axes", "between -2 and 1", "(0, 2)")),
    "axes not integers": ("max_pool(x, (2, 2), axes=(0.0, 1))", TYPE, ("axes", "ints", "(0.0, 1)")),
    "axes bool": ("max_pool(x, (2, 2), axes=(True, False))", TYPE, ("axes", "ints", "(True, False)")),
    "axes fewer than window": ("max_pool(x, (2, 2), axes=1)", VALUE, ("window", "1 entries", "(2, 2)")),
    "shape with a negative size": ("Geometry.of((-4, 4), window=(2, 2))", VALUE, ("shape", "at least 0", "(-4, 4)")),
    "shape beyond 64 bits": ("Geometry.of((2**63,), window=(2,))", VALUE, ("shape", "64 bits", str(2**63))),
    "shape None": ("Geometry.of(None, window=(2,))", TYPE, ("shape", "ints", "None")),
    "explain of a window that does not fit": ("explain(x, Max(), (9, 9))", VALUE, ("explain", "window", "spans 9")),
    "adaptive size () (pytorch #42509)": (
        "adaptive_pool(x, Max(), ())",
        VALUE,
        ("output_size", "1 to 2 entries", "()"),
    ),
    "adaptive size 9e18 (pytorch #42582)": (
        "adaptive_pool(x, Max(), (9 * 10**18, 1))",
        VALUE,
        ("output_size", "64 bits", str(9 * 10**18)),
    ),
    "adaptive size beyond memory (pytorch #73183)": (
        "adaptive_pool(x, Max(), (2**40, 2**40))",
        VALUE,
        ("output_size", str(2**40), "memory"),
    ),
    "adaptive size 0": ("adaptive_pool(x, Max(), (0, 2))", VALUE, ("output_size", "at least 1", "(0, 2)")),
    "adaptive size negative": ("adaptive_pool(x, Max(), (2, -2))", VALUE, ("output_size", "at least 1", "(2, -2)")),
    "adaptive size a fraction": ("adaptive_pool(x, Max(), (2.0, 2))", TYPE, ("output_size", "ints", "(2.0, 2)")),
    "adaptive bins unknown": ("adaptive_pool(x, Max(), (2, 2), bins='even')", VALUE, ("bins", "'disjoint'", "'even'")),
    "more disjoint bins than elements": (
        "adaptive_pool(x, Max(), (8, 8), bins='disjoint')",
        VALUE,
        ("output_size", "at most 4", "8"),
    ),
    "global axes None": ("global_pool(x, Max(), axes=None)", TYPE, ("global_pool", "axes", "int", "None")),
    "global axes empty": ("global_pool(x, Max(), axes=())", VALUE, ("axes", "at least 1", "()")),
    "global axes a fraction": ("global_pool(x, Max(), axes=1.5)", TYPE, ("axes", "int", "1.5")),
    "global axes out of range": ("global_pool(x, Max(), axes=5)", VALUE, ("axes", "between -2 and 1", "5")),
    "global keepdims a number": ("global_pool(x, Max(), axes=0, keepdims=1)", TYPE, ("keepdims", "True or False", "1")),
}
ARRAYS: dict[str, Row] = {
    "complex": ("max_pool(x.astype(complex), (2, 2))", TYPE, ("x", "float64", "complex128")),
    "object": ("sum_pool(x.astype(object), (2, 2))", TYPE, ("x", "float64", "object")),
    "string": ("max_pool(x.astype(str), (2, 2))", TYPE, ("x", "float64", "<U32")),
    "structured": ("max_pool(np.zeros((4, 4), [('a', float)]), (2, 2))", TYPE, ("x", "float64", "'a'")),
    "datetime": ("max_pool(x.astype('datetime64[s]'), (2, 2))", TYPE, ("x", "float64", "datetime64[s]")),
    "long double": ("max_pool(x.astype(np.longdouble), (2, 2))", TYPE, ("x", "float64", "float128")),
    "numpy.ma": ("max_pool(np.ma.masked_array(x), (2, 2))", TYPE, ("x", "numpy.ma", "where")),
    "None": ("max_pool(None, (2, 2))", TYPE, ("x", "array", "NoneType")),
    "text": ("max_pool('abc', (1,))", TYPE, ("x", "array", "str")),
    "ragged list": ("max_pool([[1, 2], [3]], (1, 1))", VALUE, ("x", "array", "ragged")),
    "0-d": ("max_pool(np.float64(3), (1,))", VALUE, ("x", "at least 1 axis", "3.0")),
    "empty pooled axis": ("max_pool(np.zeros((0, 4)), (2, 2))", VALUE, ("x", "at least 1 element", "(0, 4)")),
    "empty list": ("max_pool([], (1,))", VALUE, ("x", "at least 1 element", "(0,)")),
    "mean of bool": ("avg_pool(x > 3, (2, 2))", TYPE, ("x", "bool", "mean")),
    "mask of another shape": (
        "max_pool(x, (2, 2), where=np.ones((3, 4), bool))",
        VALUE,
        ("where", "broadcast", "(4, 4)", "(3, 4)"),
    ),
    "mask of more axes": (
        "max_pool(x, (2, 2), where=np.ones((1, 4, 4), bool))",
        VALUE,
        ("where", "broadcast", "(1, 4, 4)"),
    ),
    "mask of nothing": ("max_pool(x, (2, 2), where=np.ones(0, bool))", VALUE, ("where", "broadcast", "(0,)")),
    "mask of numbers": ("max_pool(x, (2, 2), where=np.ones((4, 4)))", TYPE, ("where", "boolean", "float64")),
    "mask a ragged list": ("max_pool(x, (2, 2), where=[[True], [False, True]])", VALUE, ("where", "ragged")),
    "mask an object": ("max_pool(x, (2, 2), where=object())", TYPE, ("where", "boolean", "object")),
}
PARAMETERS: dict[str, Row] = {
    "op a class": ("pool(x, Max, (2, 2))", TYPE, ("op", "Max()", "poolwise.ops.max.Max")),
    "op a function": ("pool(x, max, (2, 2))", TYPE, ("op", "Max()", "built-in function max")),
    "divisor 0": ("Mean(divisor=0)", VALUE, ("divisor", "between 1", "got 0")),
    "divisor -3 (probes of PyTorch)": ("avg_pool(x, (2, 2), divisor=-3)", VALUE, ("avg_pool", "divisor", "got -3")),
    "divisor NaN": ("Mean(divisor=np.nan)", VALUE, ("divisor", "between 1", "nan")),
    "divisor inf": ("Mean(divisor=np.inf)", VALUE, ("divisor", "between 1", "inf")),
    "divisor text": ("Mean(divisor='3')", TYPE, ("divisor", "number", "'3'")),
    "divisor complex": ("Mean(divisor=2 + 0j)", TYPE, ("divisor", "number", "(2+0j)")),
    "divisor bool": ("Mean(divisor=True)", TYPE, ("divisor", "number", "True")),
    "count_include_pad a number": ("Mean(count_include_pad=1)", TYPE, ("count_include_pad", "True or False", "1")),
    "rounding unknown": ("Mean(rounding='up')", VALUE, ("rounding", '"nearest"', "'up'")),
    "return_indices a number": (
        "max_pool(x, (2, 2), return_indices=1)",
        TYPE,
        ("return_indices", "True or False", "1"),
    ),
    "indices of a mean": (
        "adaptive_pool(x, Mean(), (2, 2), return_indices=True)",
        VALUE,
        ("return_indices", "False", "Mean"),
    ),
    "an argument that is none": ("max_pool(x, (2, 2), strides=2)", TYPE, ("max_pool", "strides=2")),
    "kernel unknown": ("max_pool(x, (2, 2), kernel='cuda')", VALUE, ("kernel", "'native'", "'cuda'")),
    "kernel a number": ("max_pool(x, (2, 2), kernel=3)", TYPE, ("kernel", "None or", "3")),
    "kernel a list": ("max_pool(x, (2, 2), kernel=['native'])", TYPE, ("kernel", "None or", "['native']")),
    "kernel that refuses": ("max_pool(x, (2, 2), kernel='vendor')", VALUE, ("kernel", "'vendor'", "NumPy has no")),
    "threads 0": ("set_num_threads(0)", VALUE, ("count", "between 1 and 1024", "0")),
    "threads negative": ("set_num_threads(-4)", VALUE, ("count", "between 1 and 1024", "-4")),
    "threads beyond sense": ("set_num_threads(10**30)", VALUE, ("count", "between 1 and 1024", str(10**30))),
    "threads a fraction": ("set_num_threads(2.0)", TYPE, ("count", "int", "2.0")),
    "threads an array": ("set_num_threads(np.array([1]))", TYPE, ("count", "int", "array([1])")),
}
KERNELS: dict[str, Row] = {
    "backward with an empty gradient (CVE-2021-29574)": (
        "call = explain(x, Max(), (2, 2)).call; y, kept = Native().forward((x,), call)\n"
        "Native().backward(np.ones((0, 0)), kept, call)",
        VALUE,
        ("g must", "(2, 2)", "(0, 0)"),
    ),
    "mean backward, gradient of another shape (CVE-2021-29577)": (
        "a = torch.ones(1, 4, 4, 4); call = explain(a, Mean(), (2, 2, 2)).call\n"
        "Native().backward(torch.ones(1, 2, 2, 3), None, call)",
        VALUE,
        ("g must", "(1, 2, 2, 2)", "(1, 2, 2, 3)"),
    ),
    "backward with another dtype": (
        "call = explain(t, Mean(), (2, 2)).call\nNative().backward(torch.ones(1, 1, 2, 2).double(), None, call)",
        TYPE,
        ("g must", "float32", "float64"),
    ),
    "backward without what was kept": (
        "call = explain(t, Max(), (2, 2)).call\nNative().backward(torch.ones(1, 1, 2, 2), None, call)",
        VALUE,
        ("kept must", "none"),
    ),
    "backward of a masked mean without its mask": (
        "call = explain(t, Mean(), (2, 2), where=t > 3).call\nNative().backward(torch.ones(1, 1, 2, 2), None, call)",
        VALUE,
        ("kept must", "none"),
    ),
    "backward of a masked mean with a smaller mask": (
        "call = explain(x, Mean(), (2, 2), where=x > 3).call\nNative().backward(np.ones((2, 2)), x[:1] > 3, call)",
        VALUE,
        ("kept must", "(4, 4)", "(1, 4)"),
    ),
    "indices of offsets that are too few": (
        "call = explain(t, Max(), (2, 2)).call\nNative().indices(torch.zeros(1, 1, 1, 2, dtype=torch.uint8), call)",
        VALUE,
        ("kept must", "(1, 1, 2, 2)", "(1, 1, 1, 2)"),
    ),
    "registered backward, empty gradient": (
        "y, kept = torch.ops.poolwise.pool(t, None, ENCODED, True)\n"
        "torch.ops.poolwise.pool_backward(torch.ones(0), kept, None, ENCODED, [1, 1, 4, 4], [0, 1, 2, 3])",
        VALUE,
        ("g must", "(1, 1, 2, 2)", "(0,)"),
    ),
    "registered backward, a larger input": (
        "y, kept = torch.ops.poolwise.pool(t, None, ENCODED, True)\n"
        "torch.ops.poolwise.pool_backward(y, kept, None, ENCODED, [100, 100, 4000, 4], [0, 1, 2, 3])",
        VALUE,
        ("g must", "(100, 100, 2000, 2)", "(1, 1, 2, 2)"),
    ),
    "registered backward, offsets of another shape": (
        "y, kept = torch.ops.poolwise.pool(t, None, ENCODED, True)\n"
        "torch.ops.poolwise.pool_backward(y, kept[..., :1], None, ENCODED, [1, 1, 4, 4], [0, 1, 2, 3])",
        VALUE,
        ("kept must", "(1, 1, 2, 2)", "(1, 1, 2, 1)"),
    ),
    "registered operator, a dtype without a kernel": (
        "torch.ops.poolwise.pool(t.cfloat(), None, ENCODED, True)",
        TYPE,
        ("x must", "float64", "complex64"),
    ),
    "registered operator, a text that says nothing": (
        "torch.ops.poolwise.pool(t, None, 'max', True)",
        VALUE,
        ("text must", "'max'"),
    ),
    "registered operator, a text with code": (
        """torch.ops.poolwise.pool(t, None, "max||sliding|__import__('os').abort()|None", True)""",
        VALUE,
        ("text must", "abort"),
    ),
    "what was kept comes back smaller": (
        "a = leaf(1, 1, 4, 4)\n"
        "with kept_as(lambda v: v, lambda v: v[:, :, :1, :1]): y = F.max_pool2d(a, 2)\n"
        "gradient(y, a)",
        VALUE,
        ("kept must", "(1, 1, 2, 2)", "(1, 1, 1, 1)"),
    ),
    "what was kept comes back in another dtype": (
        "a = leaf(1, 1, 4, 4)\nwith kept_as(lambda v: v, lambda v: v.float()): y = F.max_pool2d(a, 2)\ngradient(y, a)",
        TYPE,
        ("kept must", "uint8", "float32"),
    ),
}
TORCH: dict[str, Row] = {
    "window 0": ("F.max_pool2d(t, 0)", VALUE, ("max_pool2d", "kernel_size", "at least 1", "0")),
    "window empty": ("F.max_pool2d(t, [])", VALUE, ("max_pool2d", "kernel_size", "2 entries", "()")),
    "window of three axes": ("F.avg_pool2d(t, (2, 2, 2))", VALUE, ("kernel_size", "2 entries", "(2, 2, 2)")),
    "window a fraction": ("F.max_pool2d(t, 2.5)", TYPE, ("kernel_size", "int", "2.5")),
    "window a tensor": ("F.max_pool2d(t, torch.tensor([2, 2]))", TYPE, ("kernel_size", "int", "tensor([2, 2])")),
    "window bool": ("F.max_pool2d(t, True)", TYPE, ("kernel_size", "int", "True")),
    "window None": ("layers.SumPool2d(None)(t)", TYPE, ("sum_pool2d", "kernel_size", "None")),
    "stride 0 (pytorch #41767)": ("F.avg_pool3d(t, 2, stride=0)", VALUE, ("stride", "at least 1", "0")),
    "padding over half the window": ("F.max_pool2d(t, 2, padding=2)", VALUE, ("padding", "half", "2")),
    "padding negative": ("F.avg_pool2d(t, 2, padding=-1)", VALUE, ("padding", "at least 0", "-1")),
    "dilation 2**31 - 1 (pytorch #189664)": (
        "F.max_pool2d(t, 2, dilation=2**31 - 1)",
        VALUE,
        ("kernel_size", f"spans {2**31}"),
    ),
    "ceil_mode None": ("F.max_pool2d(t, 2, ceil_mode=None)", TYPE, ("ceil_mode", "True or False", "None")),
    "return_indices text": ("F.max_pool2d(t, 2, return_indices='y')", TYPE, ("return_indices", "True or False", "'y'")),
    "rank too low": ("F.max_pool2d(torch.ones(4, 4), 2)", VALUE, ("input", "3 or 4 axes", "(4, 4)")),
    "rank too high": ("F.max_pool1d(t, 2)", VALUE, ("input", "2 or 3 axes", "(1, 1, 4, 4)")),
    "rank 0": ("F.avg_pool2d(torch.ones(()), 2)", VALUE, ("input", "3 or 4 axes", "()")),
    "0-d through pool": ("max_pool(torch.tensor(3.0), (1,))", VALUE, ("x", "at least 1 axis", "0-d")),
    "empty pooled axis": ("F.max_pool2d(t[:, :, :0], 2)", VALUE, ("input", "at least 1 element", "(1, 1, 0, 4)")),
    "no channels": ("F.avg_pool2d(torch.ones(2, 0, 4, 4), 2)", VALUE, ("input", "at least 1 element", "(2, 0, 4, 4)")),
    "divisor 0": ("F.avg_pool2d(t, 2, divisor_override=0)", VALUE, ("divisor_override", "at least 1", "0")),
    "divisor -3 (probes of PyTorch)": (
        "layers.AvgPool2d(2, divisor_override=-3)(t)",
        VALUE,
        ("avg_pool2d", "divisor_override", "-3"),
    ),
    "divisor text": ("F.avg_pool2d(t, 2, divisor_override='a')", TYPE, ("divisor_override", "an int", "'a'")),
    "divisor fractional": ("F.avg_pool2d(t, 2, divisor_override=2.5)", TYPE, ("divisor_override", "an int", "2.5")),
    "padding by name": ("F.max_pool2d(t, 2, padding='same')", TYPE, ("padding", "an int", "'same'")),
    "padding by pairs": ("F.max_pool2d(t, 2, padding=((0, 1), 0))", TYPE, ("padding", "an int", "((0, 1), 0)")),
    "count_include_pad text": (
        "F.avg_pool2d(t, 2, count_include_pad='a')",
        TYPE,
        ("count_include_pad", "True or False", "'a'"),
    ),
    "adaptive size () (pytorch #42509)": ("F.adaptive_avg_pool2d(t, ())", VALUE, ("output_size", "2 entries", "()")),
    "adaptive size 9e18 (pytorch #42582, #73183)": (
        "F.adaptive_max_pool2d(t, 9 * 10**18)",
        VALUE,
        ("output_size", "64 bits", str(9 * 10**18)),
    ),
    "adaptive size beyond memory": ("F.adaptive_avg_pool2d(t, 2**30)", VALUE, ("output_size", str(2**30), "memory")),
    "adaptive size 0": ("F.adaptive_avg_pool2d(t, 0)", VALUE, ("output_size", "at least 1", "0")),
    "adaptive size a fraction": ("F.adaptive_max_pool2d(t, 2.0)", TYPE, ("output_size", "ints", "2.0")),
    "adaptive layer of three sizes": ("layers.AdaptiveAvgPool2d((2, 2, 2))(t)", VALUE, ("output_size", "(2, 2, 2)")),
    "complex": ("F.max_pool2d(t.to(torch.complex64), 2)", TYPE, ("x", "float32", "complex64")),
    "float8": ("F.max_pool2d(t.to(torch.float8_e4m3fn), 2)", TYPE, ("x", "float32", "float8_e4m3fn")),
    "uint64": ("max_pool(t.to(torch.uint64), (2, 2))", TYPE, ("x", "uint64")),
    "sparse": ("F.max_pool2d(t.to_sparse(), 2)", TYPE, ("x", "dense", "sparse_coo")),
    "mkldnn": ("F.avg_pool2d(t.to_mkldnn(), 2)", TYPE, ("x", "dense", "mkldnn")),
    "quantised": (
        "F.max_pool2d(torch.quantize_per_tensor(t, 1.0, 0, torch.quint8), 2)",
        TYPE,
        ("x", "float32", "quint8"),
    ),
    "nested": ("F.max_pool2d(torch.nested.nested_tensor([torch.ones(3, 4)]), 2)", TYPE, ("x", "dense")),
    "mean of bool": ("F.avg_pool2d(t > 3, 2)", TYPE, ("x", "bool", "mean")),
    "mask of another shape": (
        "max_pool(t, (2, 2), where=torch.ones(3, 3, dtype=torch.bool))",
        VALUE,
        ("where", "broadcast", "(1, 1, 4, 4)", "(3, 3)"),
    ),
    "mask of numbers": ("max_pool(t, (2, 2), where=torch.ones(4, 4))", TYPE, ("where", "boolean", "float32")),
    "mask an object": ("max_pool(t, (2, 2), where=object())", TYPE, ("where", "boolean", "object")),
    "mask sparse": ("max_pool(t, (2, 2), where=(t > 3).to_sparse())", TYPE, ("where", "dense", "sparse_coo")),
    "mask without values": ("max_pool(t, (2, 2), where=(t > 3).to('meta'))", VALUE, ("where", "meta")),
    "reference of tensors": ("max_pool(t, (2, 2), kernel='reference')", VALUE, ("kernel", "'reference'", "NumPy")),
    "fake tensor, window 0": (
        "with FakeTensorMode(): fake = torch.ones(1, 1, 4, 4)\nF.max_pool2d(fake, 0)",
        VALUE,
        ("max_pool2d", "kernel_size", "at least 1", "0"),
    ),
    "meta tensor, window beyond the input": (
        "F.max_pool2d(t.to('meta'), 9)",
        VALUE,
        ("kernel_size", "spans 9", "has 4"),
    ),
    "an argument that no module has": ("layers.MinPool2d(2, bogus=1)", TYPE, ("MinPool2d", "bogus=1")),
    "a pool of no operation": ("layers.Pool(3, (2, 2))", TYPE, ("op", "Max()", "3")),
}

# What PyTorch's own autograd refuses before poolwise is asked: the type is PyTorch's, the process lives.
AUTOGRAD: dict[str, Row] = {
    "backward with an empty gradient": (
        "a = leaf(1, 1, 4, 4)\ngradient(F.max_pool2d(a, 2), a, torch.ones(0))",
        "RuntimeError",
        ("[0]", "[1, 1, 2, 2]"),
    ),
    "3-D mean backward, gradient of another shape (pytorch #193736)": (
        "a = leaf(1, 1, 4, 4, 4)\ngradient(F.avg_pool3d(a, 2), a, torch.ones(1, 1, 2, 2, 1))",
        "RuntimeError",
        ("[1, 1, 2, 2, 1]", "[1, 1, 2, 2, 2]"),
    ),
    "adaptive mean backward, sizes that do not match": (
        "a = leaf(1, 1, 7, 7)\ngradient(F.adaptive_avg_pool2d(a, 3), a, torch.ones(1, 1, 4, 4))",
        "RuntimeError",
        ("[1, 1, 4, 4]", "[1, 1, 3, 3]"),
    ),
    "a hook that changes a gradient's size": (
        "a = leaf(1, 1, 4, 4); y = F.max_pool2d(a, 2); y.register_hook(lambda g: g[:, :, :1])\ngradient(y, a)",
        "RuntimeError",
        ("size",),
    ),
}

# The compiled module called directly: x of 4x4 float32, windows 2/2 over both axes unless said.
MODULE_PRELUDE = """
import numpy as np
from poolwise import _native as native

AXIS = (2, 0, 2, 1, 2, 0, 0, "absent")

def plan(body="max", dtype="float32", shape=(4, 4), axes=(0, 1), tables=(AXIS, AXIS), order=(0, 1), **more):
    return native.Plan(body, dtype, shape, axes, list(tables), order, **more)

def spans(*pairs):
    return (2, np.array([pairs], np.int64))

def unpool(indices, outputs=16):
    out = np.full(outputs, 7, "f4")
    return native.unpool(4, 1, 4, outputs, 1, np.ones(4, "f4"), np.array(indices), out), set(out.tolist())

x, mask = np.arange(16, dtype="f4").reshape(4, 4), np.ones((4, 4), bool)
y, kept = np.zeros((2, 2), "f4"), np.zeros((2, 2), "u1")
"""
MODULE_REFUSED: dict[str, Row] = {
    "step 0 (CVE-2021-29586)": ("plan(tables=[(2, 0, 0, 1, 2, 0, 0, 'absent'), AXIS])", VALUE, ("step", "1", "0")),
    "taps negative (CVE-2022-35941)": ("plan(tables=[AXIS, (2, 0, 2, 1, -2, 0, 0, 'absent')])", VALUE, ("taps", "-2")),
    "sizes that overflow (CVE-2022-35963)": ("plan(shape=(2**40, 2**40))", VALUE, ("input's size", "64 bits")),
    "a negative size": ("plan(shape=(4, -4))", VALUE, ("size", "-4")),
    "dilation over the edge of 64 bits (pytorch #189664)": (
        "plan(tables=[(2, 0, 2, 2**62, 4, 0, 0, 'absent'), AXIS])",
        VALUE,
        ("(taps - 1) * dilation", "64 bits"),
    ),
    "padding of 2**62": ("plan(tables=[(2, 0, 2, 1, 2, 2**62, 2**62, 'absent'), AXIS])", VALUE, ("low", "64 bits")),
    "a number of 65 bits": ("plan(tables=[(2**64, 0, 2, 1, 2, 0, 0, 'absent'), AXIS])", TYPE, ("64 bits",)),
    "a table of text": ("plan(tables=['absent!!', AXIS])", TYPE, ("tuple",)),
    "a padding mode that is none": ("plan(tables=[(2, 0, 2, 1, 2, 0, 0, 'wrap'), AXIS])", VALUE, ("mode", "'wrap'")),
    "spans outside the axis": ("plan(tables=[spans((0, 2), (3, 2)), AXIS])", VALUE, ("spans", "4", "3 + 2")),
    "spans that go back (CVE-2021-29578)": (
        "plan(tables=[spans((2, 2), (0, 2)), AXIS])",
        VALUE,
        ("spans", "0 after 2"),
    ),
    "spans of more than the taps": ("plan(tables=[spans((0, 4)), AXIS])", VALUE, ("spans", "at most 2", "0 + 4")),
    "no spans at all": ("plan(tables=[(2, np.zeros((1, 0, 2), np.int64)), AXIS])", VALUE, ("spans", "at least 1")),
    "spans of another shape": ("plan(tables=[(2, np.zeros((2, 2), np.int64)), AXIS])", VALUE, ("spans", "(planes")),
    "spans for planes that are not there": (
        "plan(tables=[(2, np.zeros((3, 2, 2), np.int64)), AXIS])",
        VALUE,
        ("spans", "each of the 1", "3"),
    ),
    "axes twice": ("plan(axes=(1, 1))", VALUE, ("axes", "1 twice")),
    "axes past the end": ("plan(axes=(0, 2))", VALUE, ("axes", "between 0 and 1", "2")),
    "fewer tables than axes": ("plan(tables=[AXIS])", VALUE, ("axes", "2 and 1")),
    "an order that repeats": ("plan(order=(0, 0))", VALUE, ("order", "once")),
    "a pooled axis without elements": ("plan(shape=(0, 4))", VALUE, ("pooled axis", "at least 1", "0")),
    "a body that is none": ("plan(body='lowest')", VALUE, ("body", "'lowest'", "'relumax'")),
    "a dtype that is none": ("plan(dtype='complex64')", VALUE, ("dtype", "'complex64'", "'bfloat16'")),
    "divisor NaN": ("plan(body='mean', divisor=float('nan'))", VALUE, ("divisor", "nan")),
    "divisor -3": ("plan(body='mean', divisor=-3.0)", VALUE, ("divisor", "-3")),
    "a divisor of integers with a fraction": ("plan('mean', 'int8', divisor=2.5)", VALUE, ("divisor", "2.5")),
    "an array of another shape": ("plan().forward(x[:3], y)", VALUE, ("x", "(4, 4)", "(3, 4)")),
    "an output too small": ("plan().forward(x, y[:1])", VALUE, ("y", "(2, 2)", "(1, 2)")),
    "an output of another dtype": ("plan().forward(x, y.astype('f8'))", VALUE, ("y", "float32")),
    "an output with gaps": ("plan().forward(x, np.zeros((2, 4), 'f4')[:, ::2])", VALUE, ("y", "dense")),
    "an output that is read-only": (
        "z = y.copy()\nz.flags.writeable = False\nplan().forward(x, z)",
        VALUE,
        ("y", "written to"),
    ),
    "big-endian numbers": ("plan().forward(x.astype('>f4'), y)", VALUE, ("x", "float32")),
    "objects": ("plan().forward(x.astype(object), y)", VALUE, ("x", "float32")),
    "a list": ("plan().forward([[1.0]], y)", TYPE, ("x", "array", "list")),
    "kept too small": ("plan().forward(x, y, kept[:1])", VALUE, ("kept", "(2, 2)", "(1, 2)")),
    "kept of a mean": ("plan('mean').forward(x, y, kept)", VALUE, ("kept", "nothing")),
    "a mask of another shape": ("plan().forward(x, y, None, mask[:1])", VALUE, ("mask", "(4, 4)", "(1, 4)")),
    "a mask of numbers": ("plan().forward(x, y, None, x)", VALUE, ("mask", "bool")),
    "threads negative": ("plan().forward(x, y, threads=-1)", VALUE, ("threads", "at least 0", "-1")),
    "backward without kept": ("plan().backward(y, x)", VALUE, ("kept", "none")),
    "backward of integers": ("plan(dtype='int32').backward(y.astype('i4'), x.astype('i4'), kept)", VALUE, ("int32",)),
    "backward, gradient of another shape (CVE-2021-29577)": (
        "plan().backward(np.zeros((2, 3), 'f4'), x, kept)",
        VALUE,
        ("g", "(2, 2)", "(2, 3)"),
    ),
    "backward, an empty gradient (CVE-2021-29574)": ("plan().backward(y[:0], x, kept)", VALUE, ("g", "(0, 2)")),
    "indices of nothing": ("plan('sum').indices(kept, np.zeros((2, 2), 'i8'))", VALUE, ("kept", "nothing")),
    "a null address": ("plan().forward_at(0, y.ctypes.data)", VALUE, ("x", "null")),
    "an odd address": ("plan().forward_at(x.ctypes.data, y.ctypes.data + 2)", VALUE, ("y", "multiple of 4")),
    "a negative address": ("plan().forward_at(-8, y.ctypes.data)", TYPE, ("forward_at",)),
    "strides too few": ("plan().forward_at(x.ctypes.data, y.ctypes.data, 0, 0, (4,))", VALUE, ("x_strides", "2", "1")),
    "a mask's address without strides": (
        "plan().forward_at(x.ctypes.data, y.ctypes.data, 0, mask.ctypes.data)",
        VALUE,
        ("mask_strides",),
    ),
    "unpool, sizes that overflow": (
        "native.unpool(4, 2**40, 2**40, 4, 1, y, np.zeros(4, 'i8'), y)",
        VALUE,
        ("size", "64 bits"),
    ),
    "unpool, arrays too small": ("native.unpool(4, 1, 5, 4, 1, y, np.zeros(5, 'i8'), y)", VALUE, ("from", "5 aligned")),
    "unpool, indices of 32 bits": ("unpool(np.zeros(4, 'i4'))", VALUE, ("indices", "int64")),
    "unpool, elements of 3 bytes": ("native.unpool(3, 1, 4, 4, 1, y, kept, y)", VALUE, ("itemsize", "3")),
    "no order of rows of that name": ("native.use_row_order('random')", VALUE, ("'together'", "'random'")),
    "no instruction set of that name": ("native.use_instruction_set('z80')", VALUE, ("'z80'",)),
}
# Nothing is written where an index is wrong; an offset outside the window sends nothing anywhere.
MODULE_WORKS: dict[str, tuple[str, object]] = {
    "unpool, an index one past the end (pytorch #91555)": ("unpool([0, 1, 2, 16])", (3, {7.0})),
    "unpool, an index far outside (pytorch #152913)": ("unpool([0, 10**9, -1, 3])", (1, {7.0})),
    "unpool, the least index there is": ("unpool([-(2**63), 1, 2, 3])", (0, {7.0})),
    "backward, offsets that are none (pytorch #142459)": (
        "gx = np.full((4, 4), 7, 'f4')\n"
        "plan().backward(y + 1, gx, np.array([[0, 4], [200, 255]], 'u1'))\n(gx.sum().item(), gx[0, 0].item())",
        (1.0, 1.0),
    ),
    "indices of offsets that are none": (
        "out = np.zeros((2, 2), 'i8')\nplan().indices(np.array([[0, 4], [200, 255]], 'u1'), out)\nout.tolist()",
        [[0, -1], [-1, -1]],
    ),
    "windows wholly outside": (
        "p = plan(shape=(4,), axes=(0,), tables=[(2, 2**40, 2**40, 1, 2, 0, 0, 'absent')], order=(0,))\n"
        "p.forward(x[0], y[0])\ny[0].tolist()",
        [-INF, -INF],
    ),
    "an empty batch": (
        "p = plan(shape=(0, 4), axes=(1,), tables=[AXIS], order=(0, 1))\np.forward(x[:0], y[:0])\np.output_size",
        0,
    ),
    "a window of 2**62 taps": (
        "p = plan('max', shape=(4,), axes=(0,), tables=[(1, -(2**61), 1, 1, 2**62, 0, 0, 'absent')], order=(0,))\n"
        "p.forward(x[0], y[0, :1])\n(y[0, 0].item(), p.kept_dtype)",
        (3.0, "int64"),
    ),
}

REFUSED: dict[str, Row] = {
    f"{group}: {name}": row
    for group, rows in {
        "geometry": GEOMETRY,
        "array": ARRAYS,
        "parameter": PARAMETERS,
        "kernel": KERNELS,
        "torch": TORCH,
        "autograd": AUTOGRAD,
    }.items()
    for name, row in rows.items()
}

MAXIMA = [[5.0, 7.0], [13.0, 15.0]]

# name -> snippet, what it gives (as Python's own numbers)
WORKS: dict[str, tuple[str, object]] = {
    "an empty batch": ("max_pool(np.zeros((0, 3, 4, 4)), (2, 2)).shape", (0, 3, 2, 2)),
    "backward of an empty batch (CVE-2021-29573)": (
        "a = torch.zeros(0, 3, 4, 4, requires_grad=True)\ntuple(gradient(F.max_pool2d(a, 2), a).shape)",
        (0, 3, 4, 4),
    ),
    "backward of an empty batch, adaptive": (
        "a = torch.zeros(0, 3, 4, 4, requires_grad=True)\ntuple(gradient(F.adaptive_avg_pool2d(a, 3), a).shape)",
        (0, 3, 4, 4),
    ),
    "backward of windows with no element": (
        "a = leaf(1, 1, 2, 2)\ngradient(F.max_pool2d(a, 2, 1, 1, dilation=3), a)",
        [[[[0.0, 0.0], [0.0, 0.0]]]],
    ),
    "windows with no element are −inf": (
        "F.max_pool2d(t[..., :2, :2], 2, 1, 1, dilation=3)",
        [[[[-INF]]]],
    ),
    "ceil mode drops a window wholly in padding (onnxruntime #16351)": (
        "avg_pool(np.ones(4), (2,), stride=3, padding=1, ceil_mode=True)",
        [1.0, 1.0],
    ),
    "ceil mode, window larger than the input (onnx #4958)": ("max_pool(x, (5, 5), ceil_mode=True)", [[15.0]]),
    "a window wholly in padding is empty (onnxruntime #16350)": (
        "max_pool(np.array([1.0, 2.0]), (2,), padding=2)",
        [-INF, 2.0, -INF],
    ),
    "an empty mean is NaN, and 0 where padding counts": (
        "[avg_pool(np.ones(2), (2,), padding=2, count_include_pad=c).tolist() for c in (False, True)]",
        [[float("nan"), 1.0, float("nan")], [0.0, 1.0, 0.0]],
    ),
    "a divisor in the vector path (onnxruntime PR 29629)": (
        "sorted(set((avg_pool(np.full((67, 67), 12.0, 'f4'), (2, 2), divisor=3, stride=1)).ravel().tolist()))",
        [16.0],
    ),
    "dilation over the padding": (
        "max_pool(np.array([1.0, 2.0, 3.0]), (2,), stride=1, padding=2, dilation=4)",
        [3.0, -INF, 1.0],
    ),
    "bool: max, min, sum": (
        "b = np.array([True, False, False, False])\n[f(b, (2,)).tolist() for f in (max_pool, min_pool, sum_pool)]",
        [[True, False], [False, False], [1, 0]],
    ),
    "uint64 to its end": (
        "b = np.full(2, 2**64 - 1, np.uint64)\n[f(b, (2,)).tolist() for f in (max_pool, min_pool, avg_pool)]",
        [[2**64 - 1]] * 3,
    ),
    "int64 to both ends": (
        "b = np.array([2**63 - 1, 2**63 - 1, -(2**63), -(2**63)])\n[f(b, (2,)).tolist() for f in (max_pool, avg_pool)]",
        [[2**63 - 1, -(2**63)]] * 2,
    ),
    "big-endian": ("max_pool(x.astype('>f4'), (2, 2))", MAXIMA),
    "big-endian integers": ("avg_pool(np.arange(4).astype('>i2'), (2,))", [0, 2]),
    "read-only": ("x.flags.writeable = False\nmax_pool(x, (2, 2))", MAXIMA),
    "zero-stride": ("avg_pool(np.broadcast_to(np.float32(3), (4, 4)), (2, 2))", [[3.0, 3.0], [3.0, 3.0]]),
    "negative-stride": ("max_pool(x[::-1, ::-1], (2, 2))", [[15.0, 13.0], [7.0, 5.0]]),
    "transposed": ("max_pool(x.T, (2, 2))", [[5.0, 13.0], [7.0, 15.0]]),
    "every second element": ("max_pool(np.arange(16.0).reshape(2, 8)[:, ::2], (2, 2))", [[10.0, 14.0]]),
    "unaligned": (
        "raw = np.zeros(16 * 8 + 1, np.uint8); u = raw[1:].view('f8').reshape(4, 4); u[:] = x\n"
        "max_pool(u, (2, 2)).tolist() + [u.flags.aligned]",
        [*MAXIMA, False],
    ),
    "a field of a structured array": (
        "s = np.zeros(4, [('a', 'u1'), ('b', 'f4')]); s['b'] = [1, 5, 2, 3]\nmax_pool(s['b'], (2,))",
        [5.0, 3.0],
    ),
    "NumPy's integers as sizes": ("max_pool(x, (np.int64(2), np.uint8(2)), stride=np.int32(2))", MAXIMA),
    "a mask that takes everything": ("sum_pool(x, (2, 2), where=False)", [[0.0, 0.0], [0.0, 0.0]]),
    "axes apart, the one between them empty": ("max_pool(np.ones((4, 0, 4)), (2, 2), axes=(0, 2)).shape", (2, 0, 2)),
    "NaN and −inf": (
        "max_pool(np.array([-np.inf, -np.inf, np.nan, 1.0]), (2,), return_indices=True)[1]",
        [0, 2],
    ),
    "a geometry of 2**62 elements": ("Geometry.of((2**62,), window=(2,), stride=2**60).output_shape", (4,)),
    "more elements than 2**31 (pytorch #68418)": (
        "max_pool(np.broadcast_to(np.uint8(7), (2**31 + 8,)), (1,), stride=2**31, return_indices=True)[1]",
        [0, 2**31],
    ),
    "a printed geometry of 2**40 empty windows": (
        "str(Geometry.of((4,), window=(2,), padding=2**40)).split()[-2:]",
        ["0", str(2**40)],
    ),
    "meta tensors": (
        "y = F.max_pool2d(t.to('meta'), 2, return_indices=True)\n"
        "[(tuple(v.shape), v.device.type, str(v.dtype)) for v in y]",
        [((1, 1, 2, 2), "meta", "torch.float32"), ((1, 1, 2, 2), "meta", "torch.int64")],
    ),
    "fake tensors": (
        "with FakeTensorMode() as mode: fake = torch.ones(1, 1, 4, 4, requires_grad=True)\n"
        "with mode: y = F.avg_pool2d(fake, 2); y.sum().backward()\n"
        "tuple(y.shape), tuple(fake.grad.shape)",
        ((1, 1, 2, 2), (1, 1, 4, 4)),
    ),
    "no_grad": (
        "with torch.no_grad(): y = F.max_pool2d(leaf(1, 1, 4, 4), 2)\ny.requires_grad, y.tolist()",
        (False, [[MAXIMA]]),
    ),
    "inference_mode": ("with torch.inference_mode(): y = F.max_pool2d(t, 2)\ny", [[MAXIMA]]),
    "a view that negates": ("F.max_pool2d(torch._neg_view(t[..., 1:3]), 2)", [[[[-1.0], [-9.0]]]]),
    "a gradient of zero strides": (
        "a = leaf(1, 1, 4, 4)\ngradient(F.max_pool2d(a, 2), a, torch.ones(()).expand(1, 1, 2, 2))[0, 0]",
        [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]],
    ),
    "a channels-last gradient of a plain input": (
        "a = leaf(2, 3, 5, 5); y = F.max_pool2d(a, 3, 2); g = torch.arange(24.0).reshape(y.shape)\n"
        "(gradient(y, a, g.to(memory_format=torch.channels_last)).flatten(1).sum(1)).tolist()",
        [66.0, 210.0],
    ),
    "what was kept, saved on the CPU, channels last": (
        "a = torch.arange(150.0).reshape(2, 3, 5, 5).to(memory_format=torch.channels_last).requires_grad_()\n"
        "b = a.detach().clone().requires_grad_()\n"
        "with kept_as(torch.Tensor.contiguous, lambda v: v): y = F.max_pool2d(a, 3, 2)\n"
        "torch.equal(gradient(y, a), gradient(F.max_pool2d(b, 3, 2), b))",
        True,
    ),
    "a −inf that wins in a channels-last volume of halves keeps its index": (
        "a = torch.full((1, 2, 2, 2, 2), -torch.inf, dtype=torch.half).to(memory_format=torch.channels_last_3d)\n"
        "F.max_pool3d(a, 1, return_indices=True)[1].flatten().tolist()",
        [*range(8), *range(8)],
    ),
    "offsets of nobody send nothing": (
        "a = leaf(1, 1, 4, 4)\n"
        "with kept_as(lambda v: v, lambda v: v + 200): y = F.max_pool2d(a, 2)\n"
        "gradient(y, a).abs().sum().item()",
        0.0,
    ),
    "uint8 and uint16 tensors": (
        "[f(t.to(d), (2, 2))[0, 0].tolist() for d in (torch.uint8, torch.uint16) for f in (max_pool, avg_pool)]",
        [[[5, 7], [13, 15]], [[2, 4], [10, 12]]] * 2,
    ),
    "many threads at once": (
        "a = np.arange(2.0**20).reshape(16, 256, 256); want = max_pool(a, (2, 2)); same = []\n"
        "def work(): same.extend(bool((max_pool(a, (2, 2)) == want).all()) for _ in range(8))\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "len(same), all(same)",
        (64, True),
    ),
    "after fork": (
        "a = np.arange(2.0**20).reshape(16, 256, 256); want = max_pool(a, (2, 2)); pid = os.fork()\n"
        "if pid == 0: os._exit(0 if (max_pool(a, (2, 2)) == want).all() else 1)\n"
        "os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])",
        0,
    ),
    "copies and pickles of operations": (
        "ops = [Max(), Min(), Sum(), Mean(count_include_pad=True, divisor=3, rounding='truncate')]\n"
        "[copy.deepcopy(op) == op == pickle.loads(pickle.dumps(op)) for op in ops]",
        [True, True, True, True],
    ),
    "copies and pickles of geometries": (
        "g = Geometry.of((5, 9), window=(3, 2), padding=((1, 2), 0), padding_mode='reflect')\n"
        "h = pickle.loads(pickle.dumps(g))\n"
        "g == h == copy.deepcopy(g), hash(g) == hash(h), str(g) == str(h)",
        (True, True, True),
    ),
    "copies and pickles of layers": (
        "made = [layers.MaxPool2d(2), layers.MinPool2d(2, 1), layers.Pool(Max(), (2, 2))]\n"
        "made += [layers.AdaptiveAvgPool2d(3)]\n"
        "again = [*map(copy.deepcopy, made), *(pickle.loads(pickle.dumps(layer)) for layer in made)]\n"
        "[torch.equal(layer(t), other(t)) for layer, other in zip(made * 2, again)]",
        [True] * 8,
    ),
}


@pytest.fixture(scope="module")
def answers() -> dict[str, Outcome]:
    """Every row's outcome; one child runs them all, unless one of them ends it."""
    snippets = {name: snippet for name, (snippet, *_) in {**REFUSED, **WORKS}.items()}
    return outcomes(snippets, PRELUDE)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_in_one_line_that_names_it(name: str, answers: dict[str, Outcome]) -> None:
    _, kind, words = REFUSED[name]
    got = answers[name]
    assert not got.signal, f"{got.signal} {got.text}"
    assert kind in got.kinds, f"expected {kind}, got {got.fault or got.value}: {got.text}"
    assert kind == "RuntimeError" or got.fault in ("InvalidValue", "InvalidType") or "kept must" in got.text
    assert [word for word in words if word not in got.text] == [], got.text
    assert kind == "RuntimeError" or "\n" not in got.text


@pytest.mark.parametrize("name", WORKS)
def test_what_is_legal_gives_the_right_answer(name: str, answers: dict[str, Outcome]) -> None:
    _, expected = WORKS[name]
    got = answers[name]
    assert not got.signal, f"{got.signal} {got.text}"
    assert not got.fault, f"{got.fault}: {got.text}"
    assert got.value == repr(expected)


@pytest.fixture(scope="module")
def module_answers() -> dict[str, Outcome]:
    snippets = {name: snippet for name, (snippet, *_) in {**MODULE_REFUSED, **MODULE_WORKS}.items()}
    return outcomes(snippets, MODULE_PRELUDE)


@pytest.mark.parametrize("name", MODULE_REFUSED)
def test_the_compiled_module_refuses_by_itself(name: str, module_answers: dict[str, Outcome]) -> None:
    _, kind, words = MODULE_REFUSED[name]
    got = module_answers[name]
    assert (got.signal, got.fault) == ("", kind), got
    assert [word for word in words if word not in got.text] == [], got.text


@pytest.mark.parametrize("name", MODULE_WORKS)
def test_the_compiled_module_goes_nowhere_that_it_was_not_given(name: str, module_answers: dict[str, Outcome]) -> None:
    got = module_answers[name]
    assert (got.signal, got.fault) == ("", ""), got
    assert got.value == repr(MODULE_WORKS[name][1])


def test_the_runner_reports_a_crash_a_strange_exit_and_a_hang_and_goes_on() -> None:
    prelude = "import os, signal, time\nsignal.alarm = lambda s, alarm=signal.alarm: alarm(min(s, 1))"
    snippets = {
        "sum": "a = 1\na + 1",
        "crash": "os.kill(os.getpid(), signal.SIGSEGV)",
        "exit": "os._exit(3)",
        "hang": "time.sleep(30)",
        "fault": "{}['key']",
        "last": "[2.5]",
    }
    got = outcomes(snippets, prelude)
    assert {name: got[name].signal or got[name].fault or got[name].value for name in snippets} == {
        "sum": "2",
        "crash": "SIGSEGV",
        "exit": "exit 3",
        "hang": "SIGALRM",
        "fault": "KeyError",
        "last": "[2.5]",
    }
