"""The committed notebooks: paired, executed, with outputs that nbval can check, and short enough to read."""

import ast
import builtins
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
import papermill
import pytest

from fedmuscle_core.analysis import plots
from fedmuscle_core.analysis.outcomes import log_odds_differences
from fedmuscle_core.experiments import plans
from fedmuscle_core.experiments.claims import CLAIMS, compared_runs
from fedmuscle_core.experiments.runs import stored
from fedmuscle_core.experiments.statistics import final_scores, relative_change
from fedmuscle_core.paths import NOTEBOOKS, ROOT, results

SOURCES = sorted(NOTEBOOKS.glob("*.py"))
OWN = ("16_your_own", "21_many_machines")     # they repeat no experiment of the papers


def names(paths):
    return [path.stem for path in paths]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=SOURCES, ids=names(SOURCES))
def source(request):
    return request.param


@pytest.fixture
def notebook(source):
    return nbformat.read(source.with_suffix(".ipynb"), 4)


def test_every_source_has_its_notebook_and_every_notebook_its_source():
    assert names(SOURCES) == names(sorted(NOTEBOOKS.glob("*.ipynb"))) and len(SOURCES) >= 4
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+", name) for name in names(SOURCES))


def test_the_pair_has_not_drifted(source, notebook):
    def cells(book):
        return [(cell.cell_type, cell.source) for cell in book.cells]
    assert cells(jupytext.read(source)) == cells(notebook)


def test_every_code_cell_was_executed_in_order_without_error(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [output for cell in code_cells(notebook) for output in cell.outputs if output.output_type == "error"]


def test_nbval_has_something_to_check(notebook):
    """A cell whose output is compared: it printed or showed a table, and is not tagged to be ignored."""
    checked = [cell for cell in code_cells(notebook) if "nbval-ignore-output" not in cell.metadata.get("tags", [])
               and any(output.output_type == "stream" or "text/plain" in output.get("data", {}) for output in cell.outputs)]
    assert len(checked) >= 4


def test_nothing_was_left_running_into_the_output(notebook):
    assert not [output for cell in code_cells(notebook) for output in cell.outputs if output.get("name") == "stderr"]


def test_it_opens_with_its_question_and_ends_with_what_was_learned(source, notebook):
    first = notebook.cells[0].source
    assert first.startswith("# ") and "?" in first.splitlines()[0]
    ends = ("## Published, and ours", "## What we learned", "## What to try next")
    cells = [cell.source for cell in notebook.cells]
    places = [max((place for place, text in enumerate(cells) if end in text), default=-1) for end in ends]
    assert -1 < places[0] < places[1] == len(cells) - 3 and places[2] == len(cells) - 1
    beside = str([cell.get("outputs") for cell in notebook.cells[places[0]:places[1]]])
    assert all(column in beside for column in (("published",) if source.stem in OWN else ("published", "agrees?")))
    (output,) = notebook.cells[places[1] + 1].outputs
    lessons = output["data"]["text/markdown"].split("\n")
    assert len(lessons) > 1 and all(line.startswith("- ") and line.endswith(".") for line in lessons)
    assert re.search(r"\d", str(lessons)) and not re.search(r"\bnan\b", str(lessons))


def test_its_exercise_has_a_hidden_solution_that_names_what_is_there(source, notebook):
    """Every name that the solution reads is defined by the notebook, itself or Python."""
    text = notebook.cells[-1].source
    assert "**Exercise.**" in text and text.count("<details><summary>Solution</summary>") == text.count("</details>") == 1
    assert ("```python" in text) == (source.stem != "20_convergence")              # whose exercise is one for paper
    trees = [ast.parse(code) for code in re.findall(r"```python\n(.*?)```", text, re.S)]
    code = [re.sub(r"^%.*$", "", cell.source, flags=re.M) for cell in code_cells(notebook)]
    known = set(dir(builtins)) | set().union(*map(defined, [*map(ast.parse, code), *trees]))
    names = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)]
    assert {node.id for node in names if isinstance(node.ctx, ast.Load)} <= known


