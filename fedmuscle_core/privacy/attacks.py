"""Attacks of whoever reads uploads, as functions of what is read.

Membership: was a sample in the private set that a client trained on?  One number a sample, higher where it looks like a member,
then the likelihood ratio of Carlini et al. (2022), "Membership inference attacks from first principles", against federations in
which the attacker knows the answer.  Reported at low false-positive rates, as an attack that is right about few people for sure
harms them.  Then what follows for a client's class mix, its task, its peers' representations, and its pictures.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..checks import number

RATES = (0.001, 0.01, 0.1)     # of false positives


def detection(scores, member):
    """{"auc", "tpr at 0.1 % fpr", ..}: how well scores tell members from others, both flattened.

    ValueError where there are no members or no others, or NaN.
    """
    scores, member = np.asarray(scores, dtype=float).ravel(), np.asarray(member, dtype=bool).ravel()
    if scores.shape != member.shape or np.isnan(scores).any() or member.all() or not member.any():
        raise ValueError(f"scores, member: got {scores.shape} and {member.shape} with {member.sum()} members, expected a "
                         "number for each sample, members and others")
    false, true, _ = roc_curve(member, scores, drop_intermediate=False)
    return {"auc": float(roc_auc_score(member, scores))} | {
        f"tpr at {100 * rate:g} % fpr": float(true[false <= rate].max()) for rate in RATES}


def detection_interval(ratios, member, name, resamples=200, seed=0):
    """(value, low, high) of one of `detection`'s numbers, 95 %, by resampling federations, the rows of both arrays (K, n)."""
    rng, ratios, member = np.random.default_rng(seed), np.asarray(ratios), np.asarray(member, dtype=bool)
    found = []
    for _ in range(resamples):
        rows = rng.integers(len(ratios), size=len(ratios))
        found.append(detection(ratios[rows], member[rows])[name])
    return detection(ratios, member)[name], *(float(value) for value in np.quantile(found, (0.025, 0.975)))


def likelihood_ratios(values, member):
    """(K, n) log-likelihood ratios of membership, of n samples in each of K federations.

    values: (K, n) what was read of each sample in each federation; member: (K, n) bool.  For federation k, the sample's values
    in the other federations are fitted by a normal law where it was a member and by another where it was not; their spreads
    are those of all samples together, as few federations tell little of a single one's.
    ValueError where a sample was not in three federations or more, and out of as many.
    """
    values, member = np.asarray(values, dtype=float), np.asarray(member, dtype=bool)
    inside, outside = member.sum(0), (~member).sum(0)
    if values.shape != member.shape or min(inside.min(), outside.min()) < 3:
        raise ValueError(f"member: got {values.shape} and {member.shape} with a sample that was in {inside.min()}, or out of "
                         f"{outside.min()} federations, expected each in three or more and out of as many")
    means, spreads = {}, {}
    for name, chosen in (("in", member), ("out", ~member)):
        count, total = chosen.sum(0), np.where(chosen, values, 0).sum(0)
        means[name] = (total - np.where(chosen, values, 0)) / (count - chosen)                # without the federation itself
        apart = np.where(chosen, values - total / count, 0)
        spreads[name] = np.sqrt(np.square(apart).sum() / (chosen.sum() - values.shape[1]))
    logs = {name: stats.norm.logpdf(values, means[name], max(spreads[name], 1e-12)) for name in means}
    return logs["in"] - logs["out"]


