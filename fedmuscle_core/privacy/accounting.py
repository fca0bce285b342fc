"""(epsilon, delta) of what a client sends, by Opacus' accountant: the extra [privacy].

DP-SGD in the local phases (`client.Training.noise_multiplier`) makes a client's parameters private, and with them what follows
from parameters, public samples and what peers sent: representations, votes, kernels, contrastive steps.  Neighbouring private
sets differ by one sample that is there or not.  Not private: what is measured for the history, local losses, scores on
validation and test samples, the number of samples that a client registers; and whoever knows the federation's seed knows the
noise.
"""

import math
import warnings

from ..checks import number, positive_int

DELTA = 1e-3


def epsilon(noise_multiplier, sample_rate, steps, delta=DELTA):
    """epsilon of `steps` steps of DP-SGD with Poisson samples of `sample_rate` and Gaussian noise of `noise_multiplier` times
    the clipping length; infinite without noise.  Raises ValueError naming the extra where Opacus is not installed."""
    number("noise_multiplier", noise_multiplier, least=0)
    if number("sample_rate", sample_rate, above=0) > 1:
        raise ValueError(f"sample_rate: got {sample_rate}, expected at most 1")
    number("delta", delta, above=0, below=1)
    positive_int("steps", steps)
    if noise_multiplier == 0:
        return math.inf
    accountant = _accountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")             # the bound holds, it could be a little lower
        return accountant.get_epsilon(delta)


def epsilon_of_representations(noise, rows, uploads, delta=DELTA):
    """epsilon of `uploads` uploads of `rows` unit-length representations with Gaussian noise of standard deviation `noise` on
    each number, whatever the training did: one private sample may turn each row round, so that an upload changes by up to
    2 sqrt(rows), and every upload depends on all private samples."""
    positive_int("rows", rows)
    return epsilon(number("noise", noise, least=0) / (2 * math.sqrt(rows)), 1.0, uploads, delta)


def _accountant():
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise ValueError("opacus: not installed; expected the extra [privacy]: `pip install 'fedmuscle-core[privacy]'`"
                         ) from error
    return RDPAccountant()
