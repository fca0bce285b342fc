"""The claims of data/PREDICTIONS.md as runs: who is compared with whom, on which seeds."""

from dataclasses import dataclass

from .profiles import profile_settings

SEEDS = tuple(range(10, 20))
PAPER_TAU = {"tau": 0.2, "tau_prev": 0.15}


@dataclass(frozen=True)
class Claim:
    """`first` is above `second`, each (method, changes to what was tuned).  expected: whether we said that this would show."""

    number: int
    text: str
    first: tuple
    second: tuple
    expected: bool
    setup: str = "embedded1"

    def runs(self, profile, seeds=None):
        """(settings of the first, settings of the second), a seed each."""
        return tuple(profile_settings(profile, self.setup, method, list(seeds or SEEDS), **changes)
                     for method, changes in (self.first, self.second))


FEDMUSCLE = ("fedmuscle", {})
CLAIMS = (
    Claim(1, "FedMuscle, tuned, is above Local, tuned", FEDMUSCLE, ("local", {}), True),
    Claim(2, "learned alpha is above alpha = 1 where both have tau = 0.2 (tau_prev 0.15) and tuned rates",
          ("fedmuscle", PAPER_TAU), ("pairwise", {"tau": 0.2}), True),
    Claim(3, "FedMuscle is above alpha = 1 where tau is tuned for both", FEDMUSCLE, ("pairwise", {}), False),
    Claim(4, "FedMuscle is above SimCLR with as many steps, both tuned", FEDMUSCLE, ("simclr", {}), False),
    Claim(5, "M = 3 is above M = 1", FEDMUSCLE, ("fedmuscle", {"num_peers": 1}), True),
)


def claimed(profile, seeds=None, claims=CLAIMS):
    """The distinct runs that the claims compare."""
    return list(dict.fromkeys(settings for claim in claims for several in claim.runs(profile, seeds) for settings in several))