def confidence(logits, targets):
    """(n,) log p_y - log (1 - p_y) of the true class y, from logits (n, classes); sum over labels for several."""
    if targets.ndim == 2:
        return (logits * (2 * targets - 1)).sum(1)
    own = F.one_hot(targets.long(), logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(1)


def margin(kernel, classes):
    """(n,) mean similarity to the other samples of the same class minus that to samples of others, from a kernel (n, n): what
    representations, or kernels, tell without any head.  nan where a class has one sample."""
    same = classes[:, None] == classes[None]
    own = same & ~torch.eye(len(classes), dtype=torch.bool)
    return (kernel * own).sum(1) / own.sum(1) - (kernel * ~same).sum(1) / (~same).sum(1)


def ridge_confidence(kernel, classes, weight=10.0):
    """(n,) `confidence` in a sample's class of a ridge head that whoever reads representations fits on the n - 1 others, whose
    classes she knows.

    kernel: (n, n) inner products, which are all that the head needs; classes: (n,).  With Y the one-hot classes and
    H = K (K + weight I)^-1, the scores of sample i by a head that was fitted without it are  (H Y - H_ii Y)_i / (1 - H_ii);
    they are taken in units of their spread over all samples and classes.
    ValueError unless the kernel is (n, n), with two classes or more.
    """
    names, places = classes.unique(return_inverse=True)
    if kernel.shape != (len(classes), len(classes)) or len(names) < 2:
        raise ValueError(f"kernel, classes: got {tuple(kernel.shape)} and {len(names)} classes of {len(classes)} samples, "
                         "expected (n, n) and two classes or more")
    wanted, kernel = F.one_hot(places, len(names)).double(), kernel.double()
    hat = torch.linalg.solve(kernel + number("weight", weight, above=0) * torch.eye(len(kernel), dtype=kernel.dtype), kernel)
    own = hat.diagonal()[:, None]
    scores = (hat @ wanted - own * wanted) / (1 - own)
    return confidence((scores - scores.mean()) / scores.std(), places)


def mix_correlations(ratios, member, classes, least=3):
    """(K,) how well a client's class mix is guessed in each of K federations: Spearman's rank correlation, over the classes
    with `least` candidates or more, of a class's mean membership ratio and the share of its candidates that are members; nan
    where all shares, or all guesses, are equal.

    ratios: (K, n); member: (K, n) bool; classes: (n,) of the candidates.  ValueError unless two classes have as many.
    """
    ratios, member, classes = np.asarray(ratios, dtype=float), np.asarray(member, dtype=float), np.asarray(classes)
    frequent = [name for name in np.unique(classes) if (classes == name).sum() >= least]
    if ratios.shape != member.shape or ratios.shape[1:] != classes.shape or len(frequent) < 2:
        raise ValueError(f"classes: got {classes.shape} with {len(frequent)} of {least} candidates or more, beside "
                         f"{ratios.shape} and {member.shape}, expected one a candidate and two such classes")
    guessed, true = (np.stack([rows[:, classes == name].mean(1) for name in frequent], 1) for rows in (ratios, member))
    varied = [len(set(one)) > 1 and len(set(other)) > 1 for one, other in zip(guessed, true, strict=True)]
    return np.array([stats.spearmanr(one, other).statistic if both else np.nan
                     for one, other, both in zip(guessed, true, varied, strict=True)])


def guessed_tasks(probes):
    """{client: the task that its representations are best for}; probes: {client: {task: share of a probe's answers that they
    tell}}.

    Tasks differ in how easy they are, so shares are held against the other clients': less their mean over clients, in units
    of their spread.  ValueError unless there are two clients or more with shares of the same tasks.
    """
    tasks = list(next(iter(probes.values()), {}))
    if len(probes) < 2 or any(set(one) != set(tasks) for one in probes.values()):
        raise ValueError(f"probes: got {probes}, expected two clients or more with the same tasks")
    shares = np.array([[one[task] for task in tasks] for one in probes.values()], dtype=float)
    apart = (shares - shares.mean(0)) / np.maximum(shares.std(0), 1e-9)
    return {client: tasks[place] for client, place in zip(probes, apart.argmax(1), strict=True)}


def rows_of_sums(sums, num_peers, batch_size, tau):
    """(M, B, d) what the sums over tuples, as the protocol "tuples" sends them, tell of each peer's rows.

    sums: (B^M, d), S_j = sum_m z^m_{j_m} / tau, tuples in lexicographic order, rows z of unit length.  Two tuples that differ
    in one place give the difference of two rows of one peer,  D_j = z_j - z_0;  as both have length 1,
    z_0 . D_j = -|D_j|^2 / 2,  which tells z_0 but for its part at right angles to all differences.  That part, the same for all
    rows of a peer, is left out here; with more rows than dimensions there is none.
    """
    grid = sums.double().view(*[batch_size] * num_peers, -1) * tau
    found = []
    for m in range(num_peers):
        rows = grid[tuple(slice(None) if place == m else 0 for place in range(num_peers))]
        differences = rows[1:] - rows[0]
        first = torch.linalg.pinv(differences) @ (-differences.square().sum(1) / 2)
        found.append(torch.cat([first[None], first + differences]))
    return torch.stack(found)


def grams_of_sums(sums, num_peers, batch_size, tau):
    """(M, B, B) inner products of each peer's rows, exact whatever the dimension:  z_j . z_k = 1 - |D_j - D_k|^2 / 2."""
    rows = rows_of_sums(sums, num_peers, batch_size, tau)
    return 1 - (rows[:, :, None] - rows[:, None]).square().sum(3) / 2


def inverted(network, task, update, target, shape, steps=300, rate=0.1, smooth=1e-3, seed=0):
    """(shape) inputs whose gradient points along an `update`, a vector over the encoder's parameters, the negative gradient up
    to its length: the inversion of Geiping et al. (2020), by the cosine and total variation.  target: the samples' answers,
    known.

    Returns (inputs in [0, 1], the last cosine).
    """
    rng = torch.Generator().manual_seed(seed)
    guess = torch.rand(shape, generator=rng).requires_grad_()
    parameters = [parameter for parameter in network.encoder().parameters() if parameter.requires_grad]
    optimizer, cosine = torch.optim.Adam([guess], lr=rate), 0.0
    network.eval()
    for _ in range(steps):
        with sdpa_kernel(SDPBackend.MATH):                                    # the others have no second derivatives
            loss = task.loss(network(guess), target)
            gradient = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
        similar = F.cosine_similarity(-torch.cat([part.flatten() for part in gradient]), update, dim=0)
        variation = sum(guess.diff(dim=dim).abs().mean() for dim in (-1, -2))
        (guess.grad,) = torch.autograd.grad(1 - similar + smooth * variation, guess)
        optimizer.step()
        with torch.no_grad():
            guess.clamp_(0, 1)
        cosine = similar.item()
    return guess.detach(), cosine


def psnr(found, truth):
    """Peak signal-to-noise ratio in dB of images in [0, 1]: -10 log10 of the mean squared difference."""
    return -10 * torch.log10((found - truth).square().mean().clamp(min=1e-12)).item()
