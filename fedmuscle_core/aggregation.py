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


def weighted_mean(states, weights):
    """sum_k w_k theta_k / sum_k w_k of states with the same names, parameter by parameter; integers, such as counters,
    rounded."""
    total = sum(weights)
    pairs = [(state, weight / total) for state, weight in zip(states, weights, strict=True)]
    return {name: of_type(states[0][name], sum(share * state[name] for state, share in pairs)) for name in states[0]}


def of_type(first, mean):
    """`mean` in the type of `first`."""
    return mean if mean.dtype == first.dtype else mean.round().to(first.dtype)


def mean_per_task(uploads, part):
    """{task: sum over its clients of n_c theta_c / sum of n_c}; part: "encoder" or "decoder"."""
    tasks = sorted({upload.task for upload in uploads})
    members = {task: [upload for upload in uploads if upload.task == task] for task in tasks}
    return {task: weighted_mean([getattr(one, part) for one in members[task]], [one.samples for one in members[task]])
            for task in tasks}


def mean_over_tasks(uploads):
    """M-Fed's encoder: the mean over tasks, each alike, of the encoders' weighted means within the task."""
    means = list(mean_per_task(uploads, "encoder").values())
    return weighted_mean(means, [1] * len(means))


def mean_over_clients(uploads):
    """sum_c n_c E_c / sum_c n_c over all clients, whatever their task."""
    return weighted_mean([upload.encoder for upload in uploads], [upload.samples for upload in uploads])


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
