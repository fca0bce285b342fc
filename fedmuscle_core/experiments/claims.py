"""The claims of data/PREDICTIONS.md as runs: who is compared with whom, on which seeds.  Those of one tuple are adjusted
together."""

from dataclasses import dataclass

from .profiles import profile_seeds, profile_settings

COMPARED = ("local", "simclr", "pairwise", "fedmuscle")
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
        return tuple(profile_settings(profile, self.setup, method, profile_seeds(profile, seeds), **changes)
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
SETUP2_CLAIMS = (
    Claim(6, "FedMuscle - Local", "FedMuscle, tuned, is above Local, tuned, on Setup 2", FEDMUSCLE, ("local", {}), True,
          "embedded2"),
    Claim(7, "learned alpha - alpha = 1", "FedMuscle is above alpha = 1 on Setup 2, both tuned", FEDMUSCLE, ("pairwise", {}),
          False,
          "embedded2"),
    Claim(8, "FedMuscle - SimCLR", "FedMuscle is above SimCLR with as many steps on Setup 2, both tuned", FEDMUSCLE,
          ("simclr", {}), False, "embedded2"),
)
MFED_CLAIMS = (
    Claim(9, "M-Fed - Local", "M-Fed, tuned, is above Local, tuned, on the dense tasks", ("mfed", {}), ("local", {}), True,
          "mfed_dense"),
    Claim(10, "M-Fed - FedAvg", "M-Fed is above FedAvg within tasks on the dense tasks", ("mfed", {}), ("fedavg", {}), False,
          "mfed_dense"),
    Claim(11, "M-Fed - encoder only", "M-Fed is above sharing encoders only on the dense tasks", ("mfed", {}),
          ("encoder_only", {}), True, "mfed_dense"),
)


def claimed(profile, seeds=None, claims=CLAIMS):
    """The distinct runs that the claims compare."""
    return list(dict.fromkeys(settings for claim in claims for several in claim.runs(profile, seeds) for settings in several))


def compared_runs(profile, seeds=None):
    """{method: its runs as tuned} of the methods that the claims are about."""
    return {method: profile_settings(profile, "embedded1", method, profile_seeds(profile, seeds)) for method in COMPARED}
