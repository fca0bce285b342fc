"""What runs on real data would download, load, train and exchange, without network and without doing it.

Networks are built without weights (torch's meta device) from the configurations of `checkpoints`, so parameters, operations
and kept activations are counted, not guessed.  Hours need a rate, which is assumed: see RATE.
"""

import math
from collections import Counter

import pandas as pd
import torch
from huggingface_hub import try_to_load_from_cache
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from ..client import assembled
from ..exchange import bytes_per_step
from ..methods import METHODS
from ..methods.contrastive import public_batches
from ..networks.backbones import backbone_folder
from ..networks.checkpoints import CHECKPOINTS
from ..networks.client_network import num_parameters
from ..networks.text import TEXT_LENGTH
from ..world.real.sources import source_folder, source_named
from ..world.tasks import task_named
from .setups import SETUP_SETTINGS, SETUPS

RATE = 50e12          # operations a second that a data-centre GPU sustains on these networks: assumed, not measured
BANDWIDTH = 8e9       # bytes a second between host and accelerator: assumed likewise
STATE = 20            # bytes a trainable parameter: gradient and two AdamWs' two moments each, float32
RELAYED = ("gramian", "pairwise", "fedmuscle")       # their representations travel, so bytes have a closed form


def report(settings_list):
    """The forecast of runs on real data, as text."""
    setups = list(dict.fromkeys(settings.setup for settings in settings_list))
    parts = [f"{len(settings_list)} runs, nothing is started.", "", sources_text(settings_list), "", backbones_text(setups)]
    for setup in setups:
        several = [settings for settings in settings_list if settings.setup == setup]
        clients = client_table(several[0])
        parts += ["", f"{setup}: clients, {several[0].adaptation} (rank {several[0].lora_rank})",
                  clients.to_string(index=False), "", f"{setup}: runs", run_table(several, clients).to_string(index=False), ""]
        parts += [memory_text(settings, clients) for settings in {settings.method: settings for settings in several}.values()]
    parts.append(f"Hours are at an assumed {RATE / 1e12:.0f} TFLOP/s and {BANDWIDTH / 1e9:.0f} GB/s between host and "
                 "accelerator; no accelerator was timed.  Reading data comes on top.")
    return "\n".join(parts)


def sources_text(settings_list):
    """One line a source: here, or what its download would be."""
    names = {task_named(spec.task).source for settings in settings_list for spec in SETUPS[settings.setup]}
    names |= {settings.public_domain for settings in settings_list if "public_domain" in METHODS[settings.method].reads}
    names |= {SETUP_SETTINGS[settings.setup]["public_domain"] for settings in settings_list}   # how alike representations are
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
    for name in sorted({spec.backbone for setup in setups for spec in SETUPS[setup]}):
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
    config = CHECKPOINTS[name].config if folder is None else AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        return AutoModel.from_config(config)


def client_skeleton(spec, settings):
    """A client's network without weights, as `client.make_model` would build it."""
    with torch.device("meta"):
        plain = settings.replace(precision="float32")                         # meta tensors have no autocast
        return assembled(task_named(spec.task), skeleton(spec.backbone), spec.backbone, plain)


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
    for index, spec in enumerate(SETUPS[settings.setup], 1):
        model, batch, kept = client_skeleton(spec, settings), sample_batch(spec, 1), {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage()._cdata] = tensor                    # one entry a storage: views cost nothing
            return tensor

        with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            if batch.is_floating_point():
                model(batch)
            else:                                                             # a mask of texts would be asked for its values
                features = model.representation.backbone(input_ids=batch).last_hidden_state
                model.decode(features.mean(1))
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        activations = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights)
        total = sum(parameter.numel() for parameter in model.parameters())
        rows.append((index, spec.task, spec.backbone, total, num_parameters(model), round(counter.get_total_flops() / 1e9, 3),
                     round(activations / 1e6, 1)))
    return pd.DataFrame(rows, columns=["client", "task", "backbone", "parameters", "trainable", "GFLOP", "MB a sample"])


def run_table(settings_list, clients):
    """One row a method and public source, more where they cost differently: how many runs, hours of one at RATE, MB that one
    exchanges, and hours of all."""
    rows = [(settings.method, settings.public_domain if "public_domain" in METHODS[settings.method].reads else "-",
             hours(settings, clients), megabytes(settings)) for settings in settings_list]
    return pd.DataFrame([(method, domain, count, f"{took:.2f}", sent, f"{count * took:.1f}")
                         for (method, domain, took, sent), count in Counter(rows).items()],
                        columns=["method", "public data", "runs", "hours each", "MB exchanged each", "hours of all"])


