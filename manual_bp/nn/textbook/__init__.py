"""The formulas of convolution and pooling as they stand in a textbook, one window at a time.

Nothing here is fast. These functions are executable documentation and the third opinion of the
tests: the formulations that the layers choose by shape must agree with them. They compute in the
dtype they are given, ``np.longdouble`` included. Inputs are (N, C, *L) with any number of spatial
axes; windows are described by `manual_bp.nn._window.Window`.
"""

from ._conv import conv_backward as conv_backward
from ._conv import conv_forward as conv_forward
from ._pool import avg_pool_backward as avg_pool_backward
from ._pool import avg_pool_divisor as avg_pool_divisor
from ._pool import avg_pool_forward as avg_pool_forward
from ._pool import max_pool_backward as max_pool_backward
from ._pool import max_pool_forward as max_pool_forward
