"""An engine whose clients are apart, and what may pass between them and the server."""

import torch


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

    def ask(self, stages):
        return [{name: self.answer(stage.function, name, copied(stage.message_of(name))) for name in stage.clients}
                for stage in stages]

    def answer(self, function, name, message):
        client = self.clients[name]
        vars(client).update(self.kept.pop(name))
        reply = getattr(self.method, function)(client, message)
        self.kept[name] = dict(vars(client))
        vars(client).clear()
        return reply if function in self.whole else copied(reply)


def connect(federation):
    return Separated(federation.clients, federation.method)
