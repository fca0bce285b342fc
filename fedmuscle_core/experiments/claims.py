"""The claims of data/PREDICTIONS.md as runs: who is compared with whom, on which seeds."""

from dataclasses import dataclass

from ..checks import one_of
from .profiles import profile_seeds, profile_settings

SEEDS = {"quick": (10, 11), "mini": tuple(range(10, 20)), "paper": (10, 11, 12)}
TUNED = ("local", "simclr", "pairwise", "fedmuscle")
PAPER_TAU = {"tau": 0.2, "tau_prev": 0.15}


@dataclass(frozen=True)
class Claim:
    """`first` is above `second`, each (method, changes to what was tuned).  expected: whether we said that this would show.
    short: for figures."""

    number: int
    short: str
    text: str
    first: tuple
    second: tuple
    expected: bool
    setup: str = "embedded1"

    def runs(self, profile, seeds=None):
        """(settings of the first, settings of the second), a seed each."""
        return tuple(profile_settings(profile, self.setup, method, seeds_of(profile, seeds), **changes)
                     for method, changes in (self.first, self.second))


FEDMUSCLE = ("fedmuscle", {})
CLAIMS = (
    Claim(1, "FedMuscle - Local", "FedMuscle, tuned, is above Local, tuned", FEDMUSCLE, ("local", {}), True),
    Claim(2, "learned alpha - alpha = 1, tau = 0.2",
          "learned alpha is above alpha = 1 where both have tau = 0.2 (tau_prev 0.15) and tuned rates",
          ("fedmuscle", PAPER_TAU), ("pairwise", {"tau": 0.2}), True),
    Claim(3, "learned alpha - alpha = 1, tau tuned", "FedMuscle is above alpha = 1 where tau is tuned for both",
          FEDMUSCLE, ("pairwise", {}), False),
    Claim(4, "FedMuscle - SimCLR", "FedMuscle is above SimCLR with as many steps, both tuned",
          FEDMUSCLE, ("simclr", {}), False),
    Claim(5, "M = 3 - M = 1", "M = 3 is above M = 1", FEDMUSCLE, ("fedmuscle", {"num_peers": 1}), True),
)


def seeds_of(profile, seeds=None, most=None):
    """`seeds` as a list, or the first `most` of those of the claims in a profile, all if None."""
    return profile_seeds(profile, seeds or list(SEEDS[one_of("profile", profile, SEEDS)][:most]))


def claimed(profile, seeds=None, claims=CLAIMS):
    """The distinct runs that the claims compare."""
    return list(dict.fromkeys(settings for claim in claims for several in claim.runs(profile, seeds) for settings in several))


def tuned_runs(profile, seeds=None):
    """{method: its runs as tuned} of the methods that the claims are about."""
    return {method: profile_settings(profile, "embedded1", method, seeds_of(profile, seeds)) for method in TUNED}
