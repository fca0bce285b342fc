import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")    # read when transformers is imported: no test waits for a network

import pytest  # noqa: E402

from fedmuscle_core.experiments.settings import Settings  # noqa: E402
from fedmuscle_core.experiments.setups import SETUPS, ClientSpec  # noqa: E402


@pytest.fixture
def tiny(monkeypatch):
    """Settings of a three-client federation that trains in about a second; `tiny(field=value)` changes a field."""
    monkeypatch.setitem(SETUPS, "tiny", (ClientSpec("mlc", "resnet_small", 64), ClientSpec("ic100", "resnet_small", 48),
                                         ClientSpec("ic10", "vit_small", 24)))
    base = Settings(setup="tiny", rounds=2, num_peers=2, batch_size=8, public_size=20, validation_size=30, test_size=40)
    return base.replace


@pytest.fixture
def real_excerpts():
    """The folder of the real excerpts; skips where there is none."""
    if not os.environ.get("FEDMUSCLE_DATA"):
        pytest.skip("FEDMUSCLE_DATA is not set: it names the folder of the real excerpts")
    return os.environ["FEDMUSCLE_DATA"]


@pytest.fixture
def shared(monkeypatch):
    """Settings of four clients of two dense tasks with one architecture; `shared(field=value)` changes a field."""
    sizes = (("edges", 24), ("edges", 10), ("saliency", 16), ("saliency", 12))
    monkeypatch.setitem(SETUPS, "tiny_shared", tuple(ClientSpec(task, "segformer_medium", size) for task, size in sizes))
    base = Settings(setup="tiny_shared", method="mfed", rounds=3, num_peers=2, batch_size=8, public_size=16, validation_size=20,
                    test_size=20, min_local_steps=2)
    return base.replace
