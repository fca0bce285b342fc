"""The server's averages against loops over single numbers, and what it refuses to average."""

import warnings

import pytest
import torch
from literal import mean_by_loops, soft_groups_by_loops

from fedmuscle_core.aggregation import (
    Upload,
    accepted,
    mean_by_groups,
    mean_over_clients,
    mean_over_tasks,
    mean_per_task,
    soft_groups,
    weighted_mean,
)
from fedmuscle_core.seeds import generator


def state(seed, *shapes):
    rng = generator(seed, "test state")
    return {f"layer{number}": torch.randn(shape, generator=rng, dtype=torch.float64) for number, shape in enumerate(shapes)}


def upload(client, task, samples, seed=None):
    seed = client if seed is None else seed
    return Upload(client, task, samples, state(seed, (3, 2), (4,)), state(100 + seed, (2, 2, 1)))


UPLOADS = [upload(1, "edges", 7), upload(2, "edges", 100), upload(3, "parts", 31), upload(4, "semseg", 5),
           upload(5, "semseg", 6)]


def close(first, second):
    return first.keys() == second.keys() and all(torch.allclose(first[key], second[key], rtol=0, atol=1e-12) for key in first)


@pytest.mark.parametrize("weights", [[1], [1, 1], [3, 1], [800, 200, 50], [1, 2, 3, 4]])
@pytest.mark.parametrize("shapes", [[(1,)], [(3, 2), (4,)], [(2, 3, 1, 1), ()]])
def test_the_weighted_mean_is_its_loops(weights, shapes):
    states = [state(number, *shapes) for number in range(len(weights))]
    assert close(weighted_mean(states, weights), mean_by_loops(states, weights))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_means_within_tasks_weigh_clients_by_their_scenes(part):
    found = mean_per_task(UPLOADS, part)
    assert set(found) == {"edges", "parts", "semseg"}
    for task, members in {"edges": UPLOADS[:2], "parts": UPLOADS[2:3], "semseg": UPLOADS[3:]}.items():
        assert close(found[task], mean_by_loops([getattr(one, part) for one in members], [one.samples for one in members]))


def test_the_mean_over_tasks_weighs_tasks_alike_and_the_mean_over_clients_does_not():
    within = mean_per_task(UPLOADS, "encoder")
    assert close(mean_over_tasks(UPLOADS), mean_by_loops(list(within.values()), [1, 1, 1]))
    everybody = mean_by_loops([one.encoder for one in UPLOADS], [one.samples for one in UPLOADS])
    assert close(mean_over_clients(UPLOADS), everybody) and not close(mean_over_tasks(UPLOADS), everybody)


@pytest.mark.parametrize("changed", range(5))
def test_every_client_is_in_the_encoder_of_every_average(changed):
    """Moving one client's encoder by one moves the means by that client's weight."""
    moved = [one._replace(encoder={name: value + (place == changed) for name, value in one.encoder.items()})
             for place, one in enumerate(UPLOADS)]
    task = UPLOADS[changed].task
    in_task = sum(one.samples for one in UPLOADS if one.task == task)
    share = UPLOADS[changed].samples
    for mean, weight in ((mean_over_tasks, share / in_task / 3), (mean_over_clients, share / 149)):
        before, after = mean(UPLOADS), mean(moved)
        assert all(torch.allclose(after[name] - before[name], torch.tensor(weight, dtype=torch.float64)) for name in before)


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_soft_groups_are_their_loops(shift):
    assert torch.allclose(soft_groups(UPLOADS, shift), soft_groups_by_loops(UPLOADS, shift), atol=1e-12)
    weights, found = soft_groups_by_loops(UPLOADS, shift), mean_by_groups(UPLOADS, shift)
    for place, one in enumerate(UPLOADS):
        assert close(found[one.client], mean_by_loops([other.encoder for other in UPLOADS], weights[place].tolist()))


def test_soft_groups_where_the_answer_is_known():
    one, two = {"w": torch.tensor([1.0, 0])}, {"w": torch.tensor([-1.0, 0])}
    pairs = [Upload(client, "edges", 1, encoder, None) for client, encoder in ((1, one), (2, one), (3, two), (4, two))]
    half = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]])
    assert torch.allclose(soft_groups(pairs), half)
    assert torch.equal(soft_groups(pairs[:1]), torch.ones(1, 1))
    same = [one_upload._replace(encoder=one) for one_upload in pairs]
    assert torch.equal(soft_groups(same), torch.eye(4))                      # nobody moved: nothing tells who belongs together


EXPECTED = {one.client: (one.task, one.encoder, one.decoder) for one in UPLOADS}


def with_nan(part, name):
    states = {key: value.clone() for key, value in getattr(UPLOADS[1], part).items()}
    states[name].view(-1)[0] = float("nan")
    return UPLOADS[1]._replace(**{part: states})


BAD = {
    "task of another": (UPLOADS[1]._replace(task="parts"), "client 2: got task 'parts', expected 'edges'"),
    "unknown task": (UPLOADS[1]._replace(task="depth"), "client 2: got unknown task 'depth', expected one of"),
    "not registered": (UPLOADS[1]._replace(client=9), "client 9: not registered"),
    "shape": (UPLOADS[1]._replace(encoder=state(2, (3, 3), (4,))),
              r"client 2: got encoder parameter 'layer0' of shape \(3, 3\)"),
    "missing": (UPLOADS[1]._replace(decoder={}), "client 2: got decoder parameter 'layer0' of shape None"),
    "further": (UPLOADS[1]._replace(encoder=state(2, (3, 2), (4,), (1,))),
                r"client 2: got encoder parameter 'layer2' of shape \(1,\)"),
    "no decoder": (UPLOADS[1]._replace(decoder=None), "client 2: got no decoder, expected encoder and decoder"),
    "no scenes": (UPLOADS[1]._replace(samples=0), "client 2: samples: got 0, expected an integer of at least 1"),
    "NaN": (with_nan("encoder", "layer1"), "client 2: got NaN or infinity in encoder parameter 'layer1'"),
    "NaN in the decoder": (with_nan("decoder", "layer0"), "client 2: got NaN or infinity in decoder parameter 'layer0'"),
}


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_averaged_is_refused_by_name_or_left_out(bad, message):
    uploads = [UPLOADS[4], UPLOADS[0], bad, *UPLOADS[2:4]]
    with pytest.raises(ValueError, match=message):
        accepted(uploads, EXPECTED)
    with pytest.warns(UserWarning, match=message):
        good = accepted(uploads, EXPECTED, bad_uploads="skip")
    assert [one.client for one in good] == [1, 3, 4, 5]
    assert close(mean_over_tasks(good), mean_over_tasks([UPLOADS[0], *UPLOADS[2:]]))


def test_good_uploads_come_back_by_client_and_parts_that_do_not_travel_are_not_looked_at():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert accepted(UPLOADS[::-1], EXPECTED, bad_uploads="skip") == UPLOADS
        alone = [one._replace(decoder=None) for one in UPLOADS]
        assert accepted(alone, EXPECTED, ("encoder",)) == alone
    with pytest.raises(ValueError, match="client 1: got a decoder, expected encoder"):
        accepted(UPLOADS, EXPECTED, ("encoder",))


def test_a_client_counts_once():
    with pytest.raises(ValueError, match="client 2: got a second upload"):
        accepted([*UPLOADS, UPLOADS[1]], EXPECTED)
    with pytest.warns(UserWarning, match="client 2"):
        assert accepted([*UPLOADS, UPLOADS[1]], EXPECTED, bad_uploads="skip") == UPLOADS
