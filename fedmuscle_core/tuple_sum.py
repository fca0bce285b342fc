"""The sum over all B^M tuples of public samples that the Muscle loss needs, without forming the tuples.

For anchor i and a tuple j = (j_1..j_M), with logits A (M, B, B) and log-weights log alpha of every pair of peers,

    log_sum_i = logsumexp_j [ sum_m A[m, i, j_m]  +  sum_{m<k} log_alpha[m, k, j_m, j_k] ]

Its derivative by A[m, i, j] is the marginal probability that j_m = j under the tuple distribution, so both evaluations
below return (log_sum, marginals) and one autograd function serves both.
"""

import math

import torch

BLOCK = 2 ** 18            # numbers in the largest intermediate of a block of anchors; a handful of such are alive at once
FLOAT32_RANGE = 80.0       # exp(-80) is still a normal float32
FLOAT64_RANGE = 700.0
SWEEPS = 3                 # of `mean_field`
ONLY_EXACT = "estimator: got 'sampled', expected 'exact' for second derivatives and forward mode"


class TupleLogSum(torch.autograd.Function):
    """(log_sum (B,), marginals (M, B, B)) of logits (M, B, B); `evaluate(logits, log_alpha)` is one of the functions below.

    The marginals are the derivative of log_sum.  Theirs is that of `exact`, with all B^M numbers in memory; of `sampled`, whose
    draws depend on the logits, a NotImplementedError.
    """

    @staticmethod
    def forward(logits, log_alpha, evaluate):
        return evaluate(logits.detach(), log_alpha)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.evaluate = inputs
        ctx.save_for_backward(*tensors, output[1])
        ctx.save_for_forward(*tensors, output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad, grad_of_marginals):
        logits, log_alpha, marginals = ctx.saved_tensors
        first = None if grad is None else grad[:, None] * marginals
        if grad_of_marginals is None:
            return first, None, None
        second = _curvature(logits, log_alpha, ctx.evaluate, grad_of_marginals)
        return second if first is None else first + second, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        logits, log_alpha, marginals = ctx.saved_tensors
        return (marginals * tangent).sum((0, 2)), _curvature(logits, log_alpha, ctx.evaluate, tangent)

    @staticmethod
    def vmap(info, in_dims, logits, log_alpha, evaluate):
        """One after the other, for the transforms that stack directions; the loss itself is refused, see `checks.true_of`."""
        def at(tensor, dim, place):
            return tensor if dim is None else tensor.select(dim, place)

        found = [TupleLogSum.apply(at(logits, in_dims[0], place), at(log_alpha, in_dims[1], place), evaluate)
                 for place in range(info.batch_size)]
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True)), (0, 0)


def _curvature(logits, log_alpha, evaluate, direction):
    """The second derivative of log_sum, a symmetric matrix, times `direction` (M, B, B)."""
    if evaluate is not exact:
        raise NotImplementedError(ONLY_EXACT)

    def total(logits):
        weights, factors, offset = _prepared(logits, log_alpha)
        return (total_alone(list(weights), factors).log() + offset).sum().to(logits.dtype)

    return torch.func.vjp(torch.func.grad(total), logits)[1](direction)[0]


