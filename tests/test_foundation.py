"""Notebook 15 from nothing, killed and gone on with: its setups at a reduced size, on the real excerpts, with pretrained
networks of packages among its clients."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pandas as pd
import pytest

from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.networks.packaged import PACKAGED, is_installed
from fedmuscle_core.paths import NOTEBOOKS, PACKAGE, ROOT

SMALLER = '''
from dataclasses import replace

SMALL = {"image_size": 42, "dim": 16, "contrastive_steps": 2, "rounds": 1, "local_epochs": 1, "views": 2, "batch_size": 8,
         "public_size": 24, "validation_size": 30, "test_size": 40}
QUICK = {"efficientnet_lite2": "efficientnet_lite0", "efficientnet_lite1": "resnet_small", "dinov2_small": "vit_small",
         "minilm_l6": "minilm_l3"}
SETUPS |= {setup.name: replace(setup, settings=setup.settings | SMALL, clients=tuple(
    spec._replace(backbone=QUICK.get(spec.backbone, spec.backbone), train_size=12) for spec in setup.clients))
    for setup in (*FOUNDATIONS, SETUPS["foundation_mfed"])}
'''
FEWER = '''
FEW_PHOTOS, FOUNDATION_FACTORS = 16, {"public_size": (16,), "contrastive_lr": (3e-5,)}
'''
DOMAINS = {"foundation1": "tiny_imagenet", "foundation2": "flickr8k", "foundation_mixed": "tiny_imagenet"}
TUNED = [{"setup": setup, "public_domain": domain if method != "local" else "", "method": method, "local_lr": 0.001,
          "contrastive_lr": 0.0001 if method != "local" else ""}
         for setup, domain in DOMAINS.items() for method in ("local", "simclr", "pairwise", "fedmuscle")]
TUNED += [{"setup": "foundation_mfed", "method": method, "local_lr": 0.001}
          for method in ("local", *SETUPS["foundation_mfed"].tunes)]


@pytest.fixture
def clone(tmp_path, real_excerpts):
    """A copy of the project whose setups of photos are small, and without their stored runs."""
    if absent := sorted({entry.package for name, entry in PACKAGED.items() if not is_installed(name)}):
        pytest.skip(f"{', '.join(absent)} are not installed: `make pretrained`")
    for folder in (PACKAGE, NOTEBOOKS):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, added in (("setups.py", SMALLER), ("ablations.py", FEWER)):
        with (tmp_path / "fedmuscle_core" / "experiments" / file).open("a") as code:
            code.write(added)
    path = tmp_path / "fedmuscle_core" / "experiments" / "tuned.csv"
    table, added = pd.read_csv(path, dtype=str), pd.DataFrame(TUNED).assign(seeds="100", by="log-odds", score=0.0)
    pd.concat([table[~table["setup"].isin(added["setup"])], added]).to_csv(path, index=False)
    return tmp_path


def reproducing(clone):
    """The command of the README in that clone, on one seed."""
    command = "-m fedmuscle_core.commands.cli reproduce --profile foundation --only 15 --workers 2 -p seeds [10]"
    return subprocess.Popen([sys.executable, *command.split()], cwd=clone, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, start_new_session=True,
                            env=os.environ | {"PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1", "FEDMUSCLE_RUNS": ""})


def finished(clone):
    """{run: when it was finished} of what is stored; the last line may be a part of one."""
    found = {}
    for path in (clone / "data" / "results").glob("foundation*.jsonl"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                record = json.loads(line)
                found.setdefault((path.stem, record["run"]), []).append(record["finished"])
    return found


def test_it_is_computed_from_nothing_and_goes_on_after_a_kill(clone):
    process, end = reproducing(clone), time.monotonic() + 400
    while len(before := finished(clone)) < 3:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "nothing was computed"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate()[0]
    assert "trunk outputs of efficientnet_lite0" in said and "to be computed and kept" in said

    process = reproducing(clone)
    said = process.communicate(timeout=400)[0]
    assert process.returncode == 0, said
    assert "1 of 1 notebooks done" in said
    after = finished(clone)
    assert len(after) > 20 and all(len(times) == 1 for times in after.values())
    assert before.items() <= after.items()                                    # nothing twice, nothing lost
    copy = nbformat.read(clone / "data" / "runs" / "foundation" / "15_real_photos.ipynb", 4)
    assert "runs are behind this notebook" in str(copy)
    assert len(list((clone / "data" / "runs" / "foundation" / "figures").glob("15_*.png"))) >= 3
