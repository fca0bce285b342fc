"""Shadow federations for notebook 19: what uploads tell of who was in the private set, which classes it has, which task it has.

    python -m fedmuscle_core.experiments.shadows [--workers 2]

Client 1 draws half of POOL candidates anew in each of SHADOWS federations; what its upload tells of every candidate is kept, a
line a federation, in STORED, and a killed run goes on.  It is what the client would send next, after its last local phase, if
the server asked for the candidates, as one may that chooses the public samples.  Initial weights, orders, public samples and
the other clients' private sets differ between federations, the candidates do not.
"""

import argparse
import contextlib
import copy
import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from filelock import FileLock
from tqdm.auto import tqdm

from ..client import local_phase, local_steps, represent, score
from ..data import Samples
from ..exchange import Diverged
from ..federation import Federation
from ..network import in_batches
from ..paths import layers, results, written_beside
from ..privacy.attacks import confidence, inverted, margin, psnr, ridge_confidence
from ..seeds import generator
from ..world.scenes import digit_scenes
from ..world.tasks import targets, task_named
from .build import build, read, world_for
from .code import code_digest
from .forecast import as_text
from .processes import affordable, in_processes, stoppable
from .profiles import profile_settings
from .runs import is_new_enough, one_thread
from .setups import EMBEDDED, ClientSpec, Setup
from .store import environment, now, write_atomically

STORED = results("mini") / "privacy" / "shadows.ndjson"
INVERSION = STORED.with_name("inversion.json")
POOL, SHADOWS, FIRST = 400, 32, 200                    # candidates, federations, the first one's seed
SETUP = Setup("shadows", (ClientSpec("ic100", "vit_small", POOL), ClientSpec("mlc", "vit_small", 20),
                          ClientSpec("ic10", "vit_small", 15)), EMBEDDED | {
    "num_peers": 2, "keep_best": False, "contrastive_steps": 30}, tuned_as="embedded1")
# {name: (method, its values, what of its upload is read)}; lam 0, as DP-SGD takes no further term. Of Local nothing leaves: it
# is what the others are held against, and what would be found if it did. Names are those of the undefended one, and the defence
# after a comma.
VARIANTS = {
    "Local": ("local", {}, "parameters"),
    "FedMuscle": ("fedmuscle", {}, "representations"),
    "FedMuscle, noise 0.03": ("fedmuscle", {"noise": 0.03}, "representations"),
    "FedMuscle, noise 0.1": ("fedmuscle", {"noise": 0.1}, "representations"),
    "FedMuscle, noise 0.3": ("fedmuscle", {"noise": 0.3}, "representations"),
    "FedMuscle, DP-SGD 0.5": ("fedmuscle", {"noise_multiplier": 0.5}, "representations"),
    "FedMuscle, DP-SGD 1": ("fedmuscle", {"noise_multiplier": 1.0}, "representations"),
    "FedHeNN": ("fedhenn", {}, "kernels"),
    "CoFED": ("cofed", {}, "votes"),
    "M-Fed": ("mfed", {"lam": 0.0, "measure_gradients": False}, "parameters"),
    "M-Fed, DP-SGD 1": ("mfed", {"lam": 0.0, "measure_gradients": False, "noise_multiplier": 1.0}, "parameters"),
}
# {what is read: names of the numbers that are read of each candidate}, the attack's first; the others are told beside it.
NUMBERS = {"parameters": ("confidence",), "votes": ("vote",), "representations": ("ridge", "margin"),
           "kernels": ("ridge", "margin")}
PROBED = ("ic100", "mlc", "ic10")                       # tasks of the clients, in their order
CODE = ("experiments/shadows.py", "privacy/attacks.py")


def settings_of(variant, shadow, **changes):
    """The settings of one federation, as tuned on Setup 1; M-Fed, which nobody tuned there, with Local's values."""
    method, values, _ = VARIANTS[variant]
    known = "local" if method == "mfed" else method
    (settings,) = profile_settings("mini", SETUP, known, [FIRST + shadow])
    return settings.replace(method=method, **values | changes)


