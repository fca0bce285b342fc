"""The runs of the ablations: `by_...(profile, seeds)` -> {(value of what is varied, method): list of `Settings`}.

Everything is varied around the tuned point, one factor at a time unless the name says otherwise.  Local is part of each (but
of `by_protocol`, which is about bytes), with the value None where what is varied cannot change it.
Profile "quick" takes the first two values only.
"""

from .claims import PAPER_TAU, seeds_of
from .profiles import paper_version, profile_seeds, profile_settings
from .setups import TASK_COUNTS, setup_named

MAIN = "embedded1"
PEER_COUNTS = {"setup2": (1, 9, 3, 5, 7)}             # of other setups all; the first two: those of profile "quick"
EXACT_UP_TO = 4                                       # more peers: the sampled estimator
NUM_SAMPLES = 512
EXCHANGED = (("setup1", 8, 1), ("setup1", 8, 5), ("setup1", 8, 2), ("setup1", 8, 3), ("setup1", 8, 4), ("setup1", 32, 1),
             ("setup1", 32, 2), ("setup1", 32, 3), ("setup2", 3, 7), ("setup2", 2, 9))     # (setup, B, M)
CHOICES = ("random", "bandit", "held", "similar", "task")
CHOOSING = {"setup1": 1, "setup2": 3}                 # peers to choose, of other setups 1
PUBLIC_DOMAINS = ("single", "noise", "scenes", "letters", "textures")
PUBLIC_METHODS = ("simclr", "pairwise", "fedmuscle")
PUBLIC_SIZES = (512, 64, 256, 1024, 5000)
STEPS = 16                                            # batches a round: one pass over 512 in batches of 32
DISTANT_TAUS = ("as tuned", 1.0, 0.5, "1.0 for all pairs")      # the last one: is it the distance, or a softer loss?
CONCENTRATIONS = (0.1, "IID", 1.0)
ABSENCES = ((0.0, "batch"), (0.5, "round"), (0.5, "batch"), (0.0, "round"), (0.8, "batch"), (0.8, "round"))
TAUS = (0.2, 0.1, 0.5)
RATIOS = (0.75, 1.0, 0.5, 0.35)                       # tau_prev / tau; 1: gamma = 0
FACTORS = {                                           # beside the tuned value, which `by_factor` adds
    "batch_size": (8, 16, 64, 128),
    "contrastive_epochs": (2, 4),
    "contrastive_lr": (1e-4, 3e-4, 3e-3),
    "augment": (True,),
    "local_epochs": (2,),
    "rounds": (5,),
    "dim": (32, 256),
}
SHARED = ("local_epochs", "rounds", "dim")            # factors that change Local as well
BATCHES_AND_TAUS = tuple((batch_size, tau) for batch_size in (8, 128) for tau in (0.1, 0.5))
SIZES = ("setup1", "clients12", "clients24")
KINDS = ("one_kind", "setup1", "two_kinds")
MODALITIES = ("one_text", "texts_only", "images_only", "setup2")
MFED_VARIANTS = {                                     # of M-Fed; "as tuned" first
    "as tuned": {}, "frozen encoder": {"share": "decoder"}, "decoders not averaged": {"share": "encoder"},
    "no global decoder term": {"lam": 0.0}, "distance to the global decoder": {"decoder_term": "distance"},
}
WEIGHTS_AGAINST = {                                   # what each of `by_weights` is held against
    "alpha = 1, tau = 0.2": "learned, tau = 0.2", "shuffled, tau = 0.2": "learned, tau = 0.2",
    "alpha = 1, tau tuned": "learned, tau tuned", "margin tuned": "learned, tau tuned",
    "shuffled, tau tuned": "learned, tau tuned",
}
SEEDS = {"quick": 1, "mini": 5}
FEW_SEEDS = {"quick": 1, "mini": 3}


def some(profile, values):
    """All values; the first two where the profile only proves that everything runs."""
    return tuple(values)[:2] if profile == "quick" else tuple(values)


def first_seeds(profile, seeds, most=SEEDS):
    """`seeds`, or as many of the profile's as `most` says for it."""
    return profile_seeds(profile, seeds, most.get(profile))


def at(profile, setup, method, seeds, **changes):
    """The tuned runs of a method with `changes`."""
    if profile == "paper":
        _, changes = paper_version(setup, changes)
    return [settings.replace(**changes) for settings in profile_settings(profile, setup, method, seeds)]


def flat(*groups):
    """All runs of groups."""
    return [settings for group in groups for runs in group.values() for settings in runs]


def tuned_runs(profile, method, seeds, setup=MAIN, most=SEEDS, **changes):
    """The tuned runs of a method with `changes`, on `seeds` or the first of those of the claims."""
    return at(profile, setup, method, seeds_of(profile, seeds, most.get(profile)), **changes)


