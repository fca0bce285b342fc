"""What a server makes of its clients' uploads: averages of parameters, of kernels, and counts of votes.

A state is {name: tensor}, as of `state_dict`.  E_c, D_c: encoder and decoder of client c of task t_c with n_c private samples.
"""

from typing import NamedTuple

import torch


class Upload(NamedTuple):
    """What one client sends, with what it registered: its name, task, number of private samples, encoder and decoder states.

    decoder: None where the method keeps decoders private; encoder: None where it is frozen.
    """

    client: int | str
    task: str
    samples: int
    encoder: dict | None
    decoder: dict | None


def trimmed_mean(states, drop):
    """Coordinate-wise trimmed mean of K states: the mean of what is left of each parameter's K values without the `drop`
    smallest and the `drop` largest, (1 / (K - 2 drop)) sum_{k = drop + 1}^{K - drop} theta_(k); in float64.

    After Yin et al. (2018), "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates".
    """
    kept = slice(drop, len(states) - drop)
    return {name: of_type(first, torch.stack([state[name] for state in states]).double().sort(0).values[kept].mean(0))
            for name, first in states[0].items()}


def median(states, weights):
    """Coordinate-wise median of K states, whatever their weights; of an even number the mean of the two in the middle."""
    return trimmed_mean(states, (len(states) - 1) // 2)


def mean_without_extremes(states, weights):
    """`trimmed_mean` without a fifth of the K states on each side (our choice), at least one where there are three or more,
    whatever their weights."""
    return trimmed_mean(states, max(len(states) // 5, int(len(states) > 2)))


def weighted_mean(states, weights):
    """sum_k w_k theta_k / sum_k w_k of states with the same names, parameter by parameter; integers, such as counters,
    rounded."""
    total = sum(weights)
    pairs = [(state, weight / total) for state, weight in zip(states, weights, strict=True)]
    return {name: of_type(states[0][name], sum(share * state[name] for state, share in pairs)) for name in states[0]}


def of_type(first, mean):
    """`mean` in the type of `first`, integers rounded."""
    return (mean if first.is_floating_point() else mean.round()).to(first.dtype)


# {name: function (states, weights) -> state}
AVERAGES = {"mean": weighted_mean, "median": median, "trimmed_mean": mean_without_extremes}


def mean_per_task(uploads, part, average=weighted_mean):
    """{task: sum over its clients of n_c theta_c / sum of n_c}; part: "encoder" or "decoder".  average: another one."""
    tasks = sorted({upload.task for upload in uploads})
    members = {task: [upload for upload in uploads if upload.task == task] for task in tasks}
    return {task: average([getattr(one, part) for one in members[task]], [one.samples for one in members[task]])
            for task in tasks}


def mean_over_tasks(uploads, average=weighted_mean):
    """M-Fed's encoder: the mean over tasks, each alike, of the encoders' weighted means within the task; or another average, of
    the averages within tasks."""
    means = list(mean_per_task(uploads, "encoder", average).values())
    return average(means, [1] * len(means))


def mean_over_clients(uploads, average=weighted_mean):
    """sum_c n_c E_c / sum_c n_c over all clients, whatever their task; average: another one."""
    return average([upload.encoder for upload in uploads], [upload.samples for upload in uploads])


def soft_groups(uploads, shift=0.0):
    """(clients, clients) weights of MaT-FL, rows sum to 1: max(0, cos(u_c, u_k) + shift), normalised; cos(u_c, u_c) = 1.

    u_c = E_c - mean of all E, as one vector: not the update of a round, what adds up over rounds.  Differences to a mean point
    away from each other, so with shift 0 clients that have little in common keep their own encoder.  Samples do not count.
    After Cai et al. (2023), "Many-Task Federated Learning", whose code has the shift as a parameter.
    """
    vectors = torch.stack([torch.cat([value.flatten() for value in upload.encoder.values()]) for upload in uploads])
    apart = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    scores = (apart @ apart.T).fill_diagonal_(1.0).add(shift).clamp(min=0)     # alone, a client is its own group
    return scores / scores.sum(1, keepdim=True)


def mean_by_groups(uploads, shift=0.0):
    """{client: sum_k g_ck E_k}, g from `soft_groups`: every client gets an encoder of its own."""
    weights, states = soft_groups(uploads, shift).tolist(), [upload.encoder for upload in uploads]
    return {upload.client: weighted_mean(states, row) for upload, row in zip(uploads, weights, strict=True)}


def kernel_mean(kernels):
    """FedHeNN's aggregate: the mean of the clients' kernel matrices, a list of (B, B)."""
    return torch.stack(kernels).mean(0)


def count_votes(votes, share):
    """Pseudo-labels from the votes of the clients of one label space, a list of equal-shaped integer tensors.

    votes: class indices, -1 for no vote; labels have their type.  A class becomes the label where strictly more clients
    chose it than any other and more than `share` of all these clients did; else -1.
    """
    most, label = torch.zeros_like(votes[0]), torch.full_like(votes[0], -1)
    tied = torch.zeros_like(votes[0], dtype=torch.bool)
    for name in range(max(int(vote.max()) for vote in votes) + 1):
        count = sum((vote == name).to(most.dtype) for vote in votes)
        tied = (tied | (count == most)) & ~(count > most)
        label = torch.where(count > most, name, label)
        most = torch.maximum(most, count)
    return torch.where(~tied & (most > share * len(votes)), label, -1)
