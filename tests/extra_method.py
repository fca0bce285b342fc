"""A method of one's own in a file of its own: clients go towards the mean of their heads, then train locally."""

from dataclasses import dataclass

import torch

from fedmuscle_core.aggregation import weighted_mean
from fedmuscle_core.checks import number
from fedmuscle_core.exchange import Stage
from fedmuscle_core.method import Method, by_metric


@dataclass(frozen=True)
class HeadMean(Method):
    """pull: how much of the way to the mean of those who are there."""

    name, label, group = "head_mean", "Mean of heads", "sharing"
    exchanges, needs = "heads up, their mean down", "heads of one shape"

    pull: float = 0.5

    def __post_init__(self):
        number("pull", self.pull, least=0)

    def play(self, server, round):
        sent = yield Stage("hand_in", server.present(round), lambda client: {})
        mean = weighted_mean(list(sent.values()), [1] * len(sent)) if sent else {}
        return by_metric((yield self.local_phases(server, round, lambda client: mean if client in sent else {})))

    def hand_in(self, client, message):
        return {name: value.detach().clone() for name, value in client.network.head.state_dict().items()}

    def local(self, client, message):
        with torch.no_grad():
            for name, value in client.network.head.named_parameters():
                value.lerp_(message.get(name, value), self.pull)
        return super().local(client, message)
