"""The server of parameter-sharing methods: what it accepts from clients, and the averages it takes.

A state is {name: tensor}, as of `state_dict`.  E_c, D_c: encoder and decoder of client c of task t_c with n_c private scenes.
"""

import warnings
from typing import NamedTuple

import torch

from .checks import positive_int

BAD_UPLOADS = ("raise", "skip")


class Upload(NamedTuple):
    """What one client sends: its index, the name of its task, its number of private scenes, encoder and decoder states.

    decoder: None where the method keeps decoders private; encoder: None where it is frozen.
    """

    client: int
    task: str
    samples: int
    encoder: dict | None
    decoder: dict | None


def weighted_mean(states, weights):
    """sum_k w_k theta_k / sum_k w_k of states with the same names, parameter by parameter."""
    total = sum(weights)
    pairs = [(state, weight / total) for state, weight in zip(states, weights, strict=True)]
    return {name: sum(share * state[name] for state, share in pairs) for name in states[0]}


def mean_per_task(uploads, part):
    """{task: sum over its clients of n_c theta_c / sum of n_c}; part: "encoder" or "decoder"."""
    tasks = sorted({upload.task for upload in uploads})
    members = {task: [upload for upload in uploads if upload.task == task] for task in tasks}
    return {task: weighted_mean([getattr(one, part) for one in members[task]], [one.samples for one in members[task]])
            for task in tasks}


def mean_over_tasks(uploads):
    """M-Fed's encoder: the mean over tasks, each alike, of the encoders' weighted means within the task."""
    means = list(mean_per_task(uploads, "encoder").values())
    return weighted_mean(means, [1] * len(means))


def mean_over_clients(uploads):
    """sum_c n_c E_c / sum_c n_c over all clients, whatever their task."""
    return weighted_mean([upload.encoder for upload in uploads], [upload.samples for upload in uploads])


def soft_groups(uploads, shift=0.0):
    """(clients, clients) weights of MaT-FL, rows sum to 1: max(0, cos(u_c, u_k) + shift), normalised; cos(u_c, u_c) = 1.

    u_c = E_c - mean of all E, as one vector: not the update of a round, what adds up over rounds.  Differences to a mean point
    away from each other, so with shift 0 clients that have little in common keep their own encoder.  Scenes do not count.
    After Cai et al. (2023), "Many-Task Federated Learning", whose code has the shift as a parameter.
    """
    vectors = torch.stack([torch.cat([value.flatten() for value in upload.encoder.values()]) for upload in uploads])
    apart = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    scores = (apart @ apart.T).fill_diagonal_(1.0).add(shift).clamp(min=0)     # alone, a client is its own group
    return scores / scores.sum(1, keepdim=True)


def mean_by_groups(uploads, shift=0.0):
    """{client: sum_k g_ck E_k}, g from `soft_groups`: every client gets an encoder of its own."""
    weights, states = soft_groups(uploads, shift).tolist(), [upload.encoder for upload in uploads]
    return {upload.client: weighted_mean(states, row) for upload, row in zip(uploads, weights, strict=True)}


def accepted(uploads, expected, parts=("encoder", "decoder"), bad_uploads="raise"):
    """The uploads that can be averaged, by client index.

    expected: {client: (task, encoder state, decoder state)} as the client registered and as the server last sent it.
    parts: what travels.  Raises ValueError naming the client for an unknown client or task, a second upload, a task that is
    not its own, a number of scenes below 1, a part that is missing, names or shapes that differ, NaN or infinity; with
    `bad_uploads` "skip" such an upload is left out, with a warning.
    """
    good = []
    for upload in sorted(uploads, key=lambda upload: upload.client):
        try:
            _check(upload, expected, parts)
            if good and good[-1].client == upload.client:
                raise ValueError(f"client {upload.client}: got a second upload, expected one a round")
            good.append(upload)
        except ValueError as error:
            if bad_uploads == "raise":
                raise
            warnings.warn(f"upload left out: {error}", stacklevel=2)
    return good


def _check(upload, expected, parts):
    who = f"client {upload.client}"
    if upload.client not in expected:
        raise ValueError(f"{who}: not registered, expected one of {sorted(expected)}")
    task, *states = expected[upload.client]
    known = sorted({name for name, *_ in expected.values()})
    if upload.task not in known:
        raise ValueError(f"{who}: got unknown task {upload.task!r}, expected one of {known}")
    if upload.task != task:
        raise ValueError(f"{who}: got task {upload.task!r}, expected {task!r}, for which it is registered")
    positive_int(f"{who}: samples", upload.samples)
    for part, state in zip(("encoder", "decoder"), states, strict=True):
        sent = getattr(upload, part)
        if (sent is None) == (part in parts):
            raise ValueError(f"{who}: got {'no' if sent is None else 'a'} {part}, expected {' and '.join(parts)}")
        if sent is None:
            continue
        shapes, wanted = ({name: tuple(value.shape) for name, value in one.items()} for one in (sent, state))
        for name in sorted(shapes.keys() | wanted.keys()):
            if shapes.get(name) != wanted.get(name):
                raise ValueError(f"{who}: got {part} parameter {name!r} of shape {shapes.get(name)}, expected "
                                 f"{wanted.get(name)}: all clients need one architecture")
        for name, value in sent.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise ValueError(f"{who}: got NaN or infinity in {part} parameter {name!r}, expected finite numbers")
