"""Every operation, one file each. To add one, write its file and name it here."""

from poolwise.op import Operation
from poolwise.ops.blur import Blur
from poolwise.ops.gated import Gated
from poolwise.ops.gem import GeM
from poolwise.ops.lip import LIP
from poolwise.ops.logsumexp import LogSumExp
from poolwise.ops.lp import Lp
from poolwise.ops.max import Max
from poolwise.ops.mean import Mean
from poolwise.ops.median import Median
from poolwise.ops.min import Min
from poolwise.ops.mixed import Mixed
from poolwise.ops.mode import Mode
from poolwise.ops.quantile import Quantile
from poolwise.ops.relumax import ReLUMax
from poolwise.ops.soft import Soft
from poolwise.ops.stochastic import Stochastic
from poolwise.ops.stochasticmean import StochasticMean
from poolwise.ops.sum import Sum
from poolwise.ops.topkmean import TopKMean

OPERATIONS: tuple[type[Operation], ...] = (
    Max,
    Min,
    ReLUMax,
    Sum,
    Mean,
    Lp,
    Blur,
    LogSumExp,
    TopKMean,
    Median,
    Quantile,
    Mode,
    Soft,
    GeM,
    LIP,
    Mixed,
    Gated,
    Stochastic,
    StochasticMean,
)
