"""All clients in this process, one after the other."""


class InProcess:
    """`ask(function, clients, message_of)` -> {client: reply}: the method's client function of that name, called for each of
    `clients` in turn with its message."""

    def __init__(self, clients, method):
        self.clients, self.method = clients, method

    def ask(self, function, clients, message_of):
        wanted, call = set(clients), getattr(self.method, function)
        return {client.name: call(client, message_of(client.name)) for client in self.clients if client.name in wanted}


def connect(federation):
    """The engine of a federation."""
    return InProcess(federation.clients, federation.method)