def play(variant, shadow, **changes):
    """The record of one federation: the NUMBERS that are read of each candidate, who is a member, scores in percent, what a
    probe reads of each task in what each client sends, by nearest class means; of one that diverged, `failed` says why."""
    settings, clock = settings_of(variant, shadow, **changes), time.perf_counter()
    with one_thread():
        clients, (inputs, wanted) = build(settings).clients, candidates(settings)
        member = torch.rand(POOL, generator=generator(FIRST + shadow, "member")) < 0.5
        clients[0].data["train"] = Samples(int(member.sum()), inputs[member], wanted[member])
        about = {"variant": variant, "shadow": shadow, "member": "".join(str(int(one)) for one in member),
                 "settings": settings.flat(), "code": code_digest(*CODE), "versions": environment()}
        federation = Federation(clients, settings.method, seed=settings.seed, training=settings.training)
        try:
            federation.fit(settings.rounds, progress=False)
        except Diverged as error:
            return about | {"failed": str(error), "finished": now(), "seconds": round(time.perf_counter() - clock, 1)}
        values = told(settings.method, clients[0], inputs, wanted, VARIANTS[variant][2], settings.rounds)
        return about | {
            "values": {name: [float(f"{value:.4g}") for value in several.tolist()] for name, several in values.items()},
            "score": {str(client.name): round(score(client, "test"), 2) for client in clients},
            "probes": {str(client.name): probe_shares(settings.method, client, settings.rounds) for client in clients
                       if VARIANTS[variant][2] == "representations"},
            "finished": now(), "seconds": round(time.perf_counter() - clock, 1)}


def candidates(settings):
    """(inputs, targets) of the POOL candidates, the same whatever the seed."""
    pairs, wanted = world_for(settings.replace(seed=FIRST)).private(1)["train"]
    task = task_named(SETUP.clients[0].task)
    return read(task, SETUP.clients[0].backbone, task.modality, pairs), wanted


def sent(method, client, inputs, round, about):
    """(n, d) what the client sends as representations of `inputs`, with the method's noise, which is another one for each thing
    that it is asked `about`."""
    rows = F.normalize(represent(client, Samples(len(inputs), inputs)).float(), dim=1)
    return method.noisy(client, rows, round, "asked for", about) if hasattr(method, "noisy") else rows


def told(method, client, inputs, wanted, reads, round):
    """{name of NUMBERS: (n,)} what an upload tells of each candidate: "parameters", the confidence of the network in its
    answer; "votes", whether it votes for it; "representations", the confidence of a head that the attacker fits on the other
    candidates, and how much nearer it lies to its class than to others; "kernels", the same within each batch of which a kernel
    is sent."""
    if reads in ("representations", "kernels"):
        rows = sent(method, client, inputs, round, "candidates")
        size = len(rows) if reads == "representations" else method.batch_size
        found = [(ridge_confidence(part @ part.T, answers), torch.nan_to_num(margin(part @ part.T, answers)))
                 for part, answers in zip(rows.split(size), wanted.split(size), strict=True)]
        return dict(zip(("ridge", "margin"), map(torch.cat, zip(*found, strict=True)), strict=True))
    if reads == "votes":
        return {"vote": (method.votes(client, Samples(len(inputs), inputs)) == wanted).float()}
    client.network.eval()
    return {"confidence": confidence(in_batches(client.network, inputs), wanted)}


def probe_shares(method, client, round, count=600):
    """{task: share of labelled scenes whose answer the nearest of the class means of as many others tells, in percent}."""
    found = {}
    for name in PROBED:
        scenes = digit_scenes("public", task_named(name).layout, 2 * count, FIRST, "probe")
        answers, rows = targets(name, scenes), sent(method, client, scenes.images, round, name)
        if name == "mlc":                                                      # each digit for itself
            right = [_nearest(rows, answers[:, label].long(), count) for label in range(answers.shape[1])]
            found[name] = float(f"{100 * sum(right) / len(right):.2f}")
        else:
            found[name] = float(f"{100 * _nearest(rows, answers, count):.2f}")
    return found


def _nearest(rows, classes, count):
    first, second = (rows[:count], classes[:count]), (rows[count:], classes[count:])
    known = first[1].unique()
    means = F.normalize(torch.stack([first[0][first[1] == one].mean(0) for one in known]), dim=1)
    return (known[(second[0] @ means.T).argmax(1)] == second[1]).float().mean().item()


