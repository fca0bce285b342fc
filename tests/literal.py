"""Slow, literal twins of the formulas: plain loops over tuples, in float64, with nothing clever."""

import itertools

import torch


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def as_matrix(tau, size):
    return tau if isinstance(tau, torch.Tensor) else torch.full((size, size), float(tau), dtype=torch.float64)


def per_pair(num_peers, seed=0):
    """Random symmetric tau (M+1, M+1) and tau_prev (M, M) below it."""
    rng = torch.Generator().manual_seed(seed)
    tau = 0.2 + 0.3 * torch.rand(num_peers + 1, num_peers + 1, generator=rng, dtype=torch.float64)
    tau = (tau + tau.T) / 2
    share = 0.6 + 0.4 * torch.rand(num_peers, num_peers, generator=rng, dtype=torch.float64)
    return tau, tau[1:, 1:] * (share + share.T) / 2


def muscle_loops(anchor, peers, tau=0.2, tau_prev=0.15, learned=True):
    """(B,) losses; one Python loop per anchor and tuple, straight from the definition."""
    num_peers, batch_size = len(peers), len(anchor)
    anchor, peers = unit(anchor), [unit(peer) for peer in peers]
    tau, tau_prev = as_matrix(tau, num_peers + 1), as_matrix(tau_prev, num_peers)
    losses = []
    for i in range(batch_size):
        logits = {}
        for tuple_ in itertools.product(range(batch_size), repeat=num_peers):
            logit = sum(anchor[i] @ peers[m][tuple_[m]] / tau[0, m + 1] for m in range(num_peers))
            if learned:
                for m, k in itertools.combinations(range(num_peers), 2):
                    gamma = 1 / tau_prev[m, k] - 1 / tau[m + 1, k + 1]
                    logit = logit - gamma * (peers[m][tuple_[m]] @ peers[k][tuple_[k]])
            logits[tuple_] = logit
        losses.append(torch.logsumexp(torch.stack(list(logits.values())), 0) - logits[(i,) * num_peers])
    return torch.stack(losses)


def muscle_tuples(anchor, peers, tau=0.2, tau_prev=0.15, learned=True):
    """(B,) losses from S (B^M, d) and log alpha (B^M,), the paper's formulation, vectorised over tuples."""
    num_peers, batch_size = len(peers), len(anchor)
    anchor, peers = unit(anchor), [unit(peer) for peer in peers]
    tau, tau_prev = as_matrix(tau, num_peers + 1), as_matrix(tau_prev, num_peers)
    tuples = torch.tensor(list(itertools.product(range(batch_size), repeat=num_peers)))
    sums = sum(peers[m][tuples[:, m]] / tau[0, m + 1] for m in range(num_peers))
    log_alpha = torch.zeros(len(tuples), dtype=anchor.dtype)
    if learned:
        for m, k in itertools.combinations(range(num_peers), 2):
            gamma = 1 / tau_prev[m, k] - 1 / tau[m + 1, k + 1]
            log_alpha = log_alpha - gamma * (peers[m][tuples[:, m]] * peers[k][tuples[:, k]]).sum(1)
    logits = anchor @ sums.T + log_alpha
    own = [int((tuples == i).all(1).nonzero()) for i in range(batch_size)]
    return logits.logsumexp(1) - logits[range(batch_size), own]


def info_nce_loops(anchor, peer, tau):
    """(B,) InfoNCE losses by loops."""
    anchor, peer = unit(anchor), unit(peer)
    losses = []
    for i in range(len(anchor)):
        logits = torch.stack([anchor[i] @ peer[j] / tau for j in range(len(peer))])
        losses.append(torch.log(torch.exp(logits).sum()) - logits[i])
    return torch.stack(losses)


def gramian_loops(anchor, peers, tau, eps):
    """(B,) Gramian losses by loops over anchors and tuples; the volume from the eigenvalues of the Gram matrix."""
    anchor, peers = unit(anchor), [unit(peer) for peer in peers]
    batch_size = len(anchor)
    volume = torch.zeros(batch_size, batch_size, dtype=anchor.dtype)
    for i in range(batch_size):
        for j in range(batch_size):
            vectors = torch.stack([anchor[i], *[peer[j] for peer in peers]])
            volume[i, j] = torch.sqrt(torch.linalg.eigvalsh(vectors @ vectors.T).prod().clamp(min=0) + eps)
    losses = []
    for i in range(batch_size):
        row = torch.log(torch.exp(-volume[i] / tau).sum()) + volume[i, i] / tau
        column = torch.log(torch.exp(-volume[:, i] / tau).sum()) + volume[i, i] / tau
        losses.append((row + column) / 2)
    return torch.stack(losses)


def nt_xent_loops(first, second, tau):
    """Scalar NT-Xent by loops over the 2B views, each against every view but itself."""
    views = [unit(row) for row in (*first, *second)]
    count, losses = len(first), []
    for a, view in enumerate(views):
        twin = (a + count) % len(views)
        others = torch.stack([torch.exp(view @ other / tau) for b, other in enumerate(views) if b != a])
        losses.append(torch.log(others.sum()) - view @ views[twin] / tau)
    return torch.stack(losses).mean()


def cka_by_definition(features, kernel):
    """Centred kernel alignment with the centring matrix written out."""
    count = len(features)
    centring = torch.eye(count, dtype=features.dtype) - 1 / count
    own, other = centring @ features @ features.T @ centring, centring @ kernel @ centring
    product = sum((own[i] * other[i]).sum() for i in range(count))
    return product / (torch.sqrt((own ** 2).sum()) * torch.sqrt((other ** 2).sum()))


def votes_by_hand(votes, share):
    """Pseudo-label of each sample from lists of votes (clients x samples), by counting; -1: none."""
    labels = []
    for ballot in zip(*votes, strict=True):
        counts = {}
        for vote in ballot:
            if vote != -1:
                counts[vote] = counts.get(vote, 0) + 1
        ranked = sorted(counts.items(), key=lambda item: -item[1])
        wins = ranked and ranked[0][1] > share * len(ballot) and (len(ranked) == 1 or ranked[0][1] > ranked[1][1])
        labels.append(ranked[0][0] if wins else -1)
    return labels


def mean_by_loops(states, weights):
    """Weighted mean of states {name: tensor}, one number at a time."""
    found = {}
    for name, first in states[0].items():
        flat = [state[name].flatten().tolist() for state in states]
        values = [sum(weight * column[place] for weight, column in zip(weights, flat, strict=True)) / sum(weights)
                  for place in range(first.numel())]
        found[name] = torch.tensor(values, dtype=torch.float64).view(first.shape)
    return found


def soft_groups_by_loops(uploads, shift):
    """MaT-FL's weights: clamped, shifted cosines of the clients' differences to the plain mean, one pair at a time."""
    names = list(uploads[0].encoder)
    mean = mean_by_loops([upload.encoder for upload in uploads], [1] * len(uploads))
    rows = []
    for one in uploads:
        row = []
        for other in uploads:
            dot = sum(((one.encoder[name] - mean[name]) * (other.encoder[name] - mean[name])).sum() for name in names)
            norms = [sum((upload.encoder[name] - mean[name]).square().sum() for name in names).sqrt()
                     for upload in (one, other)]
            row.append(max(0.0, (dot / (norms[0] * norms[1])).item() + shift))
        rows.append([value / sum(row) for value in row])
    return torch.tensor(rows, dtype=torch.float64)
