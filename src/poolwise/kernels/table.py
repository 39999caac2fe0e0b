"""Every kernel, in order of preference."""

from __future__ import annotations

from poolwise.call import Kernel
from poolwise.kernels.gathered import Gathered
from poolwise.kernels.native import Native
from poolwise.kernels.vendor import Vendor

KERNELS: tuple[Kernel, ...] = (Native(), Vendor(), Gathered())
