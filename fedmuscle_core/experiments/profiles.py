"""The profiles: one name chooses the scale of a whole notebook."""

from ..checks import one_of
from .choices import tuned
from .settings import Settings
from .setups import SETUPS, setup_named

PROFILES = {
    "quick": {"seeds": [10, 11], "settings": {"rounds": 2, "public_size": 256, "contrastive_steps": 4, "local_epochs": 1,
                                           "validation_size": 50, "test_size": 100}},
    "mini": {"seeds": list(range(10, 20)), "settings": {}},
    "paper": {"seeds": [10, 11, 12], "settings": {}},
}
SEVERAL, FEW = {"quick": 1, "mini": 5}, {"quick": 1, "mini": 3}       # of the seeds, for tables and for most ablations
# Public data of the embedded world, and what the paper profile takes instead: [paper] VOC, COCO, CIFAR-100; Flickr30K.
PAPER_DOMAINS = {"single": "voc", "scenes": "coco", "letters": "cifar100", "pairs": "flickr30k"}


def check_profile(profile):
    """Return `profile` if there is one of that name."""
    return one_of("profile", profile, PROFILES)


def profile_seeds(profile, seeds=None, most=None):
    """`seeds` as a list; where there are none (None or empty) those of the profile, the first `most[profile]` if it says."""
    if seeds is not None and not (isinstance(seeds, (list, tuple, range)) and all(type(seed) is int for seed in seeds)):
        raise ValueError(f"seeds: got {seeds!r}, expected a list of integers")
    check_once(seeds or ())
    return list(seeds or ()) or PROFILES[check_profile(profile)]["seeds"][:(most or {}).get(profile)]


def check_once(seeds):
    """ValueError for a seed that is there twice: it would count twice."""
    if twice := sorted({seed for seed in seeds if list(seeds).count(seed) > 1}):
        raise ValueError(f"seeds: got {twice} more than once in {list(seeds)}, expected different ones")


def profile_settings(profile, setup, method, seeds, **changes):
    """One `Settings` a seed: what the setup needs, the tuned values of the method, the scale of `profile`, and `changes`.

    setup, method: named or given; a given method has the values it has, nothing tuned.  Where `changes` fix a value that was
    tuned, the others are the best found with that value, or the best of all where it was not tried.
    Raises ValueError for an unknown profile, no seeds, or an unknown field.
    """
    scale, setup = PROFILES[check_profile(profile)]["settings"], setup_named(setup)
    if not seeds:
        raise ValueError("seeds: got none, expected at least one")
    check_once(seeds)
    if profile == "paper":
        setup, changes = paper_version(setup, changes)
    scale = {name: min(value, setup.settings.get(name, value)) for name, value in scale.items()}
    chosen = tuned(setup, method, **changes) if isinstance(method, str) else {}
    settings = Settings.of(setup, method, **{**chosen, **scale, **changes})
    return [settings.replace(seed=seed) for seed in seeds]


def paper_version(setup, changes):
    """(setup, changes) as the paper profile plays them; ValueError where it has no such clients or public data."""
    setup = setup_named(setup)
    if not setup.paper:
        known = [other.name for other in SETUPS.values() if other.paper]
        raise ValueError(f"profile: got 'paper' for {setup.name}, expected one of {known}: the other clients have no "
                         "version with real data")
    domain = changes.get("public_domain")
    if domain is not None:
        changes = changes | {"public_domain": PAPER_DOMAINS[one_of("public_domain", domain, PAPER_DOMAINS)]}
    return SETUPS[setup.paper], changes
