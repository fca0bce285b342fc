"""The project files agree with one another, and the README tells the truth."""

import ast
import json
import re
import subprocess
import tomllib

import pytest
import yaml

from fedmuscle_core.analysis import findings
from fedmuscle_core.networks.packaged import PACKAGED
from fedmuscle_core.paths import NOTEBOOKS, ROOT, results


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


def test_the_pretrained_networks_are_pinned_with_what_reads_them():
    lines = (ROOT / "requirements-pretrained.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9._-]+==[^\s;]+", line) for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[><=]", requirement)[0] for requirement in project["optional-dependencies"]["pretrained"]}
    assert wanted | {entry.package for entry in PACKAGED.values()} <= {line.split("==")[0] for line in lines}


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


def test_the_page_of_results_is_that_of_the_stored_runs():
    assert findings.PATH.read_text() == findings.page()


def test_the_readmes_findings_are_those_of_the_stored_runs():
    text = (ROOT / "README.md").read_text().replace("\n", " ")
    for finding in findings.of_the_readme():
        assert finding in text
    times = dict(re.findall(r"\| \[(\d\d)\]\(\S+\) \| [^|]+ \| ([^|]*?) ?\|", text))
    assert times == {path.name[:2]: findings.time_of(path.name[:2]) for path in NOTEBOOKS.glob("*.py")}
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_readmes_faults_are_those_of_the_stored_campaign():
    found = json.loads((results("mini") / "fault_campaign.json").read_text())
    text = (ROOT / "README.md").read_text().replace("\n", " ")
    assert f"tried {found['tried']:,} faults" in text
    assert f"{found['survived']:,} survived, {found['lost_runs']} finished runs lost" in text
