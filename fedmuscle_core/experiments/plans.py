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
from .setups import FOUNDATIONS, SETUPS

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


FOUNDATION_SETUPS = tuple(setup.name for setup in FOUNDATIONS)


def foundation_table(profile, setup, seeds=None):
    """Every aligning method that was tuned for a setup of real photos and texts."""
    return [settings for method in tabled(setup) for settings in ablations.tuned_runs(profile, method, seeds, setup)]


def photo_sharing(profile, seeds=None):
    """Local and the methods that exchange parameters, on dense labels of photos."""
    return [settings for method in ("local", *SETUPS["foundation_mfed"].tunes)
            for settings in ablations.tuned_runs(profile, method, seeds, "foundation_mfed")]


def notebook_15(profile, seeds=None):
    """Real photos and texts with pretrained networks, in profile "foundation" alone: not everybody has the data."""
    if profile != "foundation":
        return []
    tables = [settings for setup in FOUNDATION_SETUPS for settings in foundation_table(profile, setup, seeds)]
    return tables + photo_sharing(profile, seeds) + claims.claimed(profile, seeds, claims.FOUNDATION_CLAIMS) + ablations.flat(
        ablations.by_source(profile, seeds), ablations.by_source(profile, seeds, "foundation2", ablations.CAPTIONED),
        ablations.by_peer_count(profile, seeds, "foundation1"), ablations.by_rounds(profile, seeds, "foundation1"),
        *(ablations.by_value(profile, "foundation1", field, values, seeds)
          for field, values in ablations.FOUNDATION_FACTORS.items()))


def notebook_17(profile, seeds=None):
    """A grid of federations, in profile "foundation" alone."""
    return ablations.flat(ablations.by_cell(profile, seeds)) if profile == "foundation" else []


def notebook_18(profile, seeds=None):
    """CreamFL with few clients and with the paper's number; in profile "foundation", on photos."""
    if profile == "foundation":
        return ablations.flat(ablations.by_server(profile, seeds, "creamfl_photos"))
    return ablations.flat(ablations.by_server(profile, seeds), ablations.by_crowd(profile, seeds))


def notebook_20(profile, seeds=None):
    """A hundred rounds whose phases are measured."""
    return ablations.flat(ablations.by_rate_and_schedule(profile, seeds), ablations.by_phases(profile, seeds))


def notebook_23(profile, seeds=None):
    """Which kind of peer helps whom, and how the server may choose; the oracle's runs depend on the first of these."""
    setup = ablations.sized(profile, "clients24")
    return ablations.flat(ablations.by_kind_of_peer(profile, setup), ablations.by_choice(profile, seeds, setup))


def notebook_25(profile, seeds=None):
    """Both systems together, where clients have several architectures and where they have one."""
    return ablations.flat(*(ablations.by_system(profile, setup, seeds) for setup in ablations.BOTH))


NOTEBOOKS_OF = {                                      # of the profiles that are not for all
    "foundation": ("15", "17", "18"),
    "paper": ("02", "03", "04", "05", "07", "09"),    # those whose setups have a version with real data
}
PLANS = {name.removeprefix("notebook_"): plan for name, plan in sorted(globals().items()) if name.startswith("notebook_")}
