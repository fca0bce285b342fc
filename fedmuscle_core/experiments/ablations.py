"""The runs of the ablations: `by_...(profile, seeds)` -> {(value of what is varied, method): list of `Settings`}.

Everything is varied around the tuned point, one factor at a time unless the name says otherwise.  Local is part of each (but
of `by_protocol`, which is about bytes), with the value None where what is varied cannot change it.
Profile "quick" takes the first two values only.
"""

from .claims import COMPARED, PAPER_TAU
from .profiles import FEW, SEVERAL, paper_version, profile_seeds, profile_settings
from .setups import TASK_COUNTS, setup_named

MAIN = "embedded1"
PEER_COUNTS = {"clients12": (1, 11, 3, 7)}            # of other setups all; the first two: those of profile "quick"
EXACT_UP_TO = 4                                       # more peers: the sampled estimator
NUM_SAMPLES = 64
EXCHANGED = ((8, 1), (8, 5), (8, 2), (8, 3), (8, 4), (32, 1), (32, 2), (32, 3))           # (B, M)
CHOICES = ("random", "bandit", "held", "similar", "task")
PUBLIC_DOMAINS = ("single", "noise", "scenes", "letters")
DIGIT_LAYOUTS = ("single", "scenes", "number", "full")          # one digit; one to four; two; four: all of one pool
PUBLIC_METHODS = ("simclr", "pairwise", "fedmuscle")
PUBLIC_SIZES = (5000, 64, 512, 1024)
DISTANT_TAUS = ("as tuned", "twice", "four times", "twice for all pairs")       # the last: is it distance, or a softer loss?
CONCENTRATIONS = (0.1, "IID", 1.0)
ABSENCES = ((0.0, "batch"), (0.5, "round"), (0.5, "batch"), (0.0, "round"), (0.8, "batch"))
TAUS = (0.5, 0.2, 1.0)
RATIOS = (0.75, 1.0, 0.5)                             # tau_prev / tau; 1: gamma = 0
FACTORS = {                                           # beside the tuned value, which `by_factor` adds
    "batch_size": (8, 16, 64),
    "contrastive_steps": (15, 30, 120),
    "contrastive_lr": (1e-4, 3e-4, 2e-3),
    "local_lr": (2.5e-4, 1e-3),
    "augment": (True,),
    "local_epochs": (1, 4),
    "rounds": (4, 16),
    "dim": (64, 128),
}
FACTOR_NAMES = {"batch_size": "batch size B", "contrastive_steps": "contrastive steps a round",
                "contrastive_lr": "contrastive learning rate", "augment": "one random view, the same for all clients",
                "local_lr": "local learning rate", "local_epochs": "local epochs E", "rounds": "rounds R", "dim": "width d"}
SHARED = ("local_lr", "local_epochs", "rounds", "dim")              # factors that change Local as well
ROUND_FACTORS = {MAIN: (1, 2), "embedded2": (1, 2, 4)}                # whose slowest clients learn later
SIZES = (MAIN, "clients12")
KINDS = ("one_kind", MAIN, "two_kinds")
MODALITIES = ("one_text", "texts_only", "images_only", "embedded2")
MFED_METHODS = ("local", "fedavg", "fedprox", "encoder_only", "matfl", "mfed", "mfed_proximal", "centralised", "fedmuscle")
MFED_PARTITIONS = ("IID", 0.1)                        # concentration of the private sets of a task's clients
MFED_VARIANTS = {                                     # of M-Fed; "as tuned" first
    "as tuned": {}, "decoders stay": {"share": "encoder"}, "frozen encoder": {"share": "decoder"},
    "no global decoder term": {"lam": 0.0},
}
WEIGHTS_AGAINST = {                                   # what each of `by_weights` is held against
    "alpha = 1, tau = 0.2": "learned, tau = 0.2", "shuffled, tau = 0.2": "learned, tau = 0.2",
    "margin tuned, tau = 0.2": "learned, tau = 0.2", "alpha = 1, tau tuned": "learned, tau tuned",
    "shuffled, tau tuned": "learned, tau tuned",
}


def some(profile, values):
    """All values; the first two where the profile only proves that everything runs."""
    return tuple(values)[:2] if profile == "quick" else tuple(values)


def flat(*groups):
    """All runs of groups."""
    return [settings for group in groups for runs in group.values() for settings in runs]


def tuned_runs(profile, method, seeds=None, setup=MAIN, most=SEVERAL, **changes):
    """The tuned runs of a method with `changes`, on `seeds` or the first of the profile's."""
    if profile == "paper":
        _, changes = paper_version(setup, changes)
    tuned = profile_settings(profile, setup, method, profile_seeds(profile, seeds, most))
    return [settings.replace(**changes) for settings in tuned]


