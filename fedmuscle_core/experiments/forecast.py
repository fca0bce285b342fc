"""What runs will cost before they are started: by the wall times of stored runs, and, on real data, what they would download,
load, train and exchange, without network and without doing it.

Networks are built without weights (torch's meta device) from the configurations of `checkpoints`, so parameters, operations
and kept activations are counted, not guessed.  Hours need a rate, which is assumed: see RATE.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from huggingface_hub import try_to_load_from_cache
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from ..client import local_steps
from ..networks.backbones import backbone_folder
from ..networks.checkpoints import CHECKPOINTS
from ..networks.client_network import num_parameters
from ..networks.text import TEXT_LENGTH
from ..world.real.sources import source_folder, source_named
from ..world.tasks import task_named
from .build import make_network
from .store import whole_runs

RATE = 50e12          # operations a second that a data-centre GPU sustains on these networks: assumed, not measured
BANDWIDTH = 8e9       # bytes a second between host and accelerator: assumed likewise
STATE = 20            # bytes a trainable parameter: gradient and two AdamWs' two moments each, float32


@dataclass(frozen=True)
class Work:
    """What a method's costs depend on, of one client: numbers of public samples, local samples and steps a round, samples of a
    local batch, of a micro-batch or None; offload; back: cost of a backward pass in forward passes; dim; absence."""

    public_size: int
    local_samples: int
    local_steps: int
    local_batch: int
    micro: int | None
    offload: bool
    back: int
    dim: int
    absence: float


def work_of(spec, settings):
    """The `Work` of a client of a `ClientSpec`.  Without weights that learn in the backbone the way back costs half."""
    compute, training = settings.compute, settings.training
    passes, steps = local_steps(training, spec.train_size)
    return Work(settings.public_size, passes * spec.train_size, steps, training.local_batch_size, compute.micro_batch_size,
                compute.offload, 2 if compute.adaptation == "full" else 1, settings.dim, settings.absence)


def seconds_per_client_round(folder):
    """{(setup, method): median wall seconds of a client and round} of the runs stored in `folder`, and {method: ...},
    {None: ...} over more of them, for what was never run."""
    times = {}
    for _, record, history in whole_runs(folder)[0]:
        settings = record["settings"]
        if settings.get("rounds", 0) > 1 and "wall_seconds" in record and "failed" not in record:
            took = record["wall_seconds"] / settings["rounds"] / history["client"].nunique()
            for key in ((settings["setup"], settings["method"]), settings["method"], None):
                times.setdefault(key, []).append(took)
    return {key: median(found) for key, found in times.items()}


def estimate(settings_list, folder, workers=1):
    """Seconds that computing `settings_list` will take with `workers` processes, or nan where nothing is stored in `folder` or
    below it in `tuning`, whose times count for setups that only they know."""
    return estimated(settings_list, times_stored(folder), workers)


def times_stored(folder):
    """What `estimated` needs to know, from the stored runs in `folder` and below it in `tuning`."""
    return seconds_per_client_round(Path(folder) / "tuning") | seconds_per_client_round(folder)


def estimated(settings_list, known, workers=1):
    """`estimate` from what `times_stored` gives."""
    def took(settings):
        keys = ((settings.setup.name, settings.method.name), settings.method.name, None)
        each = next((known[key] for key in keys if key in known), float("nan"))
        return each * settings.rounds * len(settings.setup.clients)
    return sum(map(took, settings_list)) / min(workers, max(1, len(settings_list)))


def as_text(seconds):
    """"40 s", "12 min" or "3.5 h"; "an unknown time" for nan."""
    if seconds != seconds:
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def report(settings_list):
    """The forecast of runs on real data, as text."""
    setups = list(dict.fromkeys(settings.setup for settings in settings_list))
    parts = [f"{len(settings_list)} runs, nothing is started.", "", sources_text(settings_list), "", backbones_text(setups)]
    for setup in setups:
        several = [settings for settings in settings_list if settings.setup == setup]
        clients, compute = client_table(several[0]), several[0].compute
        parts += ["", f"{setup.name}: clients, {compute.adaptation} (rank {compute.lora_rank})", clients.to_string(index=False),
                  "", f"{setup.name}: runs", run_table(several, clients).to_string(index=False), ""]
        parts += [memory_text(one, clients) for one in {settings.method.name: settings for settings in several}.values()]
    parts.append(f"Hours are at an assumed {RATE / 1e12:.0f} TFLOP/s and {BANDWIDTH / 1e9:.0f} GB/s between host and "
                 "accelerator; no accelerator was timed.  Reading data comes on top.")
    return "\n".join(parts)


def sources_text(settings_list):
    """One line a source: here, or what its download would be."""
    names = {task_named(task).source for settings in settings_list for task in settings.setup.tasks}
    names |= {settings.public_domain for settings in settings_list if settings.method.uses_public}
    names |= {settings.setup.settings["public_domain"] for settings in settings_list}   # how alike representations are
    lines = ["data:"]
    for name in sorted(names):
        size = sum(file.size for file in source_named(name).files)
        state = ("here: " + str(source_folder(name)) if source_folder(name).is_dir() else
                 f"to download, {size / 1e6:,.0f} MB: fedmuscle data fetch {name}" if size else "missing, not to be downloaded")
        lines.append(f"  {name}: {source_named(name).about}; {source_named(name).terms}; {state}")
    return "\n".join(lines)


def backbones_text(setups):
    """One line a backbone: a local folder, the hub's local cache, or what its download would be."""
    lines = ["backbones:"]
    for name in sorted({spec.backbone for setup in setups for spec in setup.clients}):
        folder, known = backbone_folder(name), CHECKPOINTS.get(name)
        if folder is not None:
            lines.append(f"  {name}: here: {folder}")
            continue
        if known is None:
            lines.append(f"  {name}: missing")
            continue
        cached = isinstance(try_to_load_from_cache(known.hub, "config.json", revision=known.revision), str)
        size = 4 * num_parameters(skeleton(name)) / 1e6
        state = "in the local cache" if cached else f"to download, about {size:,.0f} MB"
        lines.append(f"  {name}: {known.hub} at {known.revision[:10]}, {state}")
    return "\n".join(lines)


