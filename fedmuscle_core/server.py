"""The server's part of a contrastive step: draw every client's peers and send what their loss needs."""

import torch

from .exchange import downlink


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


def serve(uploads, peers_of, client, settings, weighting="learned"):
    """Payload for `client` from its peers' uploads ({client index: (B, d)}), in the protocol of the settings."""
    peers = torch.stack([uploads[peer] for peer in peers_of[client]])
    return downlink(peers, settings.protocol, settings.tau, settings.tau_prev, weighting)
