"""The server's part: draw every client's peers, set the temperatures of their pairs, aggregate kernels and votes."""

import torch


def choose_peers(clients, num_peers, rng):
    """For each client, `num_peers` of the others at random: {client: sorted list of peers}.

    clients: their indices, in any order; rng: `torch.Generator`.  Raises ValueError unless 1 <= num_peers < len(clients).
    """
    clients = sorted(clients)
    if not 1 <= num_peers < len(clients):
        raise ValueError(f"num_peers: got {num_peers}, expected 1 to {len(clients) - 1} with {len(clients)} clients")
    chosen = {}
    for client in clients:
        others = [other for other in clients if other != client]
        picks = torch.randperm(len(others), generator=rng)[:num_peers]
        chosen[client] = sorted(others[pick] for pick in picks)
    return chosen


def pair_temperatures(settings, kinds):
    """(tau, tau_prev) for a client and its M peers, whose kinds come in that order, the client's own first.

    kinds: their modalities, or their tasks, as `settings.distant` says.

    Numbers, unless `settings.tau_cross` gives pairs of different kinds a temperature of their own: then the (M+1, M+1)
    and (M, M) matrices that `losses.muscle_loss` takes, with tau_prev in the same ratio to tau for every pair.
    """
    if settings.tau_cross is None or len(set(kinds)) == 1:
        return settings.tau, settings.tau_prev
    differ = torch.tensor([[own != other for other in kinds] for own in kinds])
    tau = torch.where(differ, settings.tau_cross, settings.tau).double()
    return tau, tau[1:, 1:] * (settings.tau_prev / settings.tau)


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
