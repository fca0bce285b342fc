"""The project files agree with one another, and the README tells the truth."""

import ast
import json
import re
import subprocess
import tomllib
from functools import partial

import pandas as pd
import pytest
import yaml

from fedmuscle_core.analysis import effects
from fedmuscle_core.analysis.tables import delta_interval, delta_sentence, delta_table, interval_text
from fedmuscle_core.analysis.task_tables import order_sentence
from fedmuscle_core.experiments import ablations, plans
from fedmuscle_core.experiments.runs import stored, sweep, sweep_groups
from fedmuscle_core.paths import ROOT, results


def test_environment_yml_has_the_pins_of_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == [*(ROOT / "requirements.lock").read_text().splitlines(), "-e ."]
    assert environment["channels"] == ["conda-forge"] and "python>=3.11,<3.14" in environment["dependencies"]


@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", ["reproduce", "dev"]),
                                              ("requirements-flower.lock", ["reproduce", "dev", "flower"])])
def test_a_lock_pins_everything_the_project_depends_on_and_no_index(lock, extras):
    lines = (ROOT / lock).read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9._-]+==[^\s;]+( ; .+)?", line) for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [name for extra in extras for name in project["optional-dependencies"][extra]]
    for requirement in wanted:
        assert re.split(r"[><=]", requirement)[0] in pinned | {"fedmuscle-core[reproduce]", "flwr[simulation]"}
    assert ("flwr" in pinned) == ("flower" in extras)


BEFORE = {"": [], "methods": [""], "engines": ["", "methods"], "networks": [""], "world": [""],
          "experiments": ["", "methods", "engines", "networks", "world"], "analysis": ["", "methods", "experiments"]}
BEFORE |= {room: list(BEFORE) for room in ("pretraining", "benchmarks")} | {"commands": [*BEFORE, "pretraining", "benchmarks"]}


def imports(path):
    """(room of a module, the rooms it imports from), those inside functions included."""
    parts = path.relative_to(ROOT / "fedmuscle_core").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            target = [*parts[:len(parts) - node.level], *(node.module or "").split(".")]
            is_room = (ROOT / "fedmuscle_core" / target[0]).is_dir() if target[0] else False
            yield target[0] if is_room else ""


def test_a_room_imports_only_what_stands_before_it():
    seen = set()
    for path in (ROOT / "fedmuscle_core").rglob("*.py"):
        room = path.relative_to(ROOT / "fedmuscle_core").parts[0] if path.parent.name != "fedmuscle_core" else ""
        for target in imports(path):
            assert target in {room, *BEFORE[room]}, f"{path.name} in {room or 'the core'} imports from {target or 'the core'}"
            seen.add((room, target))
    rooms = {path.parent.name for path in (ROOT / "fedmuscle_core").glob("*/__init__.py")}
    assert rooms | {""} == set(BEFORE) and len(seen) > 15


def test_the_readme_opens_with_what_this_is_and_its_commands_exist():
    text = (ROOT / "README.md").read_text()
    assert "replication, not the official code" in text.splitlines()[0]
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z]+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for path in re.findall(r"\]\(([^)h#][^)]*)\)", text):
        assert (ROOT / path).exists(), path


def test_the_readme_s_snippets_run():
    namespace = {}
    for snippet in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        exec(snippet.replace("fit(rounds=2)", "fit(rounds=2, progress=False)"), namespace)
    assert namespace["loss"].ndim == 0 and namespace["z"].grad is not None
    assert set(namespace["history"]["client"]) == {"birds", "news"} and namespace["history"]["round"].max() == 2


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


def test_the_readmes_faults_are_those_of_the_stored_campaign():
    found = json.loads((results("mini") / "fault_campaign.json").read_text())
    text = (ROOT / "README.md").read_text().replace("\n", " ")
    assert f"tried {found['tried']:,} faults" in text
    assert f"{found['survived']:,} survived, {found['lost_runs']} finished runs lost" in text


def test_the_readmes_m_fed_results_are_those_of_the_stored_runs():
    text, methods = (ROOT / "README.md").read_text(), [name for name in plans.MFED_METHODS if name != "fedmuscle"]
    for setup in plans.MFED_BENCHMARKS:
        _, history = sweep(plans.notebook_13("mini", setups=[setup]), results("mini"), progress=False)
        for row in delta_table(history).itertuples(index=False):
            assert "| " + " | ".join(map(str, row)) + " |" in text
        assert order_sentence(history, methods) in text and delta_sentence(history, "mfed", "fedavg") in text
    for runs, reference, name in ((ablations.by_mfed_variant, "as tuned", "M-Fed"), (ablations.by_task_count, 1, "tasks")):
        measured = effects.measure(sweep_groups(runs("mini"), results("mini")))
        assert effects.answer(measured, reference, name, "mfed") in text


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
    alike = effects.measure({key: stored(wanted, results("mini")) for key, wanted in plans.photos1_as_few("mini").items()})
    assert effects.answer(alike, "voc_animals", "180 public photos of") in text


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
        measured = effects.measure(sweep_groups(runs("mini"), results("mini")))
        assert effects.answer(measured, reference, name) in text
