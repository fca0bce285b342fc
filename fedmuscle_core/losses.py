"""The losses, as functions of representations.  Notation: N models in all, M = N - 1 peers, B samples, dimension d."""

import math
from functools import partial, wraps

import torch
import torch.nn.functional as F

from . import checks
from .tuple_sum import TupleLogSum, exact, sampled


def eager(loss):
    """`loss` outside of `torch.autocast`, which would take its products in half precision, and of compiled graphs."""
    @wraps(loss)
    def outside(*args, **named):
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break(msg=f"{loss.__name__}: got fullgraph=True, expected False, as it checks values")
        device = next((value.device.type for value in (*args, *named.values()) if isinstance(value, torch.Tensor)), "cpu")
        if not torch.is_autocast_enabled(device):
            return loss(*args, **named)
        with torch.autocast(device, enabled=False):
            return loss(*args, **named)
    return outside


def info_nce(anchor, peer, *, tau=0.2, normalize=True, reduction="mean"):
    """InfoNCE of `anchor` against one peer:  L_i = logsumexp_j(z_i . p_j / tau) - z_i . p_i / tau,  in nats.

    anchor, peer: (B, d); row i of both is public sample i.  Gradients flow to `anchor` only.
    normalize: scale rows to unit length first.  reduction: "mean" -> scalar, "none" -> (B,).
    Raises ValueError, naming the argument, on unequal shapes, NaN or infinity, integer tensors, tau <= 0.
    """
    checks.one_of("reduction", reduction, ("mean", "none"))
    anchor = checks.embeddings("anchor", anchor)
    peer = checks.embeddings("peer", peer, like=anchor)
    return muscle_loss(anchor, [peer], tau=tau, weighting="uniform", normalize=normalize, reduction=reduction)


@eager
def muscle_loss(anchor, peers, *, tau=0.2, tau_prev=0.15, weighting="learned", estimator="exact",
                num_samples=64, generator=None, normalize=True, reduction="mean"):
    """The Muscle loss: contrast the anchor with all B^M tuples of its M peers' representations at once, in nats.

        logit_i(j)  = sum_m z_i . z^m_{j_m} / tau_m  +  log alpha_j           j = (j_1..j_M), one sample index per peer
        log alpha_j = - sum_{m<k} gamma_mk z^m_{j_m} . z^k_{j_k},             gamma = 1/tau_prev - 1/tau >= 0
        L_i         = logsumexp over all tuples j of logit_i(j)  -  logit_i((i, .., i))

    anchor: (B, d).  peers: (M, B, d), or a sequence of M tensors (B, d); constants, gradients flow to `anchor` only.
    tau: temperature of all pairs of the M + 1 models, a number or a symmetric (M+1, M+1) matrix, the anchor first; constant.
    tau_prev: temperature of the pairs of peers, a number or (M, M), nowhere above theirs in `tau`.
    weighting: "learned" as above, or "uniform", alpha = 1, the sum of the M pairwise InfoNCE losses (`tau_prev` unused).
    estimator: "exact" (about B^(M+1) multiply-adds; a handful of tensors of M^2 B^2 numbers, or of 2 million where those are
    fewer) or "sampled" (`num_samples` tuples per anchor drawn with `generator`; for many peers; off by about 1 % at the
    default temperatures, more where they or `tau_prev` beside `tau` are low, measured in `tuple_sum.sampled`).
    normalize: scale rows to unit length first.  reduction: "mean" -> scalar, "none" -> (B,).
    Half precision and `torch.autocast`: computed, and returned, in float32.
    Second derivatives (B^M numbers in memory) and `torch.func` transforms: of "exact"; of "sampled" first derivatives, by
    reverse mode; `torch.vmap` over the loss, and `torch.compile` with fullgraph=True, are refused.

    >>> z = torch.eye(4)                           # four samples that three models tell apart in the same way
    >>> round(muscle_loss(z, [z, z]).item(), 4), round(muscle_loss(z, [z, z], weighting="uniform").item(), 4)
    (0.1953, 0.04)

    Raises ValueError naming the argument, what came and what was expected: unequal B or d, NaN or infinity, integer
    tensors, a row of zeros (which has no direction) or of a norm whose square leaves the floats, M = 0, a temperature that is
    not above 0 or so small that the logits leave the floats, tau_prev above tau or so small that alpha leaves the range of
    float64, an unknown weighting, estimator or reduction.
    """
    checks.one_of("weighting", weighting, ("learned", "uniform"))
    checks.one_of("estimator", estimator, ("exact", "sampled"))
    checks.one_of("reduction", reduction, ("mean", "none"))
    checks.positive_int("num_samples", num_samples)
    checks.boolean("normalize", normalize)
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator: got {generator!r}, expected a torch.Generator or None")
    anchor, peers = _rows(anchor, peers, normalize)
    if weighting == "learned":
        tau, tau_prev = checks.temperatures(tau, tau_prev, len(peers), like=anchor)
    else:
        checks.temperature("tau_prev", tau_prev, len(peers), like=anchor)
        tau = checks.temperature("tau", tau, len(peers) + 1, like=anchor)
    logits = anchor @ peers.mT / tau[0, 1:, None, None].to(anchor)            # (M, B, B)
    _check_logits(logits, anchor=anchor, peers=peers)
    positive = logits.diagonal(dim1=1, dim2=2).sum(0)                         # (B,)
    if weighting == "uniform":
        loss = logits.logsumexp(2).sum(0) - positive
    else:
        log_alpha = pair_log_alpha(peers, tau, tau_prev)                      # (M, M, B, B)
        evaluate = exact if estimator == "exact" else partial(sampled, num_samples=num_samples, generator=generator)
        own = log_alpha.diagonal(dim1=2, dim2=3).sum((0, 1))                  # log alpha of the tuple (i, .., i)
        loss = TupleLogSum.apply(logits, log_alpha, evaluate)[0] - positive - own
    return loss.mean() if reduction == "mean" else loss


