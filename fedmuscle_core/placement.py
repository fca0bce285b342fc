"""Where a client's network lives: its optimisers over flat tensors, and its way to the accelerator and back."""

import contextlib

import torch


def flat_optimizers(network, local_lr, contrastive_lr):
    """AdamW of the whole network and AdamW of its representation model, each over one flat tensor.

    Small networks have many small tensors, and an optimiser's work per tensor would cost a tenth of every step.  All trainable
    parameters and gradients become views of two flat tensors, those of the representation model first; the updates are the
    same.
    """
    flat, grad = flatten(network)
    representation = sum(p.numel() for p in network.representation.parameters() if p.requires_grad)
    optimizers = []
    for size, lr in ((len(flat), local_lr), (representation, contrastive_lr)):
        view = torch.nn.Parameter(flat[:size])
        view.grad = grad[:size]
        optimizers.append(torch.optim.AdamW([view], lr=lr, fused=True))
    return optimizers


def flatten(network):
    """(flat parameters, flat gradients, zero) of which the network's trainable parameters and their gradients become views."""
    found = [p for part in (network.representation, network.head) for p in part.parameters() if p.requires_grad]
    parameters = list({id(parameter): parameter for parameter in found}.values())             # one that is shared counts once
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    grad, end = torch.zeros_like(flat), 0
    for parameter in parameters:
        start, end = end, end + parameter.numel()
        parameter.data, parameter.grad = flat[start:end].view_as(parameter), grad[start:end].view_as(parameter)
    return flat, grad


def move(client, device):
    """The client's network and the state of its optimisers to `device`; values and updates stay the same."""
    client.network.to(device)
    flat, grad = flatten(client.network)
    for optimizer in (client.local_optimizer, client.contrastive_optimizer):
        (view,) = optimizer.param_groups[0]["params"]
        size = view.numel()
        view.data, view.grad = flat[:size], None
        view.grad = grad[:size]
        for name, value in optimizer.state.get(view, {}).items():
            optimizer.state[view][name] = value.to(device)
    client.device = torch.device(device)


@contextlib.contextmanager
def at_work(client):
    """Context in which the client is on the device it works on; one that is `offload`ed returns to host memory afterwards."""
    if not client.offload:
        yield client
        return
    move(client, client.works_on)
    try:
        yield client
    finally:
        move(client, "cpu")