def peer_counts(setup):
    """The numbers of peers that are tried with a setup: the least, the most, then what is between them."""
    setup = setup_named(setup)
    most = len(setup.clients) - 1
    return PEER_COUNTS.get(setup.name) or tuple(dict.fromkeys((1, most, *range(2, most))))


def by_peer_count(profile, seeds=None, setup="setup1", methods=("pairwise", "fedmuscle")):
    """Number of peers; FedMuscle with more than EXACT_UP_TO draws NUM_SAMPLES tuples an anchor."""
    seeds = first_seeds(profile, seeds, SEEDS if setup == "setup1" else FEW_SEEDS)
    runs = {(None, "local"): at(profile, setup, "local", seeds)}
    for method in methods:
        for count in some(profile, peer_counts(setup)):
            sampling = {"num_samples": NUM_SAMPLES} if method == "fedmuscle" and count > EXACT_UP_TO else {}
            runs[count, method] = at(profile, setup, method, seeds, num_peers=count, **sampling)
    return runs


def tuned_at(profile, method, seeds, values):
    """The runs of a method on MAIN at the best that was tried with `values`."""
    return profile_settings(profile, MAIN, method, seeds_of(profile, seeds, SEEDS.get(profile)), **values)


def by_weights(profile, seeds=None):
    """(weights of the tuples, temperatures): what else learned alpha could be.  The margin was tuned, as every method; shuffled
    weights have all that was tuned for learned ones."""
    runs = {(None, "local"): tuned_runs(profile, "local", seeds)}
    for name, values in (("tau = 0.2", PAPER_TAU), ("tau tuned", {})):
        learned = tuned_at(profile, "fedmuscle", seeds, values)
        runs[f"alpha = 1, {name}", "pairwise"] = tuned_at(profile, "pairwise", seeds, {
            field: value for field, value in values.items() if field == "tau"})
        runs[f"learned, {name}", "fedmuscle"] = learned
        runs[f"shuffled, {name}", "shuffled_alpha"] = [settings.replace(method="shuffled_alpha") for settings in learned]
    runs["margin tuned", "constant_margin"] = tuned_at(profile, "constant_margin", seeds, {})
    return runs


def by_estimator(profile, seeds=None):
    """Exact and sampled loss at the default number of peers."""
    seeds = first_seeds(profile, seeds)
    return {(None, "local"): at(profile, "setup1", "local", seeds),
            ("exact", "fedmuscle"): at(profile, "setup1", "fedmuscle", seeds),
            ("sampled", "fedmuscle"): at(profile, "setup1", "fedmuscle", seeds, num_samples=NUM_SAMPLES)}


def by_protocol(profile, seeds=None):
    """(setup, B, M, protocol) of runs of one round and four batches, for their bytes alone."""
    return {((setup, batch_size, num_peers, protocol), "fedmuscle"): at(
        profile, setup, "fedmuscle", first_seeds(profile, seeds)[:1], batch_size=batch_size, num_peers=num_peers,
        protocol=protocol, public_size=4 * batch_size, contrastive_steps=None, rounds=1, validation_size=50, test_size=0)
        for setup, batch_size, num_peers in some(profile, EXCHANGED) for protocol in ("matrices", "tuples")}


def by_choice(profile, seeds=None, setup="setup1"):
    """How the server chooses a client's peers, where there are more than it needs."""
    seeds = first_seeds(profile, seeds, SEEDS if setup == "setup1" else FEW_SEEDS)
    count = CHOOSING.get(setup_named(setup).name, 1)
    return {(None, "local"): at(profile, setup, "local", seeds)} | {
        (choice, "fedmuscle"): at(profile, setup, "fedmuscle", seeds, num_peers=count, peer_choice=choice)
        for choice in some(profile, CHOICES)}


def by_domain(profile, seeds=None, methods=PUBLIC_METHODS):
    """Public domain, with methods that read single samples of it."""
    seeds = first_seeds(profile, seeds)
    return {(None, "local"): at(profile, "setup1", "local", seeds)} | {
        (domain, method): at(profile, "setup1", method, seeds, public_domain=domain)
        for domain in some(profile, PUBLIC_DOMAINS) for method in methods}


def by_public_size(profile, seeds=None):
    """Size of the public set, all with STEPS batches a round, so that only the variety of the data differs."""
    seeds = first_seeds(profile, seeds)
    runs = {(None, "local"): at(profile, "setup1", "local", seeds)}
    for size in some(profile, PUBLIC_SIZES):
        steps = {} if size == STEPS * 32 else {"contrastive_steps": STEPS}
        runs[size, "fedmuscle"] = at(profile, "setup1", "fedmuscle", seeds, public_size=size, **steps)
    return runs


