from functools import partial

import pytest

from fedmuscle_core.experiments import ablations, build
from fedmuscle_core.experiments.setups import DENSE_SIZES, LABEL_SIZES, Setup, setup_named

GROUPS = {
    "peers": ablations.by_peer_count, "estimator": ablations.by_estimator, "choice": ablations.by_choice,
    "domain": ablations.by_domain, "size": ablations.by_public_size, "distant": ablations.by_distant_tau,
    "concentration": ablations.by_concentration, "absence": ablations.by_absence, "temperatures": ablations.by_temperatures,
    "weights": ablations.by_weights, "layout": ablations.by_layout, "samples": ablations.by_samples,
    "12 clients' peers": partial(ablations.by_peer_count, setup="clients12"),
    **{factor: partial(ablations.by_factor, factor=factor) for factor in ablations.FACTORS},
    "sizes": partial(ablations.by_setup, setups=ablations.SIZES), "kinds": partial(ablations.by_setup, setups=ablations.KINDS),
    "modalities": partial(ablations.by_setup, setups=ablations.MODALITIES), "variant": ablations.by_mfed_variant,
    "task count": ablations.by_task_count,
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("profile", ["quick", "mini"])
def test_runs_are_valid_paired_over_seeds_and_have_their_local(name, profile):
    runs = GROUPS[name](profile)
    seeds = {tuple(settings.seed for settings in several) for several in runs.values()}
    assert len(seeds) == 1 and len(*seeds) in ((1,) if profile == "quick" else (3, 5)) and len(set(*seeds)) == len(*seeds)
    for (value, method), several in runs.items():
        assert {settings.method.name for settings in several} == {method}
        assert all(build.check(settings) for settings in several)
        assert method != "local" or value is None or {(value, "fedmuscle"), (value, "mfed")} & set(runs)
        assert method == "local" or (value, "local") in runs or (None, "local") in runs


@pytest.mark.parametrize("name", [name for name in GROUPS if name not in ("sizes", "kinds", "modalities", "task count")])
def test_values_differ_in_what_is_varied_alone(name):
    """Two runs of one method and seed differ in the few fields that carry the value."""
    runs = {key: several[0].canonical() for key, several in GROUPS[name]("mini").items()}
    allowed = {"num_peers", "num_samples", "peer_choice", "public_domain", "public_size", "contrastive_steps", "tau_cross",
               "distant", "dirichlet", "absence", "refresh", "tau", "tau_prev", "share", "lam", "decoder_term",
               *ablations.FACTORS}
    few = dict.fromkeys(("temperatures", "absence", "peers", "12 clients' peers"), 2)
    few |= dict(distant=4, domain=4, variant=3, weights=3)
    for method in {method for _, method in runs}:
        of_method = [settings.flat() for (_, found), settings in runs.items() if found == method]
        differ = {field for field in of_method[0] if len({str(fields[field]) for fields in of_method}) > 1}
        assert differ <= allowed and len(differ) <= few.get(name, 1), differ
        assert len({str(fields) for fields in of_method}) == len(of_method)


@pytest.mark.parametrize("name", ["peers", "estimator", "domain", "layout", "size", "distant", "temperatures",
                                  *ablations.FACTORS])
def test_the_tuned_point_is_among_the_values(name):
    tuned = set(ablations.tuned_runs("mini", "fedmuscle", None, most=ablations.FEW))
    assert any(tuned <= set(several) for several in GROUPS[name]("mini").values())


def test_gamma_goes_down_to_zero():
    muscle = [several[0].method for (_, name), several in ablations.by_temperatures("mini").items() if name == "fedmuscle"]
    gammas = [1 / method.tau_prev - 1 / method.tau for method in muscle]
    assert min(gammas) == 0 and max(gammas) == 5


def test_the_exchange_is_run_in_both_protocols():
    methods = [several[0].method for several in ablations.by_protocol("mini").values()]
    found = {(method.batch_size, method.num_peers, method.protocol) for method in methods}
    assert len(found) == 2 * len(ablations.EXCHANGED) and {peers for _, peers, _ in found} == {1, 2, 3, 4, 5}
    assert all(batch_size ** peers <= 2 ** 15 for batch_size, peers, protocol in found if protocol == "tuples")


def test_more_peers_than_the_exact_loss_serves_are_sampled():
    runs = ablations.by_peer_count("mini", [0], "clients12", ["fedmuscle"])
    sampled = {count: bool(several[0].method.num_samples) for (count, method), several in runs.items() if method == "fedmuscle"}
    assert sampled == {1: False, 3: False, 7: True, 11: True}


def test_seeds_given_are_the_seeds_used_or_the_first_of_the_claims():
    assert {settings.seed for several in ablations.by_domain("mini", [7]).values() for settings in several} == {7}
    assert [settings.seed for settings in ablations.tuned_runs("mini", "fedmuscle", None)] == [10, 11, 12, 13, 14]


@pytest.mark.parametrize(("setup", "counts", "seeds"), [("embedded1", {8, 16}, 10), ("embedded2", {10, 20, 40}, 3)])
def test_more_rounds_are_planned_but_on_real_data(setup, counts, seeds):
    runs = ablations.by_rounds("mini", setup=setup)
    assert {several[0].rounds for several in runs.values()} == counts and {len(several) for several in runs.values()} == {seeds}
    assert all(value == several[0].rounds for (value, _), several in runs.items())
    assert {settings.rounds for several in ablations.by_rounds("paper").values() for settings in several} == {20}


def test_digits_of_public_scenes_vary_in_their_layout_alone():
    runs = {layout: several[0] for (layout, method), several in ablations.by_layout("mini").items() if method == "fedmuscle"}
    assert {settings.replace(public_domain="single") for settings in runs.values()} == {runs["single"]}


def test_tasks_are_added_one_by_one_and_every_one_has_three_clients():
    for (count, method), several in ablations.by_task_count("mini").items():
        played = count if method == "mfed" else 1                                 # Local and FedAvg: the first task alone
        tasks = several[0].setup.tasks
        assert list(dict.fromkeys(tasks)) == [*DENSE_SIZES, *LABEL_SIZES][:played] and len(tasks) == 3 * played


def test_notebook_10_varies_every_factor_and_quick_some():
    assert ablations.factors("mini") == tuple(ablations.FACTORS) and len(ablations.factors("quick")) == 2


@pytest.mark.parametrize("setup", ["photos1", Setup("own", [("ic10", "vit_small", 8)] * 4), "noniid"])
def test_peers_are_varied_with_any_setup(setup):
    counts = {value for value, method in ablations.by_peer_count("mini", [0], setup, ["fedmuscle"]) if method == "fedmuscle"}
    assert counts == set(range(1, len(setup_named(setup).clients)))
    assert {one.method.num_peers for (choice, _), (one,) in ablations.by_choice("mini", [0], setup).items() if choice} == {1}
    assert len(ablations.by_peer_count("quick", [0], Setup("two", [("ic10", "vit_small", 8)] * 2), ["fedmuscle"])) == 2


@pytest.mark.parametrize("profile", ["quick", "mini"])
def test_runs_about_bytes_make_four_batches_whatever_the_profile(profile):
    for several in ablations.by_protocol(profile).values():
        for settings in several:
            assert settings.method.num_batches(settings.public_size) == 4 and settings.rounds == 1
