"""Which runs each notebook shows: `PLANS[number](profile, seeds)` -> list of `Settings`; `fedmuscle reproduce` computes them.
A notebook's plan is the function `notebook_NN` here.

seeds: None or empty for those of the profile: all of them for the claims, the first few for tables and ablations.
"""

import dataclasses

from ..methods import of_group
from . import ablations, claims
from .choices import methods_tried
from .profiles import SEVERAL, profile_seeds, profile_settings
from .settings import Settings

LOSSES = ("local", "simclr", "gramian", "pairwise", "fedmuscle")


def notebook_02(profile, seeds=None):
    """The runs that the claims of data/PREDICTIONS.md compare, and some of them twice as long."""
    return list(dict.fromkeys(claims.claimed(profile, seeds) + ablations.flat(ablations.by_rounds(profile, seeds))))


def notebook_03(profile, seeds=None):
    """Alpha = 1 and learned alpha, at the paper's temperatures and as tuned, and what else the weights could be."""
    return claims.claimed(profile, seeds, claims.CLAIMS[1:3]) + ablations.flat(ablations.by_weights(profile, seeds))


def tabled(setup):
    """Names of the aligning methods that were tuned for a setup, in the order of tables."""
    return [name for name in of_group("aligning") if name in methods_tried(setup)]


def table1(profile, seeds=None, methods=None):
    """The aligning methods on Setup 1, as tuned."""
    seeds = profile_seeds(profile, seeds, SEVERAL)
    return [settings for method in methods or tabled("embedded1")
            for settings in profile_settings(profile, "embedded1", method, seeds)]


def at_defaults(profile, seeds=None):
    """Table 1 with what was tuned for a method at its defaults; the local phases as tuned for Local."""
    return [untuned(settings) for settings in table1(profile, seeds, LOSSES if profile == "quick" else None)]


def at_defaults2(profile, seeds=None):
    """LOSSES on Setup 2, likewise."""
    methods = ("local", "simclr", "fedmuscle") if profile == "quick" else LOSSES
    return [untuned(settings) for method in methods
            for settings in ablations.tuned_runs(profile, method, seeds, "embedded2", ablations.FEW)]


def untuned(settings):
    """The same run with the hyperparameters of its method's `grid`, and those tied to them, as nobody would have tuned them."""
    method = Settings.of(settings.setup, settings.method.name).method
    own = {*type(method).grid, *type(method).tied} & {field.name for field in dataclasses.fields(method)}
    return settings.replace(**{name: getattr(method, name) for name in own})


def notebook_04(profile, seeds=None):
    """Table 1, as tuned and at defaults."""
    return table1(profile, seeds) + at_defaults(profile, seeds)


def table2(profile, seeds=None):
    """Every method, as tuned, on the ten clients of Setup 2."""
    return [settings for method in tabled("embedded2")
            for settings in ablations.tuned_runs(profile, method, seeds, "embedded2")]


def notebook_05(profile, seeds=None):
    """Table 2, as tuned and in part at defaults, the runs of the claims about it, and some of them longer."""
    return table2(profile, seeds) + at_defaults2(profile, seeds) + claims.claimed(profile, seeds, claims.SETUP2_CLAIMS) + (
        ablations.flat(ablations.by_rounds(profile, seeds, "embedded2")))


def notebook_06(profile, seeds=None):
    """Local and the methods that differ in their contrastive loss and what was tuned for it."""
    return table1(profile, seeds, LOSSES)


def notebook_07(profile, seeds=None):
    """How many peers, exact or sampled, which ones."""
    twelve = () if profile == "paper" else (                                  # which has six clients alone
        ablations.by_peer_count(profile, seeds, "clients12"), ablations.by_samples(profile, seeds))
    return ablations.flat(ablations.by_peer_count(profile, seeds), *twelve, ablations.by_estimator(profile, seeds),
                          ablations.by_protocol(profile, seeds), ablations.by_choice(profile, seeds))


def notebook_08(profile, seeds=None):
    """Which public data, of how many digits, how many, and the temperature of distant pairs."""
    return ablations.flat(ablations.by_domain(profile, seeds), ablations.by_layout(profile, seeds),
                          ablations.by_public_size(profile, seeds), ablations.by_distant_tau(profile, seeds))


def notebook_09(profile, seeds=None):
    """Unequal private data and clients that are absent."""
    return ablations.flat(ablations.by_concentration(profile, seeds), ablations.by_absence(profile, seeds))


def notebook_10(profile, seeds=None):
    """One factor at a time around the tuned point, and the two temperatures together."""
    return ablations.flat(ablations.by_temperatures(profile, seeds), *(
        ablations.by_factor(profile, factor, seeds) for factor in ablations.factors(profile)))


