import os
import signal
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")    # read when transformers is imported: no test waits for a network
os.environ["FEDMUSCLE_COMMIT"] = "1"            # of committed runs those alone, not what a user has computed beside them
signal.signal(signal.SIGINT, signal.default_int_handler)       # a shell lets what it starts in the background ignore it

import pytest  # noqa: E402
import torch  # noqa: E402

from fedmuscle_core.experiments.settings import Settings  # noqa: E402
from fedmuscle_core.experiments.setups import Setup, with_tasks  # noqa: E402

TINY = Setup("tiny", (("mlc", "resnet_small", 64), ("ic100", "resnet_small", 48), ("ic10", "vit_small", 24)))
SHARED = Setup("tiny_shared", with_tasks({"edges": (24, 10), "saliency": (16, 12)}))
torch.set_num_threads(1)                        # networks of tests are small: more threads only wait for one another


@pytest.fixture(scope="session")
def tiny():
    """Settings of a three-client federation that trains in about a second; `tiny(field=value)` changes a field, the setup
    or the method, by name, among them."""
    return partial(Settings.of, setup=TINY, method="fedmuscle", rounds=2, num_peers=2, batch_size=8, public_size=20,
                   validation_size=30, test_size=40)


@pytest.fixture
def shared():
    """Likewise, of four clients of two dense tasks with one architecture."""
    return partial(Settings.of, setup=SHARED, method="mfed", rounds=3, num_peers=2, batch_size=8, public_size=16,
                   validation_size=20, test_size=20, min_local_steps=2)


@pytest.fixture
def real_excerpts():
    """The folder of the real excerpts; skips where there is none."""
    if not os.environ.get("FEDMUSCLE_DATA"):
        pytest.skip("FEDMUSCLE_DATA is not set: it names the folder of the real excerpts")
    return os.environ["FEDMUSCLE_DATA"]
