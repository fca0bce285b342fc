"""Runs and single rounds of federations, for tests."""

from fedmuscle_core.experiments.build import build
from fedmuscle_core.experiments.runs import one_thread


def fit(settings, parked=None, reverse=False):
    """(history, federation) of `settings`, all rounds played."""
    with one_thread():
        federation = build(settings, parked)
        if reverse:
            federation.clients.reverse()
        return federation.fit(settings.rounds, progress=False), federation


def begun(settings):
    """The federation of `settings`, ready for its first round."""
    federation = build(settings)
    return begin(federation, settings.rounds)


def begin(federation, rounds):
    """Ready for the first of so many rounds."""
    federation.connect()
    federation.server.rounds = rounds
    with one_thread():
        federation.begin()
    return federation


def play(federation, round):
    """What one round of the federation's method returns."""
    federation.server.left_out = {}
    with one_thread():
        return federation.play(federation.method.play(federation.server, round), round)


def played(settings, rounds=1, before_round=None):
    """(federation, what each round returned); before_round: function (federation, round)."""
    federation, found = begun(settings), []
    for round in range(1, rounds + 1):
        if before_round:
            before_round(federation, round)
        found.append(play(federation, round))
    return federation, found
