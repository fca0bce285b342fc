"""The project files agree with one another, and the README tells the truth."""

import re
import subprocess
import tomllib
from functools import partial

import pandas as pd
import pytest
import yaml

from fedmuscle_core.analysis import effects as varied
from fedmuscle_core.analysis.tables import (
    delta_interval,
    delta_sentence,
    delta_table,
    interval_text,
    published,
    published_value,
)
from fedmuscle_core.analysis.task_tables import order_sentence
from fedmuscle_core.experiments import ablations, plans
from fedmuscle_core.experiments.runs import stored, sweep
from fedmuscle_core.paths import ROOT, results


def test_environment_yml_has_the_pins_of_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == [*(ROOT / "requirements.lock").read_text().splitlines(), "-e ."]
    assert environment["channels"] == ["conda-forge"] and "python=3.11" in environment["dependencies"]


def test_the_lock_pins_everything_the_project_depends_on_and_no_index():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9._-]+==[^\s;]+( ; .+)?", line) for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        assert re.split(r"[><=]", requirement)[0] in pinned


def test_only_the_package_is_installed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(packages) == {".".join(path.relative_to(ROOT).parts[:-1]) for path in
                             (ROOT / "fedmuscle_core").rglob("__init__.py")}


def test_core_files_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "fedmuscle_core").rglob("*.py")}
    assert max(lengths.values()) <= 250, lengths


def test_imports_flow_one_way():
    """Every module can only import what stands before it here."""
    order = ["paths", "processes", "seeds", "checks", "layouts", "photos", "sources", "fetch", "doctor", "tuple_sum", "losses",
             "gaussians", "exchange", "server", "glyphs", "scenes", "augment", "captions", "pairs", "dense", "edge_score",
             "tasks", "checkpoints", "backbones", "adaptation", "models", "text", "pretrain", "pretrain_text", "aggregation",
             "settings", "setups", "partition", "real_data", "placement", "client_data", "client", "alignment", "peers",
             "parked", "methods.local", "methods.contrastive", "methods.simclr", "methods.cofed", "methods.fedhenn",
             "methods.gramian", "methods.fedmuscle", "methods.sharing", "methods.fedavg", "methods.encoder_only",
             "methods.matfl", "methods.mfed", "methods.centralised", "methods", "store", "pretrain_photos", "resume",
             "federation", "mismatch", "experiment", "estimate", "statistics", "comparison", "tuning", "profiles", "ablations",
             "plans", "plots", "report", "task_tables", "varied", "against_paper", "verify", "forecast", "reproduce", "cli",
             "benchmarks.loss", "benchmarks.peers", "benchmarks.losses", "benchmarks.round", "benchmarks.clients",
             "benchmarks.sweep", "benchmarks.paper_round"]
    modules = {path.relative_to(ROOT / "fedmuscle_core").with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
               for path in (ROOT / "fedmuscle_core").rglob("*.py")}
    assert modules - {"__init__", "benchmarks"} == set(order)
    for position, name in enumerate(order):
        path = ROOT / "fedmuscle_core" / (name.replace(".", "/") + ".py")
        path = path if path.exists() else ROOT / "fedmuscle_core" / name / "__init__.py"
        text = path.read_text()
        found = re.findall(r"^\s*from (\.+)([a-z_.]*) import (.+)", text, re.M)
        for dots, module, names in found:
            package = name.split(".")[0] + "." if name.startswith(("methods", "benchmarks")) and len(dots) == 1 else ""
            wanted = [package + module] if module else [package + part.strip() for part in names.split(",")]
            for target in wanted:
                assert target in order[:position], f"{name} imports {target}"


def test_the_readme_opens_with_what_this_is_and_its_commands_exist():
    text = (ROOT / "README.md").read_text()
    assert "replication, not the official code" in text.splitlines()[0]
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in re.findall(r"\]\(([^)h#][^)]*)\)", text):
        assert (ROOT / path).exists(), path


def test_the_readme_snippet_runs():
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    namespace = {}
    exec(snippet, namespace)
    assert namespace["loss"].ndim == 0 and namespace["z"].grad is not None


def test_published_numbers():
    assert published_value(setup="setup1", public_data="pascal_voc", method="fedmuscle", quantity="delta") == 26.70
    assert published(method="sage")["value"].size == 4
    for arguments, message in [({"colour": "red"}, "colour: not a column"), ({"method": "x"}, "no row with"),
                               ({"method": "sage", "setup": "setup1"}, None)]:
        with pytest.raises(ValueError, match=message or "4 rows with"):
            published_value(**arguments)


