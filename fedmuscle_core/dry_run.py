"""What runs on real data would download, load, train and exchange, without network and without doing it.

Networks are built without weights (torch's meta device) from the configurations of `checkpoints`, so parameters, operations
and kept activations are counted, not guessed.  Hours need a rate, which is assumed: see RATE.
"""

import math

import pandas as pd
import torch
from huggingface_hub import try_to_load_from_cache
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from .adaptation import adapt
from .backbones import backbone_folder, pixels_of
from .checkpoints import CHECKPOINTS
from .exchange import bytes_per_step
from .methods import METHODS
from .models import ClientModel, DenseClientModel, num_parameters
from .setups import SETUPS
from .sources import source_folder, source_named
from .tasks import task_named
from .text import TEXT_LENGTH

RATE = 50e12          # operations a second that a data-centre GPU sustains on these networks: assumed, not measured
STATE = 12            # bytes a trainable parameter: gradient and AdamW's two moments, float32
RELAYED = ("gramian", "pairwise", "fedmuscle")       # their representations travel, so bytes have a closed form


def report(settings_list):
    """The forecast of runs on real data, as text."""
    setups = list(dict.fromkeys(settings.setup for settings in settings_list))
    parts = [f"{len(settings_list)} runs, nothing is started.", "", sources_text(settings_list), "", backbones_text(setups)]
    for setup in setups:
        several = [settings for settings in settings_list if settings.setup == setup]
        clients = client_table(several[0])
        parts += ["", f"{setup}: clients, {several[0].adaptation} (rank {several[0].lora_rank})",
                  clients.to_string(index=False), "", f"{setup}: runs", run_table(several, clients).to_string(index=False), "",
                  memory_text(several[0], clients)]
    return "\n".join(parts)


def sources_text(settings_list):
    """One line a source: here, or what its download would be."""
    names = {task_named(spec.task).source for settings in settings_list for spec in SETUPS[settings.setup]}
    names |= {settings.public_domain for settings in settings_list if "public_domain" in METHODS[settings.method].reads}
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
    task = task_named(spec.task)
    with torch.device("meta"):
        backbone = adapt(skeleton(spec.backbone), settings.adaptation, settings.lora_rank)
        scale = pixels_of(backbone, settings.image_size)
        if task.dense:
            return DenseClientModel(backbone, settings.dim, task.num_outputs, task.fine, scale)
        return ClientModel(backbone, settings.dim, task.num_outputs, text=task.modality == "text", scale=scale)


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
    """One row a method and public source: how many runs, hours of one at RATE, MB that one exchanges."""
    rows = {}
    for settings in settings_list:
        key = (settings.method, settings.public_domain if "public_domain" in METHODS[settings.method].reads else "-")
        count, *rest = rows.get(key, (0, hours(settings, clients), megabytes(settings)))
        rows[key] = (count + 1, *rest)
    return pd.DataFrame([(*key, count, f"{took:.2f}", sent) for key, (count, took, sent) in rows.items()],
                        columns=["method", "public data", "runs", "hours each", "MB exchanged each"])


def contrastive_steps(settings):
    """Public batches a round."""
    return settings.contrastive_steps or settings.contrastive_epochs * (settings.public_size // settings.batch_size)


def hours(settings, clients):
    """Hours of one run at RATE: a training step costs three forwards, and one more where the graph is made again."""
    reads_public, flops = "public_domain" in METHODS[settings.method].reads, 0.0
    public = contrastive_steps(settings) * settings.batch_size * reads_public
    views = {"simclr": 2 * 3, "cofed": 0}.get(settings.method, 4 if settings.micro_batch_size or settings.offload else 3)
    for spec, gflop in zip(SETUPS[settings.setup], clients["GFLOP"], strict=True):
        batches = math.ceil(spec.train_size / settings.local_batch_size)
        epochs = max(settings.local_epochs, math.ceil(settings.min_local_steps / batches))
        samples = 3 * epochs * spec.train_size + settings.validation_size + views * public
        flops += 1e9 * gflop * (settings.rounds * samples + settings.test_size)
    return flops / RATE / 3600


def megabytes(settings):
    """MB that one run exchanges, all clients, up and down, as text; methods without a closed form are counted when they run."""
    if settings.method in ("local", "simclr"):
        return "0"
    if settings.method not in RELAYED:
        return "counted when run"
    each = sum(bytes_per_step(settings.batch_size, settings.num_peers, settings.dim, settings.protocol))
    return f"{settings.rounds * contrastive_steps(settings) * len(SETUPS[settings.setup]) * each / 1e6:,.0f}"


def memory_text(settings, clients):
    """Peak memory of the accelerator and disk for the state, by parameters and kept activations."""
    size = settings.micro_batch_size or settings.batch_size
    each = 4 * clients["parameters"] + STATE * clients["trainable"]
    waiting = 0 if settings.offload else each.sum()
    peak = max(waiting + (0 if waiting else own) + 1e6 * size * activation for own, activation in
               zip(each, clients["MB a sample"], strict=True))
    state = STATE * clients["trainable"].sum()
    who = "one client at a time" if settings.offload else "all clients"
    return (f"memory of the accelerator: about {peak / 1e9:.1f} GB ({who}, {size} samples at a time, activations in float32); "
            f"state of a run on disk: {state / 1e6:,.0f} MB\n"
            f"hours are at an assumed {RATE / 1e12:.0f} TFLOP/s; no accelerator was timed")
