import pytest
import torch

from fedmuscle_core.alignment import alignment_matrices, linear_cka, retrieval, squared_distance, summaries, uniformity


def draw(seed=0):
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cka_by_gram_matrices(x, y):
    n = len(x)
    centre = torch.eye(n, dtype=x.dtype) - 1 / n
    gram_x, gram_y = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return ((gram_x * gram_y).sum() / (gram_x.square().sum() * gram_y.square().sum()).sqrt()).item()


def test_cka_equals_its_definition_by_centred_gram_matrices():
    x, y = draw(0), draw(1)[:, :4]
    assert linear_cka(x, y) == pytest.approx(cka_by_gram_matrices(x, y), abs=1e-12)


def test_cka_is_one_under_rotation_scale_and_shift_and_low_for_independent_data():
    x = draw()
    rotation, _ = torch.linalg.qr(draw(2)[:6])
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, draw(3)) < 0.5


def test_retrieval_finds_the_same_row():
    x = draw()
    assert retrieval(x, 2 * x) == 1
    assert retrieval(x, -x) == 0
    assert retrieval(x, draw(4)) < 0.2


def test_matrices_have_one_row_a_client():
    matrices = alignment_matrices([draw(0), draw(1), draw(2)])
    assert set(matrices) == {"cka", "retrieval", "distance", "uniformity"}
    assert all(len(rows) == 3 for rows in matrices.values())
    assert all(matrices[name][n][n] == 1 for name in ("cka", "retrieval") for n in range(3))
    assert all(matrices["distance"][n][n] == 0 for n in range(3))


def test_distance_and_uniformity_equal_their_definitions():
    x, y = draw(0), draw(1)
    unit = [table / table.norm(dim=1, keepdim=True) for table in (x, y)]
    by_hand = sum(((unit[0][i] - unit[1][i]) ** 2).sum() for i in range(len(x))) / len(x)
    assert squared_distance(x, y) == pytest.approx(by_hand.item(), abs=1e-10)
    pairs = [torch.exp(-2 * ((unit[0][i] - unit[0][j]) ** 2).sum()) for i in range(len(x)) for j in range(i)]
    assert uniformity(x) == pytest.approx(torch.log(sum(pairs) / len(pairs)).item(), abs=1e-10)


def test_distance_and_uniformity_where_the_answer_is_known():
    x = draw()
    assert squared_distance(x, 3 * x) == pytest.approx(0) and squared_distance(x, -x) == pytest.approx(4)
    assert uniformity(torch.ones(5, 3)) == pytest.approx(0) and uniformity(draw()) < -1
    two = torch.tensor([[1.0, 0], [-1, 0]])
    assert uniformity(two) == pytest.approx(-8)


def test_summaries_are_means_over_pairs_of_different_clients():
    table = summaries({"cka": [[1.0, 0.2], [0.4, 1.0]], "uniformity": [-1.0, -2.0]}).set_index("measure")["value"]
    assert table.to_dict() == pytest.approx({"cka": 0.3, "uniformity": -1.5})
