"""FedHeNN: the local objective has a further term that pulls a client's kernel of public batches to the mean kernel.

    loss = task loss + eta (1 - CKA(K_n, mean K)),   K_n = Z_n Z_n^T of a public batch, (B, B)

After Makhija et al. (2022); some public re-implementations add the similarity itself, which pushes clients apart.
"""

import torch

from ..client import embed, local_phase, public_batch
from ..losses import cka_loss
from ..placement import at_work
from ..seeds import generator
from ..server import kernel_mean
from .contrastive import full_batches


def play_round(federation, round):
    """All clients upload the kernels of the round's public batches and get the means back, then train locally.

    As many local steps carry the term as there are public batches in an epoch (all steps, where there are fewer), spread
    evenly: our choice, so that every method makes as many steps on public data.
    """
    settings, ledger = federation.settings, federation.ledger
    batches = full_batches(settings.public_size, settings.batch_size, generator(settings.seed, "contrastive", round))
    kernels = {client.index: [ledger.send(kernel, round=round, client=client.index, direction="up")
                              for kernel in public_kernels(client, settings, batches, round)]
               for client in federation.clients}
    means = [kernel_mean([kernels[index][number] for index in sorted(kernels)]) for number in range(len(batches))]
    losses, alignment = {}, {}
    for client in federation.clients:
        ledger.send(means, round=round, client=client.index, direction="down")
        terms = []
        losses[client.index] = local_phase(client, settings, round, kernel_term(client, settings, batches, means, round, terms))
        alignment[client.index] = sum(terms) / len(terms)
    return {"local_loss": losses, "kernel_loss": alignment}


@torch.no_grad()
def public_kernels(client, settings, batches, round):
    """The client's linear kernels (B, B) of the public batches."""
    found = []
    with at_work(client):
        for number, rows in enumerate(batches):
            features = embed(client, public_batch(client, rows, settings.augment, round, number), round, number)
            found.append(features @ features.T)
    return found


def kernel_term(client, settings, batches, means, round, terms):
    """The `extend` of `client.local_phase` that adds eta (1 - CKA); the terms' values are appended to `terms`."""
    def extend(loss, step):
        number = step.number * len(batches) // step.total
        if step.number and number == (step.number - 1) * len(batches) // step.total:
            return loss
        batch = public_batch(client, batches[number], settings.augment, round, number)
        term = cka_loss(embed(client, batch, "local", round, number), means[number].to(client.device))
        terms.append(term.item())
        return loss + settings.eta * term
    return extend
