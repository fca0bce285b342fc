"""A node: it answers messages as one client, whose state is a file.  Every message may start a process of its own."""

from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from ...federation import client_state, load_client
from ...files import load_state, save_state
from .messages import packed, refuse_what_stays, unpacked

NOTHING_DONE = [0, 0]


def client_app(client_of, method, folder="state"):
    """A Flower `ClientApp` whose node answers as the client `client_of(context)`, which has joined a federation by `method`.

    folder: where the client's state is kept; relative to where the node was started.  Raises ValueError for a method that
    cannot travel.
    """
    from flwr.app import Message
    from flwr.clientapp import ClientApp

    refuse_what_stays(method)
    app = ClientApp()

    @app.query()
    def query(message, context):
        return Message(reply_to(client_of(context), method, folder, message.content), reply_to=message)

    return app


def reply_to(client, method, folder, record):
    """The replies of a client to a packed [number, safe, calls], calls [[function, message], ..]; its state is loaded from and
    kept in `folder`, whole or not at all.

    number: [of the run, of the message in it].  The first message of a run finds the client untrained.  The same message again
    gets the replies that it got, so that nothing is learnt twice; up to number `safe` of the run none comes again.  Without
    calls the client gives its name, [{"name", "number": of the last message done}], and is not changed.
    Raises ValueError for another message than the one of its number, and an older one than the last.
    """
    number, safe, calls = unpacked(record)
    path = state_path(folder, client)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):                                 # a node that was killed may have left one at work
        state = load_state(path) if path.is_file() else {"number": NOTHING_DONE}
        done, given = state["number"], state.get("given", {})                 # {number: [message, replies]}
        if number[0] != done[0]:
            given = {}
        if not calls:
            return packed([{"name": client.name, "number": done}])
        if given.get(number[1], [None])[0] == record.object_id:
            return packed(given[number[1]][1])
        if number <= done:
            raise ValueError(f"client {client.name}: got message {number}, expected one after {done}: it came late")
        client.join(client.seed, client.training, method.contrastive_lr)      # its tensors came one by one
        if number[0] == done[0]:
            load_client(client, state["client"])
        replies = [getattr(method, function)(client, message) for function, message in calls]
        given = {older: found for older, found in given.items() if older > safe}
        keep(folder, client, number, given | {number[1]: [record.object_id, replies]})
    return packed(replies)


def keep(folder, client, number, given):
    """Store a client's state after a message, and what it replied to that and to earlier ones that may come again."""
    save_state({"number": number, "given": given, "client": client_state(client)}, state_path(folder, client))


def learnt(client, folder="state"):
    """Put what a client has learnt into it.  Returns the client."""
    load_client(client, load_state(state_path(folder, client))["client"])
    return client


def state_path(folder, client):
    """Where a client's state is kept."""
    return Path(folder) / f"client-{quote(str(client.name), safe='')}.pt"