def by_distant_tau(profile, seeds=None, domain="single"):
    """Temperature of pairs of clients of different tasks, tau_prev in the same ratio."""
    def temperatures(value):
        if isinstance(value, str):
            return {} if value == "as tuned" else {"tau": 1.0, "tau_prev": 0.75}
        return {"tau_cross": value, "distant": "task"}

    seeds = first_seeds(profile, seeds)
    return {(None, "local"): at(profile, "setup1", "local", seeds)} | {
        (value, "fedmuscle"): at(profile, "setup1", "fedmuscle", seeds, public_domain=domain, **temperatures(value))
        for value in some(profile, DISTANT_TAUS)}


def by_concentration(profile, seeds=None, methods=("local", "pairwise", "fedmuscle")):
    """Dirichlet concentration of the private sets of twelve clients."""
    return {(value, method): at(profile, "noniid", method, first_seeds(profile, seeds),
                                dirichlet=None if value == "IID" else value)
            for value in some(profile, CONCENTRATIONS) for method in methods}


def by_absence(profile, seeds=None):
    """Share of rounds that a client misses, and how fresh its peers' representations are; lowest concentration."""
    seeds, skewed = first_seeds(profile, seeds), {"dirichlet": CONCENTRATIONS[0]}
    return {(None, "local"): at(profile, "noniid", "local", seeds, **skewed)} | {
        ((share, refresh), "fedmuscle"): at(profile, "noniid", "fedmuscle", seeds, absence=share, refresh=refresh, **skewed)
        for share, refresh in some(profile, ABSENCES)}


def by_temperatures(profile, seeds=None):
    """(tau, tau_prev / tau)."""
    seeds = first_seeds(profile, seeds, FEW_SEEDS)
    return {(None, "local"): at(profile, "setup1", "local", seeds)} | {
        ((tau, ratio), "fedmuscle"): at(profile, "setup1", "fedmuscle", seeds, tau=tau, tau_prev=round(tau * ratio, 6))
        for tau in some(profile, TAUS) for ratio in some(profile, RATIOS)}


def by_factor(profile, factor, seeds=None):
    """One of FACTORS, the tuned value first; Local as well where the factor changes it.

    Batches of other sizes come in the same number, STEPS a round, so that only the number of negatives differs.
    """
    seeds = first_seeds(profile, seeds, FEW_SEEDS)
    tuned, local = (at(profile, "setup1", method, seeds) for method in ("fedmuscle", "local"))
    value = tuned[0].flat()[factor]
    runs = {(value if factor in SHARED else None, "local"): local, (value, "fedmuscle"): tuned}
    steps = {"contrastive_steps": STEPS} if factor == "batch_size" else {}
    for value in FACTORS[factor][:1 if profile == "quick" else None]:
        for method in ("local", "fedmuscle") if factor in SHARED else ("fedmuscle",):
            runs[value, method] = at(profile, "setup1", method, seeds, **{factor: value}, **steps)
    return runs


def factors(profile):
    """Names of the FACTORS that `profile` varies."""
    return some(profile, FACTORS)


def by_batch_and_tau(profile, seeds=None):
    """(batch size, tau), gamma in the same ratio: does a softer loss need more negatives?"""
    seeds = first_seeds(profile, seeds, FEW_SEEDS)
    return {(None, "local"): at(profile, "setup1", "local", seeds)} | {
        ((batch_size, tau), "fedmuscle"): at(profile, "setup1", "fedmuscle", seeds, batch_size=batch_size, tau=tau,
                                             tau_prev=round(0.75 * tau, 6), contrastive_steps=STEPS)
        for batch_size, tau in some(profile, BATCHES_AND_TAUS)}


def by_setup(profile, setups, seeds=None, methods=("local", "fedmuscle"), most=SEEDS):
    """Clients: one of SIZES, KINDS or MODALITIES."""
    return {(setup, method): at(profile, setup, method, first_seeds(profile, seeds, most))
            for setup in some(profile, setups) for method in methods}


def by_mfed_variant(profile, seeds=None):
    """M-Fed with one of its parts changed, on the dense tasks."""
    seeds = first_seeds(profile, seeds)
    return {(None, "local"): at(profile, "mfed_dense", "local", seeds)} | {
        (name, "mfed"): at(profile, "mfed_dense", "mfed", seeds, **changes)
        for name, changes in some(profile, MFED_VARIANTS.items())}


def by_task_count(profile, seeds=None):
    """M-Fed with the first tasks of `setups.DENSE_SIZES` and `LABEL_SIZES` alone, three clients each."""
    setups = {count: "mfed_dense" if count == 4 else f"tasks{count}" for count in some(profile, TASK_COUNTS)}
    return {(count, method): at(profile, setup, method, first_seeds(profile, seeds, FEW_SEEDS))
            for count, setup in setups.items() for method in ("local", "mfed")}