def pair_log_alpha(peers, tau, tau_prev):
    """-gamma_mk z^m_j . z^k_l of all pairs of peers m < k: (M, M, B, B), zero on and below the diagonal of (M, M).

    peers: (M, B, d); tau: (M+1, M+1) and tau_prev: (M, M) from `checks.temperatures`.
    """
    num_peers, batch_size, dim = peers.shape
    gamma = (1 / tau_prev - 1 / tau[1:, 1:]).triu(1).to(peers)
    rows = peers.reshape(-1, dim)                                             # (M * B, d)
    gram = (rows @ rows.T).view(num_peers, batch_size, num_peers, batch_size).transpose(1, 2)
    return gram * -gamma[:, :, None, None]


@eager
def gramian_loss(anchor, peers, *, tau=0.2, eps=1e-6, normalize=True, reduction="mean"):
    """Gramian contrastive loss (GRAM): the volume that anchor i spans with the M peers' rows j, contrasted both ways.

        V_ij = sqrt(det G_ij + eps),  G_ij the (M+1, M+1) Gram matrix of (z_i, z^1_j, .., z^M_j)
        L_i  = 1/2 [ CE(-V_i. / tau, i) + CE(-V_.i / tau, i) ],  in nats

    Shapes, types, `normalize`, `reduction`, errors and the flow of gradients as for `muscle_loss`.  eps keeps the gradient
    finite where the volume is 0.  Memory: a handful of tensors of B^2 (M+1)^2 numbers.
    """
    checks.one_of("reduction", reduction, ("mean", "none"))
    checks.boolean("normalize", normalize)
    anchor, peers = _rows(anchor, peers, normalize)
    checks.number("eps", eps, least=torch.finfo(anchor.dtype).tiny)
    tau = checks.temperature("tau", tau, 1, like=anchor).to(anchor)
    num_peers, batch_size, _ = peers.shape
    among = torch.einsum("mjd,kjd->jmk", peers, peers)                        # (B, M, M)
    across = torch.einsum("id,mjd->ijm", anchor, peers)                       # (B, B, M)
    own = (anchor * anchor).sum(1)[:, None, None, None].expand(-1, batch_size, 1, 1)
    gram = torch.cat([torch.cat([own, across[:, :, None]], 3),
                      torch.cat([across[..., None], among.expand(batch_size, -1, -1, -1)], 3)], 2)
    squares = torch.linalg.det(gram)                                          # (B, B), of the volumes
    flat = squares.detach() <= torch.finfo(squares.dtype).tiny
    if flat.any():                                                            # at its least, a square has the slope 0
        squares = torch.linalg.det(torch.where(flat[..., None, None], gram.detach(), gram))
    logits = -(squares.clamp(min=0) + eps).sqrt() / tau                       # (B, B)
    _check_logits(logits, anchor=anchor, peers=peers)
    rows = torch.arange(batch_size, device=anchor.device)
    loss = (F.cross_entropy(logits, rows, reduction="none") + F.cross_entropy(logits.T, rows, reduction="none")) / 2
    return loss.mean() if reduction == "mean" else loss


