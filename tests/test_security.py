"""What SECURITY.md claims, as far as a machine can tell."""

import ast
import re

import pytest
import torch
import torch.nn.functional as F

from fedmuscle_core.aggregation import AVERAGES
from fedmuscle_core.exchange import HIGHEST, downlink
from fedmuscle_core.methods.sharing import GROWTH, SMALL
from fedmuscle_core.networks.checkpoints import CHECKPOINTS
from fedmuscle_core.paths import PACKAGE, ROOT
from fedmuscle_core.world.real.sources import SOURCES

TEXT = " ".join((ROOT / "SECURITY.md").read_text().split())
PICKLE = {"store.py": "its own copy in memory", "processes.py": "between processes that it started"}


def calls():
    """(file, name, arguments by name, the call) of every call in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.name, ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}, node


def test_nothing_that_is_read_is_run():
    found = list(calls())
    loads = [(file, words) for file, name, words, _ in found if name == "torch.load"]
    assert loads and all(words.get("weights_only") == "True" for _, words in loads), loads
    models = [(file, words) for file, name, words, _ in found if name.endswith(".from_pretrained")]
    assert len(models) >= 3 and all(words.get("trust_remote_code") == "False" for _, words in models), models
    assert all(words.get("use_safetensors") == "True" for file, words in models if "output_loading_info" in words)
    named = {name for _, name, *_ in found}
    assert not named & {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load",
                        "pd.read_pickle", "joblib.load", "dill.load", "marshal.loads", "tarfile.open"}
    assert not [(file, name) for file, name, words, _ in found if words.get("shell", "False") != "False"]
    assert not [(file, name) for file, name, words, _ in found if words.get("allow_pickle", "False") != "False"]
    assert {file for file, name, *_ in found if name.startswith("pickle.")} <= PICKLE.keys()
    unpacked = [words for _, name, words, _ in found if name == "shutil.unpack_archive"]
    assert unpacked and "extractall" not in {name.rsplit(".", 1)[-1] for name in named}


def test_nothing_comes_without_tls_or_a_sum():
    for path in PACKAGE.rglob("*.py"):
        for address in re.findall(r"http://[^\s\"')]*", path.read_text()):
            pytest.fail(f"{path}: {address}")
    files = [file for source in SOURCES.values() for file in source.files]
    assert all(re.fullmatch(r"https://.+", file.url) and re.fullmatch(r"[0-9a-f]{64}", file.sha256) for file in files)
    assert all(re.fullmatch(r"[0-9a-f]{40}", checkpoint.revision) for checkpoint in CHECKPOINTS.values())


def test_the_bounds_are_those_of_the_code():
    assert f"nothing above {HIGHEST:.0e}".replace("+", "") in TEXT
    least = {what: f"{GROWTH * small:g}".replace("+0", "") for what, small in SMALL.items()}
    assert (f"at most {GROWTH:g} times that of what was sent last (or {least['parameters']} and {least['buffers']}, where that "
            "is more)") in TEXT
    assert all(f'"{name}"' in TEXT for name in AVERAGES if name != "mean")


def test_sums_over_tuples_do_not_hide_the_peers():
    """As SECURITY.md says: from what one client is sent in protocol "tuples", its peers' representations."""
    batch, dim, tau = 12, 8, 0.2
    peers = F.normalize(torch.randn(2, batch, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=2)
    sums, _ = downlink(peers, "tuples", tau, tau)
    sums = tau * sums.view(batch, batch, dim)                                 # of the rows of both peers
    for rows, peer in ((sums[:, 0] - sums[0, 0], peers[0]), (sums[0] - sums[0, 0], peers[1])):
        first = torch.linalg.lstsq(2 * rows[1:], -rows[1:].square().sum(1, keepdim=True)).solution[:, 0]   # |first + row| = 1
        assert torch.allclose(first + rows, peer, atol=1e-9)


def test_its_paths_exist():
    for path in re.findall(r"`(tests/[\w./]+|networks/[\w./]+)`", TEXT):
        assert (ROOT / path).exists() or (PACKAGE / path).exists(), path
