"""Every operation, one file each. To add one, write its file and name it here."""

from poolwise.op import Operation
from poolwise.ops.blur import Blur
from poolwise.ops.lp import Lp
from poolwise.ops.max import Max
from poolwise.ops.mean import Mean
from poolwise.ops.min import Min
from poolwise.ops.relumax import ReLUMax
from poolwise.ops.sum import Sum

OPERATIONS: tuple[type[Operation], ...] = (Max, Min, ReLUMax, Sum, Mean, Lp, Blur)