def by_peer_count(profile, seeds=None, setup=MAIN, methods=("pairwise", "fedmuscle")):
    """Number of peers; FedMuscle with more than EXACT_UP_TO draws NUM_SAMPLES tuples an anchor."""
    setup = setup_named(setup)
    most, several = len(setup.clients) - 1, SEVERAL if setup.name == MAIN else FEW
    runs = {(None, "local"): tuned_runs(profile, "local", seeds, setup, several)}
    for method in methods:
        for count in some(profile, PEER_COUNTS.get(setup.name) or dict.fromkeys((1, most, *range(2, most)))):
            sampling = {"num_samples": NUM_SAMPLES} if method == "fedmuscle" and count > EXACT_UP_TO else {}
            runs[count, method] = tuned_runs(profile, method, seeds, setup, several, num_peers=count, **sampling)
    return runs


def by_rounds(profile, seeds=None, setup=MAIN):
    """Rounds as they are and, in profile "mini", the ROUND_FACTORS of the setup as many, of the methods that the claims are
    about; on Setup 1 all seeds of the claims."""
    usual = {method: tuned_runs(profile, method, seeds, setup, None if setup == MAIN else FEW) for method in COMPARED}
    return {(factor * several[0].rounds, method): [settings.replace(rounds=factor * settings.rounds) for settings in several]
            for factor in (ROUND_FACTORS[setup] if profile == "mini" else (1,)) for method, several in usual.items()}


def tuned_at(profile, method, seeds, values):
    """The runs of a method on MAIN at the best that was tried with `values`."""
    return profile_settings(profile, MAIN, method, profile_seeds(profile, seeds, SEVERAL), **values)


def by_weights(profile, seeds=None):
    """(weights of the tuples, temperatures): what else learned alpha could be.  The margin and its rate were tuned with as many
    configurations as every method has, at tau = 0.2; shuffled weights have all that was tuned for learned ones."""
    runs = {(None, "local"): tuned_runs(profile, "local", seeds)}
    for name, values in (("tau = 0.2", PAPER_TAU), ("tau tuned", {})):
        learned = tuned_at(profile, "fedmuscle", seeds, values)
        runs[f"alpha = 1, {name}", "pairwise"] = tuned_at(profile, "pairwise", seeds, {
            field: value for field, value in values.items() if field == "tau"})
        runs[f"learned, {name}", "fedmuscle"] = learned
        runs[f"shuffled, {name}", "shuffled_alpha"] = [settings.replace(method="shuffled_alpha") for settings in learned]
    runs["margin tuned, tau = 0.2", "constant_margin"] = tuned_at(profile, "constant_margin", seeds, {})
    return runs


def by_estimator(profile, seeds=None):
    """Exact and sampled loss at the default number of peers."""
    return {(None, "local"): tuned_runs(profile, "local", seeds),
            ("exact", "fedmuscle"): tuned_runs(profile, "fedmuscle", seeds),
            ("sampled", "fedmuscle"): tuned_runs(profile, "fedmuscle", seeds, num_samples=NUM_SAMPLES)}


def by_samples(profile, seeds=None):
    """Tuples drawn an anchor, with seven peers of twelve clients."""
    return {(None, "local"): tuned_runs(profile, "local", seeds, "clients12", FEW)} | {
        (count, "fedmuscle"): tuned_runs(profile, "fedmuscle", seeds, "clients12", FEW, num_peers=7, num_samples=count)
        for count in (NUM_SAMPLES, 8 * NUM_SAMPLES)}


def by_protocol(profile, seeds=None):
    """(B, M, protocol) of runs of one round and four batches, for their bytes alone."""
    return {((batch_size, num_peers, protocol), "fedmuscle"): tuned_runs(
        profile, "fedmuscle", seeds, batch_size=batch_size, num_peers=num_peers, protocol=protocol, public_size=4 * batch_size,
        contrastive_steps=None, rounds=1, validation_size=50, test_size=0)[:1]
        for batch_size, num_peers in some(profile, EXCHANGED) for protocol in ("matrices", "tuples")}


def by_choice(profile, seeds=None, setup=MAIN):
    """How the server chooses a client's one peer."""
    return {(None, "local"): tuned_runs(profile, "local", seeds, setup)} | {
        (choice, "fedmuscle"): tuned_runs(profile, "fedmuscle", seeds, setup, num_peers=1, peer_choice=choice)
        for choice in some(profile, CHOICES)}


def by_domain(profile, seeds=None, methods=PUBLIC_METHODS):
    """Public domain, each method as tuned with it."""
    return {(None, "local"): tuned_runs(profile, "local", seeds)} | {
        (domain, method): tuned_at(profile, method, seeds, {"public_domain": domain})
        for domain in some(profile, PUBLIC_DOMAINS) for method in methods}


def by_layout(profile, seeds=None, method="fedmuscle"):
    """How many digits a public scene has and whether their places tell it apart, all with what was tuned on single digits."""
    tuned = tuned_runs(profile, method, seeds, most=FEW)
    return {(None, "local"): tuned_runs(profile, "local", seeds, most=FEW)} | {
        (layout, method): [settings.replace(public_domain=layout) for settings in tuned]
        for layout in some(profile, DIGIT_LAYOUTS)}


def by_public_size(profile, seeds=None):
    """Size of the public set; as many batches a round of all, so that only the variety of the data differs."""
    return {(None, "local"): tuned_runs(profile, "local", seeds)} | {
        (size, "fedmuscle"): tuned_runs(profile, "fedmuscle", seeds, public_size=size) for size in some(profile, PUBLIC_SIZES)}


