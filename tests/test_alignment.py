import pytest
import torch

from fedmuscle_core.alignment import alignment_matrices, linear_cka, retrieval


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
    assert set(matrices) == {"cka", "retrieval"}
    assert all(len(rows) == 3 and rows[n][n] == 1 for rows in matrices.values() for n in range(3))