def defined(tree):
    """Names that a piece of code assigns, imports or defines, anywhere in it."""
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            found.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def test_its_parameters_are_checked_first_and_a_wrong_kernel_is_told_which_to_choose(source):
    parameters = papermill.inspect_notebook(str(source.with_suffix(".ipynb")))
    cell = next(cell for cell in code_cells(jupytext.read(source)) if "parameters import check" in cell.source)
    assert code_cells(jupytext.read(source))[1].source == cell.source
    assert cell.source.splitlines()[-1] == f"check(globals(), {', '.join(json.dumps(name) for name in parameters)})"
    without = "import sys; sys.modules['fedmuscle_core'] = None\n"
    done = subprocess.run([sys.executable, "-c", without + cell.source], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "choose that of the project's .venv, see `make lab`" in done.stderr


def test_notebooks_are_named_by_links(source):
    named = [cell.source for cell in jupytext.read(source).cells if cell.cell_type == "markdown"]
    assert not re.findall(r"\bnotebooks? \d\d", "\n".join(named))
    for target in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", "\n".join(named)):
        assert (NOTEBOOKS / target).is_file()


def test_it_reads_well(source, notebook):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert 10 <= len(notebook.cells) <= 44
    assert statistics.median(lengths) <= 8 and max(lengths) <= 30
    classes = re.findall(r"^class \w+\((\w*)\)?", "\n".join(cell.source for cell in code_cells(notebook)), re.M)
    assert classes == (["WithPeers", "Method"] if source.stem == "16_your_own" else [])


def test_its_parameters_start_with_the_profile_and_are_documented(source):
    known = papermill.inspect_notebook(str(source.with_suffix(".ipynb")))
    assert next(iter(known)) == "profile" and ("seed" if source.stem in OWN else "seeds") in known
    assert all(parameter["help"] and parameter["inferred_type_name"] != "None" for parameter in known.values())
    assert known["profile"]["default"] == '"mini"'


def test_metadata_is_free_of_what_changes_with_each_run(notebook):
    assert "papermill" not in notebook.metadata
    assert not [cell for cell in notebook.cells if {"papermill", "execution"} & set(cell.metadata)]


def test_pictures_of_the_real_photos_notebook_are_its_curves_and_tables_alone():
    notebook = nbformat.read(NOTEBOOKS / "15_real_photos.ipynb", 4)
    drawn = [cell.source for cell in code_cells(notebook)
             if any("image/png" in output.get("data", {}) or "image/jpeg" in output.get("data", {}) for output in cell.outputs)]
    assert len(drawn) == 3 and all("plots.save_figure(" in source for source in drawn)
    assert "imshow" not in "".join(drawn) and "task_samples" not in str(notebook)


def test_figures_are_the_notebooks_own():
    made = {path.stem for path in (ROOT / "figures").iterdir() if path.suffix in (".png", ".svg", ".csv")}
    assert made and all(any(stem.startswith(name) for name in names(SOURCES)) for stem in made)
    for stem in made:
        assert all((ROOT / "figures" / f"{stem}.{kind}").exists() for kind in ("png", "svg", "csv"))


def test_figures_show_the_stored_runs():
    """The numbers under two figures, recomputed from the store."""
    _, history = stored([one for several in compared_runs("mini").values() for one in several], results("mini"))
    drawn = pd.read_csv(ROOT / "figures" / "02_setup1_learning_curves.csv")
    again = plots.learning_curves(history)[1].reset_index(drop=True)
    pd.testing.assert_frame_equal(drawn, again, check_dtype=False, rtol=1e-5)
    drawn = pd.read_csv(ROOT / "figures" / "03_alpha_ablation.csv").set_index("seed")
    for claim in CLAIMS[1:3]:
        mine = drawn[drawn["claim"].str.startswith(f"{claim.number}:")]["difference"]
        again = log_odds_differences(*claim.runs("mini"), results("mini"))
        assert len(mine) == len(again) and (mine - again).abs().max() < 1e-4


@pytest.mark.parametrize(("name", "wanted"), [("04_table1", lambda: plans.table1("mini")),
                                              ("05_table2", lambda: plans.table2("mini"))])
def test_the_tables_figures_show_the_stored_runs(name, wanted):
    _, history = stored(wanted(), results("mini"))
    again = plots.change_heatmap(relative_change(final_scores(history)))[1].reset_index(drop=True)
    drawn = pd.read_csv(ROOT / "figures" / f"{name}_heatmap.csv")
    pd.testing.assert_frame_equal(drawn, again, check_dtype=False, rtol=1e-5)


def test_no_notebook_names_a_path_of_the_machine_it_ran_on(source):
    text = Path(source.with_suffix(".ipynb")).read_text()
    assert str(ROOT) not in text and str(Path.home()) + "/" not in text
