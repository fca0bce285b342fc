"""The profiles: one name chooses the scale of a whole notebook."""

from .checks import one_of
from .settings import Settings

PROFILES = {
    "quick": {"rounds": 4, "public_size": 256, "validation_size": 200, "test_size": 500},
    "mini": {},
}


def profile_settings(profile, setup, method, seeds, **changes):
    """One `Settings` a seed, at the scale of `profile` ("quick" or "mini"), with `changes` to single fields.

    Raises ValueError for an unknown profile, no seeds, or an unknown field.  Profile "paper" (pretrained checkpoints and
    the real data sets) is not part of this version: it is refused here, before any work.
    """
    if profile == "paper":
        raise ValueError("profile: got 'paper', expected 'quick' or 'mini': the paper profile (hub checkpoints, LoRA, "
                         "real data sets) is not implemented in this version")
    scale = PROFILES[one_of("profile", profile, PROFILES)]
    seeds = list(seeds)
    if not seeds:
        raise ValueError("seeds: got none, expected at least one")
    return [Settings(setup=setup, method=method, seed=seed).replace(**{**scale, **changes}) for seed in seeds]
