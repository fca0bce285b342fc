"""All clients in this process, one after the other."""


class InProcess:
    """`ask(stages)` -> [{client: reply} of each]: the method's client functions that `exchange.Stage`s name, called for one
    client after the other, for each all of its stages in order."""

    def __init__(self, clients, method):
        self.clients, self.method = clients, method

    def names(self):
        return [client.name for client in self.clients]

    def ask(self, stages):
        replies = [{} for _ in stages]
        for client in self.clients:
            for stage, found in zip(stages, replies, strict=True):
                if client.name in stage.clients:
                    call = getattr(self.method, stage.function)
                    found[client.name] = call(client, stage.message_of(client.name))
        return replies


def connect(federation):
    """The engine of a federation."""
    return InProcess(federation.clients, federation.method)