def by_distant_tau(profile, seeds=None):
    """Temperature of pairs of clients of different tasks, tau_prev in the same ratio."""
    method = tuned_runs(profile, "fedmuscle", seeds)[0].method
    values = {"as tuned": {}, "twice": {"tau_cross": 2 * method.tau, "distant": "task"},
              "four times": {"tau_cross": 4 * method.tau, "distant": "task"},
              "twice for all pairs": {"tau": 2 * method.tau, "tau_prev": 2 * method.tau_prev}}
    return {(None, "local"): tuned_runs(profile, "local", seeds, most=FEW)} | {
        (value, "fedmuscle"): tuned_runs(profile, "fedmuscle", seeds, most=FEW, **values[value])
        for value in some(profile, DISTANT_TAUS)}


def by_concentration(profile, seeds=None):
    """Dirichlet concentration of the private sets of twelve clients."""
    return {(value, method): tuned_runs(profile, method, seeds, "noniid", FEW,
                                        dirichlet=None if value == "IID" else value)
            for value in some(profile, CONCENTRATIONS) for method in ("local", "fedmuscle")}


def by_absence(profile, seeds=None):
    """Share of rounds that a client misses, and how fresh its peers' representations are; lowest concentration."""
    skewed = {"dirichlet": CONCENTRATIONS[0]}
    return {(None, "local"): tuned_runs(profile, "local", seeds, "noniid", FEW, **skewed)} | {
        ((share, refresh), "fedmuscle"): tuned_runs(profile, "fedmuscle", seeds, "noniid", FEW, absence=share,
                                                    refresh=refresh, **skewed)
        for share, refresh in some(profile, ABSENCES)}


def by_temperatures(profile, seeds=None):
    """(tau, tau_prev / tau)."""
    return {(None, "local"): tuned_runs(profile, "local", seeds, most=FEW)} | {
        ((tau, ratio), "fedmuscle"): tuned_runs(profile, "fedmuscle", seeds, most=FEW, tau=tau,
                                                tau_prev=round(tau * ratio, 6))
        for tau in some(profile, TAUS) for ratio in some(profile, RATIOS)}


def by_factor(profile, factor, seeds=None):
    """One of FACTORS, the tuned value first; Local as well where the factor changes it.

    Batches of other sizes come in the same number a round: negatives and samples seen change together.
    """
    tuned, local = (tuned_runs(profile, method, seeds, most=FEW) for method in ("fedmuscle", "local"))
    value = tuned[0].flat()[factor]
    runs = {(value if factor in SHARED else None, "local"): local, (value, "fedmuscle"): tuned}
    for value in FACTORS[factor][:1 if profile == "quick" else None]:
        for method in ("local", "fedmuscle") if factor in SHARED else ("fedmuscle",):
            runs[value, method] = tuned_runs(profile, method, seeds, most=FEW, **{factor: value})
    return runs


def factors(profile):
    """Names of the FACTORS that `profile` varies."""
    return some(profile, FACTORS)


def by_setup(profile, setups, seeds=None, methods=("local", "fedmuscle"), most=SEVERAL):
    """Other clients, of each of `setups`, e.g. KINDS or MODALITIES."""
    return {(setup, method): tuned_runs(profile, method, seeds, setup, most)
            for setup in some(profile, setups) for method in methods}


def by_size(profile, seeds=None):
    """Clients of Setup 1 once and twice."""
    return by_setup(profile, SIZES, seeds, most=FEW)


def by_mfed_variant(profile, seeds=None):
    """M-Fed with one of its parts changed, on the dense tasks."""
    return {(None, "local"): tuned_runs(profile, "local", seeds, "mfed_dense")} | {
        (name, "mfed"): tuned_runs(profile, "mfed", seeds, "mfed_dense", **changes)
        for name, changes in some(profile, MFED_VARIANTS.items())}


def dealt(profile):
    """Methods that are run with unequal clients of a task as well."""
    return ("local", "fedavg", "mfed") if profile == "quick" else MFED_METHODS[:7]


def by_mfed_partition(profile, seeds=None):
    """The dense tasks, each task's clients with alike private sets, and with Dirichlet shares of each class."""
    return {(value, method): tuned_runs(profile, method, seeds, "mfed_dense", dirichlet=None if value == "IID" else value)
            for value in some(profile, MFED_PARTITIONS) for method in dealt(profile)}


def by_task_count(profile, seeds=None):
    """M-Fed with the first tasks of `setups.DENSE_SIZES` and `LABEL_SIZES` alone, three clients each.  Local and FedAvg are the
    same for the clients of the first task, whoever else is there: they are run with that task alone."""
    setups = {count: "mfed_dense" if count == 4 else f"tasks{count}" for count in some(profile, TASK_COUNTS)}
    wanted = {(None, "local"): "tasks1", (1, "fedavg"): "tasks1"} | {(count, "mfed"): setup for count, setup in setups.items()}
    return {(count, method): tuned_runs(profile, method, seeds, setup, FEW) for (count, method), setup in wanted.items()}
