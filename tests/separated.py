"""Engines: one whose clients are apart, so that nothing but what may pass passes, and one that does not reach them all."""

import torch

from fedmuscle_core.engines.in_process import InProcess


def copied(value):
    """A copy of a message that shares no memory with it; AssertionError where it holds anything but tensors without a graph,
    numbers, words, None, and lists, tuples and dicts of these."""
    if isinstance(value, torch.Tensor):
        assert not value.requires_grad, "a tensor with its graph"
        return value.clone()
    if type(value) is dict:
        return {copied(name): copied(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(copied, value))
    assert value is None or type(value) in (bool, int, float, str), f"got {type(value).__name__} in a message"
    return value


class Separated:
    """A client has its network and data during its own turn alone.  Nothing is copied for the functions `whole`."""

    def __init__(self, clients, method, whole=("lend",)):
        self.clients, self.method, self.whole = {client.name: client for client in clients}, method, whole
        self.kept = {name: dict(vars(client)) for name, client in self.clients.items()}
        for client in clients:
            vars(client).clear()

    def names(self):
        return list(self.clients)

    def ask(self, stages):
        """All messages are written before any client reads one: what goes along cannot depend on a reply of the same go."""
        written = [(stage, {name: copied(stage.message_of(name)) for name in stage.clients}) for stage in stages]
        return [{name: self.answer(stage.function, name, message) for name, message in messages.items()}
                for stage, messages in written]

    def answer(self, function, name, message):
        client = self.clients[name]
        vars(client).update(self.kept.pop(name))
        reply = getattr(self.method, function)(client, message)
        self.kept[name] = dict(vars(client))
        vars(client).clear()
        return reply if function in self.whole else copied(reply)


class Losing(InProcess):
    """After round `done` and until the next one ends the clients `lost` get no message and do not answer."""

    def __init__(self, federation, lost, done=1):
        super().__init__(federation.clients, federation.method)
        self.federation, self.lost, self.done = federation, lost, done

    def ask(self, stages):
        if self.federation.round == self.done and self.federation.begun:
            stages = [stage._replace(clients=[client for client in stage.clients if client not in self.lost])
                      for stage in stages]
        return super().ask(stages)


def connect(federation):
    return Separated(federation.clients, federation.method)
