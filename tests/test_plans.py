from collections import Counter

from fedmuscle_core.experiments import ablations, plans
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.methods import METHODS
from fedmuscle_core.paths import NOTEBOOKS


def test_every_plan_is_of_a_notebook_and_named_in_it():
    for number, plan in plans.PLANS.items():
        (source,) = NOTEBOOKS.glob(f"{number}_*.py")
        assert "plans." in source.read_text()
        assert bool(plan("mini")) == bool(plan("quick")) and (plan("mini") or number in plans.NOTEBOOKS_OF["foundation"])
        assert bool(plan("foundation")) or number not in plans.NOTEBOOKS_OF["foundation"]


def test_table_1_has_every_method_with_the_same_seeds_as_tuned_and_at_defaults():
    wanted, plain = plans.table1("mini"), plans.at_defaults("mini")
    methods = plans.tabled("embedded1")
    assert {"simclr_samples", "fedmuscle_views"} < set(methods) and "constant_margin" not in methods
    for runs in (wanted, plain):
        assert Counter(settings.method.name for settings in runs) == dict.fromkeys(methods, 5)
        assert {settings.seed for settings in runs} == {10, 11, 12, 13, 14}
    assert {settings.seed for settings in plans.table1("mini", [7])} == {7}
    default = {settings.method.name: settings for settings in plain}
    assert (default["fedmuscle"].method.contrastive_lr, default["fedmuscle"].method.tau) == (1e-3, 0.2)
    assert {settings.training for settings in plain} == {wanted[0].training}
    steps = {getattr(settings.method, "contrastive_steps", 60) for settings in plain}
    assert steps == {60} and set(plans.at_defaults("paper")) == set(plans.table1("paper"))


def test_table_2_has_every_method_on_captioned_pairs():
    wanted, methods = plans.table2("mini"), plans.tabled("embedded2")
    assert Counter(settings.method.name for settings in wanted) == dict.fromkeys(methods, 5)
    plain = plans.at_defaults2("mini")
    assert Counter(settings.method.name for settings in plain) == dict.fromkeys(plans.LOSSES, 3)
    assert {(settings.setup.name, settings.public_domain) for settings in [*wanted, *plain]} == {("embedded2", "pairs")}
    assert {settings.method.tau for settings in plain if settings.method.name == "fedmuscle"} == {0.2}


def test_the_weights_of_the_tuples_differ_in_nothing_else():
    runs = {label: several for (label, _), several in ablations.by_weights("mini").items() if label}
    assert set(ablations.WEIGHTS_AGAINST) | set(ablations.WEIGHTS_AGAINST.values()) == set(runs)
    for name, taus in (("tau = 0.2", (0.2, 0.15)), ("tau tuned", (0.5, 0.375))):
        learned, shuffled = runs[f"learned, {name}"][0], runs[f"shuffled, {name}"][0]
        assert shuffled.replace(method="fedmuscle") == learned and (learned.method.tau, learned.method.tau_prev) == taus
    assert runs["alpha = 1, tau = 0.2"][0].method.tau == runs["margin tuned, tau = 0.2"][0].method.tau == 0.2
    assert set(plans.notebook_03("mini")) > {settings for several in runs.values() for settings in several}


def test_the_losses_are_part_of_table_1():
    assert set(plans.notebook_06("mini")) < set(plans.table1("mini"))


def test_m_feds_tables_have_every_method_and_their_checks_use_the_same_runs():
    for setup in plans.MFED_BENCHMARKS:
        table = plans.mfed_table("mini", setup)
        assert Counter(settings.method.name for settings in table) == dict.fromkeys(ablations.MFED_METHODS, 5)
    wanted, dense = set(plans.notebook_13("mini")), set(plans.mfed_table("mini", "mfed_dense"))
    assert dense < wanted and {settings.dirichlet for settings in wanted} == {None, 0.1}
    assert max(Counter(settings.method.name for settings in wanted if settings.setup.name == "mfed_dense"
                       and settings.dirichlet is None).values()) == 10                                  # of the claims
    checks = set(plans.notebook_14("mini"))
    assert dense < checks and {settings.setup.name for settings in checks} == {"mfed_dense", "tasks1", "tasks2", "tasks8"}


def test_what_is_asked_of_schedules_and_servers_is_no_more_than_is_read(monkeypatch):
    monkeypatch.setattr(ablations, "tuned_runs", lambda profile, method, seeds=None, setup="", **changes: profile_settings(
        profile, setup, METHODS[method](), [0]))
    found = [key for key, method in ablations.by_rate_and_schedule("mini") if method == "fedmuscle_traced"]
    assert found == [(1.0, "constant"), (3.0, "constant"), (0.1, "constant"), (1.0, "cosine"), (3.0, "cosine"), (1.0, "sqrt"),
                     (3.0, "sqrt")]
    assert max(ablations.RATE_FACTORS) in {key[0] for key, _ in ablations.by_rate_and_schedule("quick") if key}
    servers = [(settings.setup.name, settings.method.name) for settings in plans.notebook_18("mini")]
    assert [method for setup, method in servers if setup == "creamfl"] == list(ablations.SERVER_METHODS)
    assert [method for setup, method in servers if setup == "creamfl35"] == ["local", "creamfl", "creamfl_muscle"]


def test_real_photos_are_planned_for_those_who_have_them(monkeypatch):
    monkeypatch.setattr(plans, "tabled", lambda setup: plans.LOSSES)
    wanted = plans.notebook_15("foundation")
    assert {run.setup.name for run in wanted} == {*plans.FOUNDATION_SETUPS, "foundation_mfed"}
    assert plans.notebook_15("mini") == []
    assert {run.public_domain for run in wanted if run.public_size == ablations.FEW_PHOTOS} >= set(ablations.SOURCES)
    captioned = [run for run in wanted if run.setup.name == "foundation2" and run.public_size == ablations.FEW_PHOTOS]
    assert {run.public_domain for run in captioned} == {*ablations.CAPTIONED} and len({run.seed for run in captioned}) == 5
    grid = plans.notebook_17("foundation")
    assert len(set(grid)) == 9 + 2 * 9 * len(ablations.GRID_PHOTOS) * len(ablations.GRID_RATES)
