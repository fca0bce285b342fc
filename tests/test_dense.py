"""Dense labels: against slow twins that look at one pixel at a time."""

import torch

from fedmuscle_core.world.dense_labels import edges, nearest_slot, parts, saliency
from fedmuscle_core.world.scenes import SIZE, Scenes, digit_scenes

SCENES = digit_scenes("validation", "multi", 6, 3, "dense")


def pixels():
    return [(n, y, x) for n in range(len(SCENES.masks)) for y in range(SIZE) for x in range(SIZE)]


def position(y, x):
    return (2 * x + 1) / SIZE - 1, (2 * y + 1) / SIZE - 1


def slow_slot(n, y, x):
    here = position(y, x)
    present = [slot for slot in range(4) if SCENES.classes[n, slot] >= 0]
    return min(present, key=lambda slot: sum((a - b) ** 2 for a, b in zip(here, SCENES.centre[n, slot].tolist(), strict=True)))


def test_the_nearest_slot():
    found = nearest_slot(SCENES)
    assert all(found[pixel].item() == slow_slot(*pixel) for pixel in pixels())


def test_parts_are_the_quarters_of_the_nearest_glyph():
    found = parts(SCENES)
    for n, y, x in pixels():
        expected = 0
        if SCENES.masks[n, y, x] > 0:
            (u, v), (right, down) = SCENES.centre[n, slow_slot(n, y, x)].tolist(), position(y, x)
            expected = 1 + (right > u) + 2 * (down > v)
        assert found[n, y, x].item() == expected
    assert set(found.unique().tolist()) == {0, 1, 2, 3, 4}


def test_saliency_marks_the_brightest_glyph_and_no_other():
    found = saliency(SCENES)
    for n, y, x in pixels():
        present = [slot for slot in range(4) if SCENES.classes[n, slot] >= 0]
        brightest = max(present, key=lambda slot: SCENES.ink[n, slot].mean().item())
        assert found[n, y, x].item() == (SCENES.masks[n, y, x] > 0 and slow_slot(n, y, x) == brightest)
    assert (found.flatten(1).sum(1) > 0).all()


def test_edges_are_background_beside_a_glyph():
    found, masks = edges(SCENES), SCENES.masks
    for n, y, x in pixels():
        beside = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        touches = any(masks[n, v, u] > 0 for v, u in beside if 0 <= v < SIZE and 0 <= u < SIZE)
        assert found[n, y, x].item() == (touches and masks[n, y, x] == 0)


def test_a_square_has_an_outline_of_four_sides():
    masks = torch.zeros(1, SIZE, SIZE, dtype=torch.long)
    masks[0, 10:13, 20:23] = 4
    outline = edges(Scenes(*(None,) * 2, masks, *(None,) * 3))
    assert outline.sum() == 12 and outline[0, 9, 20:23].all() and outline[0, 10:13, 23].all() and not outline[0, 9, 19]
