"""Which runs each notebook shows: `PLANS[number](profile, seeds)` -> list of `Settings`; `fedmuscle reproduce` computes them.

seeds: None or empty for those of the profile; Setup 1's first table takes all of them, the tables of every method five.
"""

from .methods import METHODS
from .profiles import profile_seeds, profile_settings

FIRST_THREE = ("local", "pairwise", "fedmuscle")
DOMAINS = ("single", "scenes", "letters")            # of Table 1: three public data sets
LOSSES = ("local", "simclr", "gramian", "pairwise", "fedmuscle")
PAPER_TAU = {"tau": 0.2, "tau_prev": 0.15}
TABLE_SEEDS = 5


def setup1(profile, seeds=None):
    """Local, alpha = 1 and learned alpha at the paper's temperatures: notebooks 02 and 03."""
    seeds = profile_seeds(profile, seeds)
    return [settings for method in FIRST_THREE for settings in profile_settings(profile, "setup1", method, seeds, **PAPER_TAU)]


def table1(profile, seeds=None, domains=DOMAINS, methods=tuple(METHODS)):
    """Every method, as tuned, with every public domain; Local once, as it reads none."""
    seeds = table_seeds(profile, seeds)
    return [settings for domain in domains for method in methods
            for settings in profile_settings(profile, "setup1", method, seeds, public_domain=domain)]


def augmented(profile, seeds=None):
    """FedMuscle with public batches seen through the augmentation that SimCLR has, with Table 1's first public domain."""
    return profile_settings(profile, "setup1", "fedmuscle", table_seeds(profile, seeds), public_domain=DOMAINS[0], augment=True)


def notebook_04(profile, seeds=None):
    """Table 1 and the experiment on one explanation of its order."""
    return table1(profile, seeds) + augmented(profile, seeds)


def table2(profile, seeds=None):
    """Every method, as tuned, on the ten clients of Setup 2."""
    seeds = table_seeds(profile, seeds)
    return [settings for method in METHODS for settings in profile_settings(profile, "setup2", method, seeds)]


def loss_table(profile, seeds=None):
    """Local and the methods that differ in their contrastive loss only, with each public domain of Table 1."""
    return table1(profile, seeds, methods=LOSSES)


def table_seeds(profile, seeds=None):
    """`seeds`, or the first five of the profile."""
    return profile_seeds(profile, seeds)[:None if seeds else TABLE_SEEDS]


PLANS = {"02": setup1, "03": setup1, "04": notebook_04, "05": table2, "06": loss_table}