def test_no_file_names_a_package_index_or_a_path_of_one_machine():
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, files):
        path = ROOT / name
        if path.suffix in (".png", ".safetensors") or not path.exists() or path.name == "test_project.py":
            continue
        text = path.read_text()
        for bad in ("--index-url", "--extra-index-url", "--find-links", "file:///", "/root/", "/home/", str(ROOT)):
            assert bad not in text, (name, bad)


def test_the_readmes_results_are_those_of_the_stored_runs():
    text = (ROOT / "README.md").read_text()
    for wanted in (plans.setup1("mini"), plans.table1("mini", domains=["single"]), plans.table2("mini")):
        _, history = sweep(wanted, results("mini"), progress=False)
        for row in delta_table(history).itertuples(index=False):
            assert "| " + " | ".join(map(str, row)) + " |" in text
        assert delta_sentence(history, "fedmuscle", "pairwise") in text.replace("\n", " ")
    for domain in ("scenes", "letters"):
        _, history = sweep(plans.table1("mini", domains=[domain]), results("mini"), progress=False)
        for method in ("fedmuscle", "simclr"):
            assert f"{interval_text(delta_interval(history, method))} %" in text.replace("\n", " ")


def test_the_readmes_m_fed_results_are_those_of_the_stored_runs():
    text, methods = (ROOT / "README.md").read_text(), [name for name in plans.MFED_METHODS if name != "fedmuscle"]
    for setup in plans.MFED_BENCHMARKS:
        _, history = sweep(plans.notebook_13("mini", setups=[setup]), results("mini"), progress=False)
        for row in delta_table(history).itertuples(index=False):
            assert "| " + " | ".join(map(str, row)) + " |" in text
        assert order_sentence(history, methods) in text and delta_sentence(history, "mfed", "fedavg") in text
    for runs, reference, name in ((ablations.by_mfed_variant, "as tuned", "M-Fed"), (ablations.by_task_count, 1, "tasks")):
        measured = varied.measure(varied.run_all(runs("mini"), results("mini")))
        assert varied.answer(measured, reference, name, "mfed") in text


def test_the_readmes_results_on_real_photos_are_those_of_the_stored_runs():
    text = (ROOT / "README.md").read_text()
    for wanted in (*(plans.photos1("mini", domain=domain) for domain in plans.PHOTO_DOMAINS), plans.photos2("mini")):
        _, history = stored(wanted, results("mini"))
        for row in delta_table(history).itertuples(index=False):
            assert "| " + " | ".join(map(str, row)) + " |" in text
        assert all(delta_sentence(history, "fedmuscle", other) in text for other in ("simclr", "pairwise"))
    _, history = stored(plans.photos1("mini"), results("mini"))
    _, slower = stored(plans.photos1_at_one_rate("mini"), results("mini"))
    assert delta_sentence(pd.concat([history.query("method != 'pairwise'"), slower]), "fedmuscle", "pairwise") in text
    alike = varied.measure({key: stored(wanted, results("mini")) for key, wanted in plans.photos1_as_few("mini").items()})
    assert varied.answer(alike, "voc_animals", "180 public photos of") in text


def test_the_readmes_ablations_are_those_of_the_stored_runs():
    text = (ROOT / "README.md").read_text()
    for runs, reference, name in ((ablations.by_peer_count, 1, "M"), (ablations.by_estimator, "exact", "the loss"),
                                  (ablations.by_choice, "random", "the choice"), (ablations.by_domain, "single", "public data"),
                                  (ablations.by_public_size, 512, "public samples"),
                                  (ablations.by_concentration, "IID", "concentration"),
                                  (ablations.by_absence, "0.0, batch", "(share of rounds missed, refresh)"),
                                  (partial(ablations.by_factor, factor="rounds"), 15, "rounds"),
                                  (partial(ablations.by_factor, factor="local_epochs"), 1, "local_epochs"),
                                  (partial(ablations.by_factor, factor="augment"), False, "augment"),
                                  (partial(ablations.by_setup, setups=ablations.KINDS), "setup1", "architectures")):
        measured = varied.measure(varied.run_all(runs("mini"), results("mini")))
        assert varied.answer(measured, reference, name) in text