@eager
def nt_xent(first, second, *, tau=0.2):
    """NT-Xent (SimCLR) of two views of the same B samples: every view must find its twin among the 2B - 1 others, in nats.

        L = mean over the 2B views a of  logsumexp_{b != a}(z_a . z_b / tau) - z_a . z_twin(a) / tau

    first, second: (B, d), scaled to unit length here; gradients flow to both.  Types and errors as for `info_nce`.
    """
    first = _full(checks.embeddings("first", first))
    second = checks.embeddings("second", second, like=first, called="first").to(first.dtype)
    views = torch.cat([checks.unit_rows("first", first), checks.unit_rows("second", second)])       # (2B, d)
    logits = views @ views.T / checks.temperature("tau", tau, 1, like=views).to(views)
    _check_logits(logits, first=first, second=second)
    logits = logits.masked_fill(torch.eye(len(views), dtype=torch.bool, device=views.device), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(views), device=views.device).roll(len(first)))


@eager
def cka_loss(features, kernel):
    """1 - CKA(K, kernel) for the linear kernel K = features features^T: in [0, 1], 0 where the kernels agree.

        CKA(K, L) = <HKH, HLH> / (|HKH| |HLH|),  H = I - 1/B, Frobenius products

    features: (B, d); kernel: (B, B), constant.  Gradients flow to `features`.  1, without a gradient, where either is the same
    for all samples.  Types as for `muscle_loss`.  Raises ValueError on shapes, NaN or infinity.
    """
    features = near_one(checks.finite("features", _full(checks.embeddings("features", features))))
    checks.embeddings("kernel", kernel)
    if kernel.shape != (len(features), len(features)):
        raise ValueError(f"kernel: got shape {tuple(kernel.shape)}, expected ({len(features)}, {len(features)}) as features "
                         "has rows")
    kernel = near_one(checks.finite("kernel", kernel.detach().to(features)))
    own = features - features.mean(0)
    own, other = own @ own.T, kernel                                          # centring one side centres the product
    other = other - other.mean(0) - other.mean(1, keepdim=True) + other.mean()
    return 1 - (own * other).sum() / (own.norm() * other.norm()).clamp(min=torch.finfo(own.dtype).tiny)


def mi_lower_bound(loss, batch_size, num_peers):
    """M log B - E[L], in nats: the paper's Theorem 1 states it as a lower bound of I(z^n; {z^m}).

    loss: number or tensor of Muscle losses, averaged.  For one peer it is the InfoNCE bound.  For M >= 2 it can exceed
    the information, because the negatives are tuples of peers' samples drawn independently of one another: see
    `gaussians.excess_over_information` and notebook 01, where both sides are known.
    """
    checks.positive_int("batch_size", batch_size)
    checks.positive_int("num_peers", num_peers)
    try:
        mean = loss.mean().item() if isinstance(loss, torch.Tensor) else float(loss)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"loss: got {loss!r}, expected a number or a floating-point tensor") from error
    if not math.isfinite(mean):
        raise ValueError(f"loss: got mean {mean}, expected a finite number")
    return num_peers * math.log(batch_size) - mean


def near_one(x, *, rows=False):
    """x, or each of its `rows`, over the power of two below its largest entry: no square leaves the range, no bit is lost."""
    largest = x.detach().abs().amax(-1, keepdim=True) if rows else x.detach().abs().amax()
    return x / torch.exp2((torch.frexp(largest).exponent - 1).to(x.dtype))


def _full(rows):
    """`rows` in a type of at least 32 bits."""
    return rows.float() if rows.itemsize < 4 else rows


def _rows(anchor, peers, normalize):
    """Anchor (B, d) and peers (M, B, d) of one floating-point type of at least 32 bits, of unit length if `normalize`."""
    anchor = _full(checks.embeddings("anchor", anchor))
    peers = checks.peer_stack(peers, anchor)
    return (checks.unit_rows("anchor", anchor), checks.unit_rows("peers", peers)) if normalize else (anchor, peers)


def _check_logits(logits, **rows):
    """ValueError unless sums of M of the `logits` are finite; rows: what they are made of, by the names of the arguments."""
    most = torch.finfo(logits.dtype).max / (4 * len(logits))
    if not checks.true_of(next(iter(rows)), torch.linalg.vector_norm(logits.detach(), torch.inf) <= most):
        for name, value in rows.items():
            checks.finite(name, value)
        raise ValueError(f"tau: got logits beyond {most:.1g}, expected larger temperatures or shorter rows")
