from collections import Counter

from fedmuscle_core.experiments import plans
from fedmuscle_core.paths import NOTEBOOKS


def test_every_plan_is_of_a_notebook_and_named_in_it():
    for number, plan in plans.PLANS.items():
        (source,) = NOTEBOOKS.glob(f"{number}_*.py")
        assert "plans." in source.read_text() and plan("mini")
        assert plan("quick") or number == "15"                                # whose data are not here for everybody


def test_table_1_has_every_method_on_every_domain_with_the_same_seeds():
    wanted = plans.table1("mini")
    counts = Counter((settings.method.name, settings.public_domain) for settings in wanted)
    assert counts == {(method, domain): count for method in plans.tabled("setup1") for domain, count in plans.DOMAINS.items()}
    assert plans.DOMAINS["single"] == 5
    assert {settings.seed for settings in plans.table1("mini", [7])} == {7}
    twins = [settings.replace(augment=False) for settings in plans.augmented("mini")]
    assert len(twins) == 5 and set(twins) < set(wanted)


def test_table_2_has_every_method_on_captioned_pairs():
    wanted, methods = plans.table2("mini"), plans.tabled("setup2")
    assert Counter(settings.method.name for settings in wanted) == dict.fromkeys(methods, 5)
    assert {(settings.setup.name, settings.public_domain) for settings in wanted} == {("setup2", "pairs")}


def test_setup_1_keeps_the_temperatures_of_the_paper():
    wanted = plans.setup1("mini")
    methods = {(settings.method.name, getattr(settings.method, "tau", None), getattr(settings.method, "tau_prev", None))
               for settings in wanted}
    assert methods == {("local", None, None), ("pairwise", 0.2, None), ("fedmuscle", 0.2, 0.15)} and len(wanted) == 3 * 8


def test_the_loss_table_is_part_of_table_1():
    assert set(plans.loss_table("mini")) < set(plans.table1("mini"))


def test_m_feds_tables_have_every_method_on_both_benchmarks_and_their_checks_use_the_same_runs():
    tables = plans.notebook_13("mini")
    counts = Counter((settings.setup.name, settings.method.name) for settings in tables)
    assert counts == {(setup, method): 5 for setup in plans.MFED_BENCHMARKS for method in plans.MFED_METHODS}
    checks = plans.notebook_14("mini")
    assert set(plans.notebook_13("mini", setups=["mfed_dense"])) < set(checks)
    assert {settings.setup.name for settings in checks} == {"mfed_dense", "tasks1", "tasks2", "tasks6", "tasks8"}


def test_real_photos_are_planned_with_the_samples_there_are():
    wanted = plans.notebook_15("mini")
    alike = plans.photos1_as_few("mini")
    assert {(key[0], run.public_size) for key, runs in alike.items() for run in runs if key[0]} == {
        (domain, 180) for domain in plans.PHOTO_DOMAINS} and len(plans.flat(alike)) == 25
    wanted = [run for run in wanted if run not in plans.flat(alike) or run.public_domain == "voc_animals"]
    public = {(run.setup.name, run.public_domain, run.public_size) for run in wanted if run.method.name != "local"}
    assert public == {("photos1", "public_unlabeled_tiny", 512), ("photos1", "coco_small", 320), ("photos2", "coco_small", 320),
                      ("photos1", "cifar100_excerpt", 400), ("photos1", "voc_animals", 180)}
    assert {run.method.name for run in wanted} == set(plans.PHOTO_METHODS) and len({run.seed for run in wanted}) == 5
    assert plans.notebook_15("quick") == []
    for domain in plans.PHOTO_DOMAINS:
        slower, aligned = (plan("mini", domain=domain) for plan in (plans.photos1_at_one_rate, plans.photos1))
        theirs = [run for run in aligned if run.method.name == "fedmuscle"]
        assert slower == [run.replace(method="pairwise") for run in theirs] and not set(slower) & set(aligned)