def inversions(path=INVERSION, samples=4, steps=300, **changes):
    """What an update of M-Fed's encoder shows of private pictures, computed where `path` does not tell, else read from it.

    {"rows": [{"read", "cosine", "psnr", "nothing"}], "pictures": {name: hexadecimal bytes of a picture (3, H, W)}, ..}.  Read:
    the step on one sample, for each of `samples`, held against that sample; the change of a whole local phase, by the network
    that the server sent, held against all private pictures, the best.  nothing: the mean public picture, held against the same.
    """
    settings = settings_of("M-Fed", 0, **changes)
    for place in layers(path):
        for found in _lines(place):
            if found["settings"] == settings.flat() and found["steps"] == steps and is_new_enough(found):
                return found
    with one_thread():
        client = build(settings).clients[0]
        sent_network, (inputs, answers) = copy.deepcopy(client.network).eval(), client.data["train"].take(torch.arange(POOL))
        parameters = list(sent_network.encoder().parameters())
        public = world_for(settings.replace(method="fedmuscle")).public().images.mean(0)
        rows, pictures = [], {}
        for place in range(samples):
            loss = client.task.loss(sent_network(inputs[place:place + 1]), answers[place:place + 1])
            update = -_flat(torch.autograd.grad(loss, parameters, materialize_grads=True))
            guess, cosine = inverted(sent_network, client.task, update, answers[place:place + 1], inputs[:1].shape, steps)
            rows.append({"read": "one step, one sample", "cosine": cosine, "psnr": psnr(guess[0], inputs[place]),
                         "nothing": psnr(public, inputs[place])})
            pictures |= {f"private {place}": inputs[place], f"one step {place}": guess[0]}
        before = _flat(client.network.encoder().parameters())
        local_phase(client, 1)
        update = _flat(client.network.encoder().parameters()) - before
        guess, cosine = inverted(sent_network, client.task, update, answers[:1], inputs[:1].shape, steps)
        pictures["a phase"] = guess[0]
        best = {name: max(psnr(picture, one) for one in inputs) for name, picture in (("psnr", guess[0]), ("nothing", public))}
        rows.append({"read": "a local phase", "cosine": cosine} | best)
    found = {"rows": rows, "pictures": {name: (255 * picture).round().byte().numpy().tobytes().hex()
                                        for name, picture in pictures.items()},
             "shape": list(inputs.shape[1:]), "steps": steps, "settings": settings.flat(), "code": code_digest(*CODE),
             "versions": environment(), "finished": now()}
    write_atomically(written_beside(path), json.dumps(found) + "\n")
    return found


def picture_of(found, name):
    """(3, H, W) one of the pictures of `inversions`, in [0, 1]."""
    values = torch.frombuffer(bytearray.fromhex(found["pictures"][name]), dtype=torch.uint8)
    return values.view(found["shape"]).float() / 255


def _flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _lines(path):
    """Records of the whole lines of a file, none where there is none; ValueError naming a line that is damaged."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    records = []
    for number, line in enumerate((line for line in lines if line.endswith("\n")), 1):
        try:
            records.append(json.loads(line))
            records[-1]["settings"], records[-1]["finished"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: line {number}: got a damaged record ({type(error).__name__}), expected one of a shadow "
                             "federation; delete the line, and it is computed again") from error
    return records


def stored(path, variants, shadows, **changes):
    """{(variant, shadow): record} of the federations that are wanted, in a file and in what a user has written beside it, of
    the same settings."""
    records = {(record["variant"], record["shadow"]): record for place in reversed(layers(path)) for record in _lines(place)}
    wanted = [(variant, shadow) for shadow in range(shadows) for variant in variants]
    return {key: records[key] for key in wanted if key in records and is_new_enough(records[key])
            and records[key]["settings"] == settings_of(*key, **changes).flat()}


def compute(path=STORED, variants=tuple(VARIANTS), shadows=SHADOWS, workers=1, **changes):
    """{(variant, shadow): record} of all, those that `path` lacks computed and appended."""
    found = stored(path, variants, shadows, **changes)
    keys = [(variant, shadow) for shadow in range(shadows) for variant in variants]
    missing, path = [(*key, changes) for key in keys if key not in found], written_beside(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and (text := path.read_text()) and not text.endswith("\n"):              # of a killed run
        write_atomically(path, text[:text.rfind("\n") + 1])
    bar = tqdm(total=len(missing), desc="shadow federations", disable=not missing)
    with bar, contextlib.closing(in_processes(_play, missing, max(1, min(workers, len(missing))))) as done:
        for (variant, shadow, _), record in done:
            if isinstance(record, Exception):
                record.add_note(f"in federation {shadow} of {variant}")
                raise record
            with FileLock(path.with_name(f".{path.name}.lock")), path.open("a") as file:
                file.write(json.dumps(record, separators=(",", ":")) + "\n")
                file.flush()
                os.fsync(file.fileno())
            found[variant, shadow] = record
            bar.update()
    return {key: found[key] for key in keys}


def _play(variant, shadow, changes):
    return play(variant, shadow, **changes)


def forecast(path=STORED, shadows=SHADOWS):
    """How many federations `path` lacks, and how long they take by the times of those it has, as a sentence; "" for none."""
    found = stored(path, tuple(VARIANTS), shadows)
    seconds = [record["seconds"] for record in found.values()]
    if not (lacking := len(VARIANTS) * shadows - len(found)):
        return ""
    long = as_text(lacking * sum(seconds) / len(seconds)) if seconds else "an unknown time"
    return f"notebook 19 computes {lacking} shadow federations: about {long} with one worker"


def privacy_of(settings, private):
    """(noise multiplier, sample rate, steps) of the local phases of a run, for a client with so many private samples."""
    _, steps = local_steps(settings.training, private)
    rate = min(1.0, settings.training.local_batch_size / private)
    return settings.training.noise_multiplier, rate, settings.rounds * steps


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1)
    workers = affordable(parser.parse_args(argv).workers)
    with stoppable("finished federations are kept: the same command goes on"):
        compute(workers=workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
