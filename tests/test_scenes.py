import pytest
import torch

from fedmuscle_core.glyphs import DIGIT_POOLS, LETTERS, digit_indices, digit_pool, letter_pool
from fedmuscle_core.scenes import LAYOUTS, PUBLIC_DOMAINS, compose, digit_scenes, public_scenes, textures
from fedmuscle_core.seeds import generator
from fedmuscle_core.tasks import TASKS, targets


def test_digit_splits_never_mix_and_are_stratified():
    from sklearn.datasets import load_digits
    labels = load_digits().target
    indices = digit_indices(labels)
    taken = [row for rows in indices.values() for row in rows]
    assert len(taken) == len(set(taken)) == 1797
    assert {split: len(rows) for split, rows in indices.items()} == DIGIT_POOLS
    for split in DIGIT_POOLS:
        share = torch.bincount(digit_pool(split).labels, minlength=10) / len(digit_pool(split).labels)
        assert (share - 0.1).abs().max() < 0.02


def test_no_handwritten_image_occurs_in_two_pools():
    seen = {}
    for split in DIGIT_POOLS:
        for image in digit_pool(split).images:
            assert seen.setdefault(image.numpy().tobytes(), split) == split


def test_letters_hold_no_digit_and_held_out_fonts_look_different():
    assert len(LETTERS) == len(set(LETTERS)) == 58
    assert not any(letter.isdigit() for letter in LETTERS)
    train, held_out = letter_pool("train").images, letter_pool("held_out").images
    assert train.amin() >= 0 and train.amax() <= 1
    nearest = (held_out.flatten(1)[:, None] - train.flatten(1)[None]).abs().amax(2).amin(1)
    assert (nearest > 0.2).float().mean() > 0.95


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scenes_have_the_stated_shapes_and_labels_agree_with_masks(layout):
    scenes = digit_scenes("train", layout, 300, 0)
    assert scenes.images.shape == (300, 3, 32, 32)
    assert scenes.images.amin() >= 0 and scenes.images.amax() <= 1
    count = (scenes.classes >= 0).sum(1)
    assert set(count.tolist()) == {"single": {1}, "number": {2}, "multi": {1, 2, 3, 4}}[layout]
    for classes, mask in zip(scenes.classes, scenes.masks, strict=True):
        assert set(mask.unique().tolist()) - {0} == set((classes[classes >= 0] + 1).tolist())


def test_scenes_depend_on_their_stream_alone():
    first = digit_scenes("train", "multi", 20, 0, "client", 1)
    digit_scenes.cache_clear()
    torch.rand(3)
    assert torch.equal(first.images, digit_scenes("train", "multi", 20, 0, "client", 1).images)
    assert not torch.equal(first.images, digit_scenes("train", "multi", 20, 0, "client", 2).images)
    assert not torch.equal(first.images, digit_scenes("train", "multi", 20, 1, "client", 1).images)


def test_every_task_has_its_answer_in_one_scene():
    scenes = digit_scenes("train", "multi", 400, 3)
    mlc, ic10, ic100 = (targets(name, scenes) for name in ("mlc", "ic10", "ic100"))
    for row in range(400):
        digits = [c for c in scenes.classes[row].tolist() if c >= 0]
        assert mlc[row].nonzero()[:, 0].tolist() == sorted(set(digits))
        assert ic10[row].item() == (digits[0] if len(digits) == 1 else -1)
        assert ic100[row].item() == (10 * digits[0] + digits[1] if len(digits) == 2 else -1)
    assert torch.equal(targets("ss", scenes), scenes.masks)
    assert (ic10 >= 0).any() and (ic100 >= 0).any()
    with pytest.raises(ValueError, match="task: got 'odometry'"):
        targets("odometry", scenes)


@pytest.mark.parametrize("name", TASKS)
def test_a_perfect_prediction_scores_100_and_a_constant_one_little(name):
    task = TASKS[name]
    wanted = targets(name, digit_scenes("test", task.layout, 500, 0))
    perfect = wanted if wanted.ndim == 2 else torch.nn.functional.one_hot(wanted, task.num_outputs).float()
    assert task.score(20 * perfect - 10, wanted) == pytest.approx(100)
    assert task.score(torch.zeros_like(perfect), wanted) < 40
    assert task.loss(20 * perfect - 10, wanted) < 0.01 < task.loss(torch.zeros_like(perfect), wanted)


def test_public_domains():
    images = {domain: public_scenes(domain, 64, 0) for domain in PUBLIC_DOMAINS}
    for one in images.values():
        assert one.shape == (64, 3, 32, 32) and one.amin() >= 0 and one.amax() <= 1
    flattened = torch.stack([one.flatten() for one in images.values()])
    assert torch.cdist(flattened, flattened).fill_diagonal_(1e9).min() > 1
    with pytest.raises(ValueError, match="domain: got 'mars'"):
        public_scenes("mars", 4, 0)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: digit_pool("private"), "split: got 'private'"),
    (lambda: letter_pool("test"), "split: got 'test'"),
    (lambda: compose(digit_pool("train"), "grid", 3, generator(0)), "layout: got 'grid'"),
    (lambda: compose(digit_pool("train"), "multi", 0, generator(0)), "n: got 0"),
])
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_textures_are_smooth_compared_to_noise():
    waves, noise = textures(32, generator(0)), public_scenes("noise", 32, 0)
    steps = [(images[..., 1:] - images[..., :-1]).abs().mean() for images in (waves, noise)]
    assert steps[0] < 0.6 * steps[1]
