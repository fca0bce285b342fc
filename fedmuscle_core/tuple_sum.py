"""The sum over all B^M tuples of public samples that the Muscle loss needs, without forming the tuples.

For anchor i and a tuple j = (j_1..j_M), with logits A (M, B, B) and log-weights log alpha of every pair of peers,

    log_sum_i = logsumexp_j [ sum_m A[m, i, j_m]  +  sum_{m<k} log_alpha[m, k, j_m, j_k] ]

Its derivative by A[m, i, j] is the marginal probability that j_m = j under the tuple distribution, so both evaluations
below return (log_sum, marginals) and one autograd function serves both.
"""

import torch

BLOCK = 2 ** 18            # numbers in the largest intermediate of a block of anchors; a handful of such are alive at once
FLOAT32_RANGE = 80.0       # exp(-80) is still a normal float32
FLOAT64_RANGE = 700.0


class TupleLogSum(torch.autograd.Function):
    """log_sum (B,) of logits (M, B, B); `evaluate(logits, log_alpha)` is one of the functions below.

    Second derivatives: of `exact`, with all B^M numbers in memory; of `sampled`, whose draws depend on the logits, a
    NotImplementedError.
    """

    @staticmethod
    def forward(ctx, logits, log_alpha, evaluate):
        log_sum, marginals = evaluate(logits.detach(), log_alpha)
        ctx.save_for_backward(logits, log_alpha, marginals)
        ctx.evaluate = evaluate
        return log_sum

    @staticmethod
    def backward(ctx, grad):
        logits, log_alpha, marginals = ctx.saved_tensors
        if not torch.is_grad_enabled():                                       # else with create_graph=True
            return grad[:, None] * marginals, None, None
        if ctx.evaluate is not exact:
            raise NotImplementedError("estimator: got 'sampled', expected 'exact' for second derivatives")
        weights, factors, offset = _prepared(logits, log_alpha)
        log_sum = (total_alone(list(weights), factors).log() + offset).to(logits.dtype)
        return torch.autograd.grad(log_sum, logits, grad, create_graph=True)[0], None, None


def exact(logits, log_alpha):
    """Exact (log_sum (B,), marginals (M, B, B)); logits (M, B, B), log_alpha (M, M, B, B) used above its diagonal.

    The sum factors: with E_m = exp A_m and X_mk = exp log_alpha_mk (largest entries taken out),
    M = 2: ((E_1 @ X_12) * E_2).sum(1);  larger M: expand j_1, which absorbs X_1k into E_k, and go on with M - 1.
    About B^(M+1) multiply-adds.  Memory is bounded: it walks over blocks of anchors of at most BLOCK numbers, and over
    slices of j_1 where one anchor alone holds more than 8 BLOCK; a single j_1 holds B^(M-2), 1 MB at B = 64, M = 5.
    """
    num_peers, batch_size, _ = logits.shape
    weights, factors, offset = _prepared(logits, log_alpha)
    per_anchor = batch_size ** max(1, num_peers - 1)
    anchors = max(1, BLOCK // per_anchor)
    columns = max(1, min(batch_size, batch_size * 8 * BLOCK // per_anchor))
    sums, marginals = [], []
    for block in weights.split(anchors, dim=1):
        total, slopes = _block(block, factors, columns)
        sums.append(total)
        marginals.append(block * slopes / total[None, :, None])
    return (torch.cat(sums).log() + offset).to(logits.dtype), torch.cat(marginals, 1).to(logits.dtype)


def _prepared(logits, log_alpha):
    """(E (M, B, B), {(m, k): X_mk (B, B)}, what was taken out (B,)): no entry of E or X is above 1."""
    num_peers = len(logits)
    low, high = log_alpha.flatten(2).aminmax(dim=2)                           # (M, M); zero on and below the diagonal
    dtype = _safe_dtype(logits.dtype, (high - low).triu(1).sum().item())
    peak = logits.detach().amax(2, keepdim=True)
    weights = (logits - peak).to(dtype).exp()
    tables = (log_alpha - high[:, :, None, None]).to(dtype).exp()             # (M, M, B, B)
    factors = {(m, k): tables[m, k] for m in range(num_peers) for k in range(m + 1, num_peers)}
    return weights, factors, peak.to(dtype).sum((0, 2)) + high.triu(1).sum()


def _block(weights, factors, columns):
    """Tuple sums (R,) and their slopes (M, R, B) of one block of anchors, adding up slices of `columns` values of j_1."""
    total, slopes = 0, torch.zeros_like(weights)
    for start in range(0, weights.shape[2], columns):
        part = slice(start, start + columns)
        sliced = {pair: factor[part] if pair[0] == 0 else factor for pair, factor in factors.items()}
        partial, (first, *rest) = contract([weights[0][:, part], *weights[1:]], sliced)
        total = total + partial
        slopes[0][:, part] = first
        for m, slope in enumerate(rest, 1):
            slopes[m] += slope
    return total, slopes


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
    inner, inner_slopes = contract(*_without_first(rest, factors))
    inner = inner.view(first.shape)
    slopes = [(first[:, None] @ slope.view(*first.shape, -1).mul_(factors[0, k]))[:, 0]
              for k, slope in enumerate(inner_slopes, 1)]
    return (first * inner).sum(1), [inner, *slopes]


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


def _safe_dtype(dtype, spread):
    """A dtype in which no partition can underflow: it is at least exp(-spread), the sum of the ranges of all log alpha."""
    if spread > FLOAT64_RANGE:
        raise ValueError(f"tau_prev: log alpha spans {spread:.0f}, expected at most {FLOAT64_RANGE:.0f}; "
                         "bring tau_prev nearer to tau")
    return torch.float64 if spread > FLOAT32_RANGE else dtype


def sampled(logits, log_alpha, *, num_samples, generator=None):
    """Estimate of (log_sum, marginals) from K = `num_samples` tuples per anchor, for any number of peers.

    With q_i(j) = prod_m softmax_j(A[m, i]),  log_sum_i = sum_m logsumexp_j A[m, i, j] + log E_{j ~ q_i}[alpha_j].
    The mean of alpha over K draws is unbiased, so is the partition; alpha is bounded, so few draws suffice.
    Marginals: q + sum_k (w_k - 1/K) onehot(j_k), w = alpha / sum alpha: the 1/K makes them exact where alpha is constant.
    Work: M draws of (B, K), each a softmax and a multinomial, which dominate; and M(M-1)/2 look-ups of (B, K) in the pairs'
    tables, which are cheaper than summing the drawn rows (linear in M, but times d) up to M of about d.
    """
    num_peers, batch_size, _ = logits.shape
    q = logits.softmax(2)
    where = q.device if generator is None else generator.device
    draws = [torch.multinomial(q[m].to(where), num_samples, replacement=True, generator=generator).to(q.device)
             for m in range(num_peers)]
    log_weight = logits.new_zeros(batch_size, num_samples)
    for m in range(num_peers):
        for k in range(m + 1, num_peers):
            log_weight += log_alpha[m, k].flatten()[draws[m] * batch_size + draws[k]]
    log_mean = log_weight.logsumexp(1) - torch.tensor(num_samples, dtype=logits.dtype).log()
    log_sum = logits.logsumexp(2).sum(0) + log_mean
    surplus = log_weight.softmax(1) - 1 / num_samples                         # (B, K)
    for m in range(num_peers):
        q[m].scatter_add_(1, draws[m], surplus)
    return log_sum, q