def skeleton(name):
    """The backbone of that name without weights: of `CHECKPOINTS`, or of a local folder."""
    folder = backbone_folder(name)
    config = CHECKPOINTS[name].config if folder is None else AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModel.from_config(config)


def client_skeleton(spec, settings):
    """A client's network without weights, as `build.make_client` would build it."""
    with torch.device("meta"):
        plain = settings.replace(precision="float32")                         # meta tensors have no autocast
        return make_network(task_named(spec.task), skeleton(spec.backbone), spec.backbone, plain)


def sample_batch(spec, size):
    """Inputs of `size` samples of a client, without values."""
    task = task_named(spec.task)
    if task.modality == "text":
        return torch.ones(size, TEXT_LENGTH, dtype=torch.long, device="meta")
    side = source_named(task.source).size
    return torch.empty(size, 3, side, side, device="meta")


def client_table(settings):
    """One row a client: task, backbone, parameters, those that learn, operations of one sample forward (GFLOP), activations
    that a training step keeps a sample (MB, float32)."""
    rows = []
    for index, spec in enumerate(settings.setup.clients, 1):
        network, batch, kept = client_skeleton(spec, settings), sample_batch(spec, 1), {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage()._cdata] = tensor                    # one entry a storage: views cost nothing
            return tensor

        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            if batch.is_floating_point():
                network(batch)
            else:                                                             # a mask of texts would be asked for its values
                features = network.representation.backbone(input_ids=batch).last_hidden_state
                network.decode(features.mean(1))
        weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        activations = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights)
        total = sum(parameter.numel() for parameter in network.parameters())
        rows.append((index, spec.task, spec.backbone, total, num_parameters(network), round(counter.get_total_flops() / 1e9, 3),
                     round(activations / 1e6, 1)))
    return pd.DataFrame(rows, columns=["client", "task", "backbone", "parameters", "trainable", "GFLOP", "MB a sample"])


def run_table(settings_list, clients):
    """One row a method and public source, more where they cost differently: how many runs, hours of one at RATE, MB that one
    exchanges, and hours of all."""
    rows = [(settings.method.name, settings.public_domain if settings.method.uses_public else "-",
             hours(settings, clients), megabytes(settings)) for settings in settings_list]
    return pd.DataFrame([(method, domain, count, f"{took:.2f}", sent, f"{count * took:.1f}")
                         for (method, domain, took, sent), count in Counter(rows).items()],
                        columns=["method", "public data", "runs", "hours each", "MB exchanged each", "hours of all"])


def hours(settings, clients):
    """Hours of one run at RATE and BANDWIDTH.

    Operations: a step costs the forward, the way back through activations and, where weights learn, as much again for their
    gradients; what a method adds it says itself.  Traffic: with `offload` a network comes and goes at each turn.
    """
    method, seconds = settings.method, 0.0
    for spec, gflop, parameters, trainable in zip(settings.setup.clients, clients["GFLOP"], clients["parameters"],
                                                  clients["trainable"], strict=True):
        work = work_of(spec, settings)
        forwards = (1 + work.back) * work.local_samples + settings.validation_size + method.forwards(work)
        seconds += 1e9 * gflop * (settings.rounds * forwards + settings.test_size) / RATE
        if work.offload:
            seconds += 2 * settings.rounds * method.turns(work) * (4 * parameters + STATE * trainable) / BANDWIDTH
    return seconds / 3600


def megabytes(settings):
    """MB that one run exchanges, all clients, up and down, as text; methods without a closed form are counted when they run."""
    sent = bytes_exchanged(settings)
    return "counted when run" if sent is None else f"{sent / 1e6:,.0f}"


def bytes_exchanged(settings):
    """Bytes that one run exchanges, all clients, up and down; None where there is no closed form, as with absent clients."""
    each = settings.method.bytes_per_round(work_of(settings.setup.clients[0], settings))
    return None if each is None else settings.rounds * len(settings.setup.clients) * each


def memory_text(settings, clients):
    """Peak memory of the accelerator and disk for the state, by parameters and kept activations."""
    weights, compute = 4 * clients["parameters"] + STATE * clients["trainable"], settings.compute
    samples = [settings.method.samples_at_once(work_of(spec, settings)) for spec in settings.setup.clients]
    activations = 1e6 * clients["MB a sample"] * samples
    together = getattr(settings.method, "refresh", None) == "batch" and not (compute.offload or compute.micro_batch_size)
    kept = activations.sum() if together else (activations + weights * compute.offload).max()      # together: all graphs wait
    peak = kept + (0 if compute.offload else weights.sum())
    who = "one client at a time" if compute.offload else "all clients"
    state = STATE * clients["trainable"].sum()
    return (f"{settings.method.name}: memory of the accelerator about {peak / 1e9:.1f} GB ({who}, up to {max(samples)} samples "
            f"at a time, activations in float32); state of a run on disk {state / 1e6:,.0f} MB")