def exact(logits, log_alpha):
    """Exact (log_sum (B,), marginals (M, B, B)); logits (M, B, B), log_alpha (M, M, B, B) used above its diagonal.

    The sum factors: with E_m = exp A_m and X_mk = exp log_alpha_mk (largest entries taken out),
    M = 2: ((E_1 @ X_12) * E_2).sum(1);  larger M: expand j_1, which absorbs X_1k into E_k, and go on with M - 1.
    About B^(M+1) multiply-adds.  No tensor is larger than M^2 B^2 (the tables of the pairs) or 8 BLOCK numbers: it walks over
    blocks of anchors, and of anchors with their first j where one anchor alone needs more.
    """
    num_peers, batch_size, _ = logits.shape
    weights, factors, offset = _prepared(logits, log_alpha)
    anchors = max(1, BLOCK // batch_size ** max(1, num_peers - 1))
    sums, marginals = [], []
    for block in weights.split(anchors, dim=1):
        total, slopes = contract(list(block), factors)
        sums.append(total)
        marginals.append(block * torch.stack(slopes) / total[None, :, None])
    return (torch.cat(sums).log() + offset).to(logits.dtype), torch.cat(marginals, 1).to(logits.dtype)


def _prepared(logits, log_alpha):
    """(E (M, B, B), {(m, k): X_mk (B, B)}, what was taken out (B,)): no entry of E or X is above 1."""
    num_peers = len(logits)
    high, ranges = _ranges(log_alpha)
    dtype = _safe_dtype(logits.dtype, ranges.sum().item())
    peak = logits.detach().amax(2, keepdim=True)
    weights = (logits - peak).to(dtype).exp()
    tables = (log_alpha - high[:, :, None, None]).to(dtype).exp()             # (M, M, B, B)
    factors = {(m, k): tables[m, k] for m in range(num_peers) for k in range(m + 1, num_peers)}
    return weights, factors, peak.to(dtype).sum((0, 2)) + high.triu(1).sum()


def contract(weights, factors):
    """total_r = sum_{j_1..j_M} prod_m weights[m][r, j_m] prod_{m<k} factors[m, k][j_m, j_k], for every row r.

    weights: M matrices (R, B).  Returns (total (R,), slopes: M matrices d total_r / d weights[m][r, j]).
    """
    first, *rest = weights
    if not rest:
        return first.sum(1), [torch.ones_like(first)]
    if len(rest) == 1:
        slope = rest[0] @ factors[0, 1].T
        return (first * slope).sum(1), [slope, first @ factors[0, 1]]
    inner, inner_slopes = _in_blocks(*_without_first(rest, factors))
    inner = inner.view(first.shape)
    slopes = [(first[:, None] @ slope.view(*first.shape, -1).mul_(factors[0, k]))[:, 0]
              for k, slope in enumerate(inner_slopes, 1)]
    return (first * inner).sum(1), [inner, *slopes]


def _in_blocks(weights, factors):
    """`contract`, by as many rows at a time as keep its intermediates within 8 BLOCK numbers."""
    (count, batch_size), depth = weights[0].shape, len(weights) - 1
    rows = max(1, 8 * BLOCK // batch_size ** depth)
    if rows >= count:
        return contract(weights, factors)
    totals, slopes = zip(*(contract(list(block), factors) for block in zip(*(weight.split(rows) for weight in weights),
                                                                           strict=True)), strict=True)
    return torch.cat(totals), [torch.cat(parts) for parts in zip(*slopes, strict=True)]


def total_alone(weights, factors):
    """The total of `contract`, by operations that can be derived as often as one likes."""
    first, *rest = weights
    if not rest:
        return first.sum(1)
    if len(rest) == 1:
        return (first * (rest[0] @ factors[0, 1].T)).sum(1)
    return (first * total_alone(*_without_first(rest, factors)).view(first.shape)).sum(1)


def _without_first(rest, factors):
    """(weights (R * B, B), factors) of the peers after the first, whose factors with them the weights have absorbed."""
    expanded = [(weight[:, None] * factors[0, k]).flatten(0, 1) for k, weight in enumerate(rest, 1)]
    return expanded, {(m - 1, k - 1): factor for (m, k), factor in factors.items() if m > 0}


def _ranges(log_alpha):
    """(largest log alpha, largest less smallest) of every pair: both (M, M); 0 on and below the diagonal, NaN beyond floats."""
    low, high = log_alpha.flatten(2).aminmax(dim=2)
    return high, high - low


def _safe_dtype(dtype, spread):
    """A dtype in which no partition can underflow: it is at least exp(-spread), the sum of the ranges of all log alpha."""
    _check_range(spread, FLOAT64_RANGE)
    return torch.float64 if spread > FLOAT32_RANGE else dtype


def _check_range(spread, most):
    if math.isnan(spread):
        raise ValueError("peers: got rows whose products leave the floats, expected shorter rows")
    if spread > most:
        raise ValueError(f"tau_prev: log alpha spans {spread:.0f}, expected at most {most:.0f}: bring tau_prev nearer to "
                         "tau, or peers to unit length")


def sampled(logits, log_alpha, *, num_samples, generator=None):
    """Estimate of (log_sum, marginals) from K = `num_samples` tuples per anchor, drawn peer by peer [ours].

    p(j) = exp(sum_m A[m, i, j_m]) alpha_j / partition.  Peer m is drawn given those before it, those after it at their mean:

        q(j_m | j_1..j_{m-1}) = softmax_{j_m}( A[m, i, j_m] + sum_{l<m} log_alpha_lm[j_l, j_m]
                                                            + sum_{l>m} E_l log_alpha_ml[j_m, .] )

    with E_l over the mean-field distribution of peer l, see `mean_field`.  w = exp(sum_m A + log alpha) / q(j) is unbiased for
    the partition, whatever q is; the logarithm of its mean is too low where the draws miss tuples that count.  Most that the
    loss was off, of 20 estimates with K = 64, all models with the same orthonormal rows:

        tau     tau_prev    B    M = 3       5       7       9
        0.2     0.15       32    0.3 %   0.1 %   0.1 %   0.1 %       the default temperatures
        0.2     0.15        5    0.9 %   0.9 %   0.5 %   0.8 %
        0.1     0.075      32    0.3 %   0.7 %   0.4 %   0.2 %
        0.05    0.0375     32    1.5 %   3.5 %   0.7 %   0.5 %

    Marginals: mean q + sum_k (w_k / sum w - 1/K) onehot(j_k), exact where alpha is constant.  The gradient, at the default
    temperatures, B = 32 and rows in 64 dimensions a tenth of noise apart, is off by 8 % for M = 3 and 10 % for M = 4.
    Work: M tables (B, K, B), each with a look-up in the tables of the peers drawn before: M^2 B^2 K / 2 additions.
    ValueError where `exact` has one.
    """
    num_peers, batch_size, _ = logits.shape
    _check_range(_ranges(log_alpha)[1].sum().item(), FLOAT64_RANGE)
    ahead = mean_field(logits, log_alpha)
    log_weight, drawn, marginals = logits.new_zeros(batch_size, num_samples), [], []
    for m in range(num_peers):
        given = logits[m][:, None]                                            # (B, 1 or K, B)
        for past, rows in enumerate(drawn):
            given = given + log_alpha[past, m][rows]
        expected = sum((ahead[later] @ log_alpha[m, later].T for later in range(m + 1, num_peers)), torch.zeros_like(logits[m]))
        log_q = (given + expected[:, None]).log_softmax(2)
        rows = _draw(log_q.exp(), num_samples, generator)
        drawn.append(rows)
        log_weight = log_weight + _picked(given, rows) - _picked(log_q, rows)
        marginals.append(log_q.exp().mean(1))
    surplus = log_weight.softmax(1) - 1 / num_samples                         # (B, K)
    for slope, rows in zip(marginals, drawn, strict=True):
        slope.scatter_add_(1, rows, surplus)
    return log_weight.logsumexp(1) - math.log(num_samples), torch.stack(marginals)


def mean_field(logits, log_alpha):
    """Distribution of every peer's j (M, B, B) where the others are at their means, by SWEEPS damped passes:
    q_m <- (q_m + softmax(A_m + sum_{l != m} E_{q_l} log_alpha_ml)) / 2, from q_m = softmax(A_m)."""
    both = log_alpha + log_alpha.transpose(0, 1).mT                           # [m, l][j_m, j_l], of each pair both ways
    q = logits.softmax(2)
    for _ in range(SWEEPS):
        for m in range(len(q)):
            field = logits[m] + (q @ both[m].mT).sum(0)
            q[m] = (q[m] + field.softmax(1)) / 2
    return q


def _draw(q, num_samples, generator):
    """Indices (B, K) drawn from rows (B, 1 or K, B) of probabilities."""
    where = q.device if generator is None else generator.device
    try:
        uniform = torch.rand(len(q), num_samples, generator=generator, device=where).to(q)
    except RuntimeError as error:
        if "vmap" in str(error):
            raise NotImplementedError(ONLY_EXACT) from error
        raise
    steps = q.cumsum(2)
    wanted = uniform * steps[..., -1]
    if q.shape[1] == 1:
        rows = torch.searchsorted(steps[:, 0].contiguous(), wanted)
    else:
        rows = torch.searchsorted(steps, wanted[..., None])[..., 0]
    return rows.clamp(max=q.shape[-1] - 1)


def _picked(table, rows):
    """Entries (B, K) of a table (B, 1 or K, B) at the rows drawn."""
    return table.expand(*rows.shape, table.shape[-1]).gather(2, rows[..., None])[..., 0]
