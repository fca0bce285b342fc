"""Benchmarks: each prints ratios measured in one run, `python -m fedmuscle_core.benchmarks.loss` and others."""


def begun(federation, rounds):
    """The federation, its clients registered, ready for the first of so many rounds."""
    federation.connect()
    federation.server.rounds = rounds
    federation.begin()
    return federation


def play_round(federation, round):
    """One round of the federation's method, without the scores that `Federation.fit` notes after it."""
    return federation.play(federation.method.play(federation.server, round), round)
