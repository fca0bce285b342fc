"""What the server makes of uploads, against loops over single numbers."""

import statistics

import pytest
import torch
from literal import mean_by_loops, soft_groups_by_loops, votes_by_hand

from fedmuscle_core.aggregation import (
    Upload,
    count_votes,
    kernel_mean,
    mean_by_groups,
    mean_over_clients,
    mean_over_tasks,
    mean_per_task,
    mean_without_extremes,
    median,
    soft_groups,
    trimmed_mean,
    weighted_mean,
)
from fedmuscle_core.methods.matfl import MaTFL
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


def test_counters_among_the_parameters_stay_whole_numbers():
    """As of batch normalisation: float32 means in their place would not be what clients upload next."""
    states = [{"num_batches_tracked": torch.tensor(count)} for count in (3, 4, 8)]
    found = weighted_mean(states, [1, 1, 1])["num_batches_tracked"]
    assert found.dtype == torch.long and found == 5


def by_loops(states, one_of):
    """{name: one_of(the sorted values of all states)}, one number at a time."""
    return {name: torch.tensor([one_of(sorted(column)) for column in zip(*(each[name].flatten().tolist() for each in states),
                                                                         strict=True)], dtype=torch.float64).view(first.shape)
            for name, first in states[0].items()}


@pytest.mark.parametrize("count", range(1, 12))
def test_the_averages_that_leave_out_extremes_are_their_loops(count):
    states, weights = [state(number, (3, 2), ()) for number in range(count)], list(range(1, count + 1))
    for drop in range((count + 1) // 2):
        assert close(trimmed_mean(states, drop), by_loops(states, lambda values, drop=drop: statistics.fmean(
            value for place, value in enumerate(values) if drop <= place < count - drop)))
    assert close(median(states, weights), by_loops(states, statistics.median))
    drop = {1: 0, 2: 0, 10: 2, 11: 2}.get(count, 1)
    assert close(mean_without_extremes(states, weights), trimmed_mean(states, drop))


@pytest.mark.parametrize("average", [median, mean_without_extremes])
def test_robust_averages_keep_the_type_and_round_counters(average):
    states = [{"count": torch.tensor(count), "w": torch.tensor([0.1 * count])} for count in (3, 4, 90)]
    found = average(states, [1, 1, 1])
    assert found["count"].dtype == torch.long and found["count"] == 4
    assert found["w"].dtype == torch.float32 and found["w"].item() == pytest.approx(0.4)


@pytest.mark.parametrize("average", [median, mean_without_extremes])
@pytest.mark.parametrize("sign", [-1, 1])
def test_one_poisoned_state_moves_the_mean_far_and_robust_averages_little(average, sign):
    honest = [state(number, (20, 10)) for number in range(5)]
    poisoned = [*honest[:4], {name: 1e4 * sign * value.abs() for name, value in honest[4].items()}]

    def moved(average):
        before, after = (average(states, [1] * 5)["layer0"] for states in (honest, poisoned))
        return (after - before).abs()

    assert moved(weighted_mean).norm() > 1000 * moved(average).norm()
    spread = torch.stack([each["layer0"] for each in honest[:4]])
    found = average(poisoned, [1] * 5)["layer0"]
    assert (found >= spread.amin(0)).all() and (found <= spread.amax(0)).all()


@pytest.mark.parametrize("average", ["median", "trimmed_mean"])
def test_matfl_refuses_averages_that_leave_its_weights_aside(average):
    with pytest.raises(ValueError, match=f"average: got '{average}', expected 'mean' with MaT-FL"):
        MaTFL(average=average)
    assert MaTFL(average="mean").average == "mean"


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


def test_the_kernel_mean_is_the_mean():
    kernels = [torch.randn(3, 3, generator=generator(seed), dtype=torch.float64) for seed in range(4)]
    assert torch.equal(kernel_mean(kernels), sum(kernels) / 4)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("voters", [1, 2, 3, 5])
def test_votes_are_counted_as_by_hand(voters, share):
    votes = torch.randint(-1, 4, (voters, 200), generator=generator(voters))
    assert count_votes(list(votes), share).tolist() == votes_by_hand(votes.tolist(), share)


def test_votes_where_the_answer_is_known():
    votes = [torch.tensor(cast) for cast in ([2, 2, -1, 1, -1], [2, 1, -1, 0, 3], [0, -1, -1, 0, -1])]
    assert count_votes(votes, 0.3).tolist() == [2, -1, -1, 0, 3]      # majority, tie, nobody, majority, one of three
    assert count_votes(votes, 0.5).tolist() == [2, -1, -1, 0, -1]
    assert count_votes([torch.full((4,), -1)] * 2, 0.3).tolist() == [-1] * 4
