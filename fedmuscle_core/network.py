"""A client's network in two halves: the representation model, which aligning methods train, and the task head."""

import torch
from torch import nn


class Network(nn.Module):
    """`representation`: inputs -> (B, d), the w_n of the papers; `head`: representations -> outputs of the task.

    As an encoder and a decoder, for methods that share parameters: outputs = decode(encode(inputs)).  Here the encoder is the
    representation model and the decoder the head; a subclass may cut elsewhere, e.g. where a head reads feature maps.
    draws: whether training passes may draw random numbers, as dropout does.
    """

    draws = True

    def __init__(self, representation, head):
        super().__init__()
        self.representation, self.head = representation, head

    def encode(self, inputs):
        return self.representation(inputs)

    def decode(self, features):
        return self.head(features)

    def forward(self, inputs):
        return self.decode(self.encode(inputs))

    def encoder(self):
        """The module whose parameters travel as the encoder's."""
        return self.representation

    def share_encoder(self, encoder):
        """Answer through the module `encoder` from now on."""
        self.representation = encoder

    def decoder(self):
        """The modules after the encoder that an answer goes through, as one; the parameters are the network's own."""
        return self.head


@torch.no_grad()
def in_batches(function, inputs, batch_size=256, device=None):
    """`function` over `inputs` (a tensor, or `data.Samples`) in slices, without gradients, results concatenated, in host
    memory.

    device: where the slices are computed, as they are if None."""
    slices = inputs.split(batch_size) if isinstance(inputs, torch.Tensor) else inputs.slices(batch_size)
    return torch.cat([function(part.to(device) if device else part).cpu() for part in slices])