def contrastive_steps(settings):
    """Public batches a round."""
    return len(public_batches(settings, 1)[0])


def local_steps(spec, settings):
    """(steps, samples) of a client's local phase."""
    batches = math.ceil(spec.train_size / settings.local_batch_size)
    epochs = max(settings.local_epochs, math.ceil(settings.min_local_steps / batches))
    return epochs * batches, epochs * spec.train_size


def hours(settings, clients):
    """Hours of one run at RATE and BANDWIDTH.

    Operations: a step costs the forward, the way back through activations and, where weights learn, as much again for their
    gradients; a graph that is made again, one forward more.  Traffic: with `offload` a network comes and goes at each turn.
    """
    back, seconds = 2 if settings.adaptation == "full" else 1, 0.0
    again = settings.micro_batch_size or settings.offload
    public, batch = contrastive_steps(settings), settings.batch_size
    for spec, gflop, parameters, trainable in zip(SETUPS[settings.setup], clients["GFLOP"], clients["parameters"],
                                                  clients["trainable"], strict=True):
        steps, samples = local_steps(spec, settings)
        forwards, turns = (1 + back) * samples + settings.validation_size, 2
        if settings.method in RELAYED:
            forwards, turns = forwards + (1 + back + bool(again)) * public * batch, turns + 2 * public
        elif settings.method == "simclr":
            forwards, turns = forwards + 2 * (1 + back) * public * batch, turns + 1
        elif settings.method == "cofed":
            forwards, turns = forwards + (2 + back) * settings.public_size, turns + 1
        elif settings.method == "fedhenn":
            forwards, turns = forwards + (public + (1 + back) * min(public, steps)) * batch, turns + 1
        seconds += 1e9 * gflop * (settings.rounds * forwards + settings.test_size) / RATE
        if settings.offload:
            seconds += 2 * settings.rounds * turns * (4 * parameters + STATE * trainable) / BANDWIDTH
    return seconds / 3600


def megabytes(settings):
    """MB that one run exchanges, all clients, up and down, as text; methods without a closed form are counted when they run."""
    sent = bytes_exchanged(settings)
    return "counted when run" if sent is None else f"{sent / 1e6:,.0f}"


def bytes_exchanged(settings):
    """Bytes that one run exchanges, all clients, up and down; None where there is no closed form, as with absent clients."""
    if settings.method in ("local", "simclr"):
        return 0
    if settings.method not in RELAYED or settings.absence or settings.refresh != "batch":
        return None
    each = sum(bytes_per_step(settings.batch_size, settings.num_peers, settings.dim, settings.protocol))
    return settings.rounds * contrastive_steps(settings) * len(SETUPS[settings.setup]) * each


def samples_at_once(spec, settings):
    """Samples whose activations a client keeps at the same time, at most."""
    whole = max(settings.batch_size, settings.local_batch_size)
    if settings.method == "simclr":
        return max(2 * settings.batch_size, settings.local_batch_size)
    if settings.method == "cofed":
        return settings.local_batch_size + math.ceil(settings.public_size / local_steps(spec, settings)[0])
    if settings.method == "fedhenn":
        return settings.local_batch_size + settings.batch_size
    return min(whole, settings.micro_batch_size or whole)


def memory_text(settings, clients):
    """Peak memory of the accelerator and disk for the state, by parameters and kept activations."""
    weights = 4 * clients["parameters"] + STATE * clients["trainable"]
    samples = [samples_at_once(spec, settings) for spec in SETUPS[settings.setup]]
    activations = 1e6 * clients["MB a sample"] * samples
    together = settings.method in RELAYED and not (settings.offload or settings.micro_batch_size)    # all graphs wait
    kept = activations.sum() if together else (activations + weights * settings.offload).max()
    peak = kept + (0 if settings.offload else weights.sum())
    who = "one client at a time" if settings.offload else "all clients"
    state = STATE * clients["trainable"].sum()
    return (f"{settings.method}: memory of the accelerator about {peak / 1e9:.1f} GB ({who}, up to {max(samples)} samples at a "
            f"time, activations in float32); state of a run on disk {state / 1e6:,.0f} MB")