def notebook_11(profile, seeds=None):
    """The FedMuscle runs of Setup 1 whose bound the notebook holds against Delta."""
    return ablations.flat(ablations.by_peer_count(profile, seeds, methods=["fedmuscle"]),
                ablations.by_domain(profile, seeds, methods=["fedmuscle"]), ablations.by_public_size(profile, seeds),
                ablations.by_temperatures(profile, seeds))


def notebook_12(profile, seeds=None):
    """Other clients: their modalities, their models, their number."""
    return ablations.flat(ablations.by_setup(profile, ablations.MODALITIES, seeds),
                          ablations.by_setup(profile, ablations.KINDS, seeds), ablations.by_size(profile, seeds))


MFED_BENCHMARKS = ("mfed_dense", "mfed_labels")


def mfed_table(profile, setup, seeds=None):
    """Every method that exchanges parameters, Local and FedMuscle, as tuned on the dense tasks; in profile "quick", of other
    setups than the dense tasks, some."""
    methods = ablations.dealt(profile) if profile == "quick" and setup != "mfed_dense" else ablations.MFED_METHODS
    return [settings for method in methods for settings in ablations.tuned_runs(profile, method, seeds, setup)]


def notebook_13(profile, seeds=None):
    """The dense tasks, the labels, the dense tasks with unequal private data, and the runs of the claims."""
    tables = [settings for setup in MFED_BENCHMARKS for settings in mfed_table(profile, setup, seeds)]
    return tables + ablations.flat(ablations.by_mfed_partition(profile, seeds)) + claims.claimed(
        profile, seeds, claims.MFED_CLAIMS)


def notebook_14(profile, seeds=None):
    """M-Fed without one of its parts, with one to eight tasks, and the runs whose updates are looked at."""
    return ablations.flat(ablations.by_mfed_variant(profile, seeds), ablations.by_task_count(profile, seeds)) + mfed_table(
        profile, "mfed_dense", seeds)


PHOTO_METHODS = ("local", "simclr", "pairwise", "fedmuscle")
PHOTO_SEEDS = (0, 1, 2, 3, 4)
# Public photos, and how many: of COCO ten whole batches, of the last two all that the clients leave.
PHOTO_DOMAINS = {"public_unlabeled_tiny": 512, "coco_small": 320, "cifar100_excerpt": 400, "voc_animals": 180}


def photos1(profile, seeds=None, domain="public_unlabeled_tiny"):
    """Setup 1 on real photos, with one public source."""
    return [settings for method in PHOTO_METHODS
            for settings in profile_settings(profile, "photos1", method,
                                             seeds or PHOTO_SEEDS,
                                             public_domain=domain, public_size=PHOTO_DOMAINS[domain])]


def photos1_at_one_rate(profile, seeds=None, domain="public_unlabeled_tiny"):
    """Alpha = 1 on real photos at the contrastive learning rate that was chosen for FedMuscle: what the weights alone do."""
    seeds = seeds or PHOTO_SEEDS
    rate = profile_settings(profile, "photos1", "fedmuscle", seeds)[0].method.contrastive_lr
    return profile_settings(profile, "photos1", "pairwise", seeds, contrastive_lr=rate, public_domain=domain,
                            public_size=PHOTO_DOMAINS[domain])


def photos1_as_few(profile, seeds=None):
    """{(public source, method): settings} of FedMuscle with equally many photos of each source, and of Local."""
    few = min(PHOTO_DOMAINS.values())
    wanted = {(domain, "fedmuscle"): [settings.replace(public_size=few) for settings in photos1(profile, seeds, domain)
                                      if settings.method.name == "fedmuscle"] for domain in PHOTO_DOMAINS}
    return wanted | {(None, "local"): [settings for settings in photos1(profile, seeds) if settings.method.name == "local"]}


def photos2(profile, seeds=None):
    """Setup 2 on real photos, news and questions."""
    return [settings for method in PHOTO_METHODS
            for settings in profile_settings(profile, "photos2", method, seeds or PHOTO_SEEDS)]


def notebook_15(profile, seeds=None):
    """Real photos, none in profile "quick": the runs need data that are not here for everybody."""
    if profile == "quick":
        return []
    return [settings for domain in PHOTO_DOMAINS for plan in (photos1, photos1_at_one_rate)
            for settings in plan(profile, seeds, domain)] + ablations.flat(photos1_as_few(profile, seeds)) + photos2(
                profile, seeds)


PAPER_NOTEBOOKS = ("02", "03", "04", "05", "07", "09")      # those whose setups have a version with real data
PLANS = {name.removeprefix("notebook_"): plan for name, plan in sorted(globals().items()) if name.startswith("notebook_")}
