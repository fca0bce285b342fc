import pytest
import torch

from fedmuscle_core.seeds import generator
from fedmuscle_core.world.glyphs import DIGIT_POOLS, LETTERS, digit_indices, digit_pool, letter_pool
from fedmuscle_core.world.scenes import (
    CAPTIONED_DOMAIN,
    LAYOUTS,
    SCENE_DOMAINS,
    compose,
    digit_scenes,
    held_out_pairs,
    public_pairs,
    public_scenes,
    textures,
    undrawn_scenes,
)


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
    assert set(count.tolist()) == {"single": {1}, "number": {2}, "multi": {1, 2, 3, 4}, "full": {4}}[layout]
    for classes, mask in zip(scenes.classes, scenes.masks, strict=True):
        assert set(mask.unique().tolist()) - {0} == set((classes[classes >= 0] + 1).tolist())


def test_scenes_depend_on_their_stream_alone():
    first = digit_scenes("train", "multi", 20, 0, "client", 1)
    digit_scenes.cache_clear()
    torch.rand(3)
    assert torch.equal(first.images, digit_scenes("train", "multi", 20, 0, "client", 1).images)
    assert not torch.equal(first.images, digit_scenes("train", "multi", 20, 0, "client", 2).images)
    assert not torch.equal(first.images, digit_scenes("train", "multi", 20, 1, "client", 1).images)


def test_public_domains():
    images = {domain: public_scenes(domain, 64, 0) for domain in SCENE_DOMAINS}
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


@pytest.mark.parametrize(("images", "mean", "pixels"), [
    (lambda: public_scenes("scenes", 64, 0), 0.36521, [0.24288, 0.34361, 0.2674]),
    (lambda: public_scenes("single", 64, 0), 0.34364, [0.38254, 0.28125, 0.28946]),
    (lambda: public_scenes("number", 64, 0), 0.36195, [0.44498, 0.33128, 0.30775]),
    (lambda: public_scenes("full", 64, 0), 0.40166, [0.32865, 0.26358, 0.35784]),
    (lambda: public_scenes("letters", 64, 0), 0.35563, [0.27387, 0.48205, 0.11852]),
    (lambda: public_scenes("textures", 64, 0), 0.32606, [0.48092, 0.01104, 0.2542]),
    (lambda: public_scenes("noise", 64, 0), 0.49911, [0.87899, 0.09247, 0.59538]),
    (lambda: digit_scenes("train", "single", 64, 3, "client", 1).images, 0.34136, [0.60707, 0.54933, 0.36803]),
    (lambda: digit_scenes("train", "number", 64, 3, "client", 1).images, 0.34135, [0.2878, 0.35337, 0.13613]),
    (lambda: digit_scenes("train", "multi", 64, 3, "client", 1).images, 0.34526, [0.34196, 0.63797, 0.25283]),
])
def test_scenes_stay_those_of_the_stored_runs(images, mean, pixels):
    """A draw added, left out or moved changes every pixel; another processor changes the last digits only."""
    images = images()
    assert images.mean().item() == pytest.approx(mean, abs=1e-4)
    assert [images[63, 2, 16, 16], images[31, 0, 5, 20], images[0, 1, 30, 3]] == pytest.approx(pixels, abs=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_centre_side_and_ink_are_those_of_what_is_drawn(layout):
    """Measured in the pixels: the glyph's middle, its height, its colour against that of the scene."""
    scenes = digit_scenes("train", layout, 400, 0)
    axis, measured, told = (torch.arange(32) + 0.5) / 16 - 1, [], []
    for image, classes, mask, centre, side, ink in zip(*scenes, strict=True):
        digits = classes[classes >= 0]
        if len(digits.unique()) < len(digits):
            continue                                              # the mask cannot tell two threes apart
        for slot in (classes >= 0).nonzero()[:, 0].tolist():
            stroke = mask == classes[slot] + 1
            middle = torch.stack([(stroke.sum(0) * axis).sum(), (stroke.sum(1) * axis).sum()]) / stroke.sum()
            assert (middle - centre[slot]).abs().max() < 0.6 * side[slot]
            colour = image[:, stroke].mean(1)
            measured.append(torch.cat([middle, stroke.any(1).sum()[None] / 32, colour - colour.mean()]))
            told.append(torch.cat([centre[slot], side[slot, None], ink[slot] - ink[slot].mean()]))
    for name, ours, theirs in zip(("x", "y", "side", "red", "green", "blue"), torch.stack(measured).T, torch.stack(told).T,
                                  strict=True):
        least = 0.6 if name == "side" and layout != "single" else 0.9         # sides differ by three pixels at most there
        assert torch.corrcoef(torch.stack([ours, theirs]))[0, 1] > least, name


def test_pairs_are_single_digits_and_keep_what_a_caption_needs():
    scenes = public_pairs(101, 0)
    assert public_pairs(101, 0) is scenes and public_scenes(CAPTIONED_DOMAIN, 101, 0) is scenes.images
    assert ((scenes.classes >= 0).sum(1) == 1).all() and all(len(field) == 101 for field in scenes)
    public_pairs.cache_clear()
    assert all(torch.equal(*both) for both in zip(public_pairs(101, 0), scenes, strict=True))
    assert not torch.equal(public_pairs(101, 1).images, scenes.images)
    assert not torch.equal(public_scenes("single", 101, 0), scenes.images)


def test_the_two_kinds_of_pairs_are_drawn_with_their_own_handwriting(monkeypatch):
    from fedmuscle_core.world import scenes as module
    asked = []
    monkeypatch.setattr(module, "digit_pool", lambda split: asked.append(split) or digit_pool(split))
    public = public_pairs.__wrapped__(64, 0)
    assert set(asked) == {"public"}
    held_out = held_out_pairs.__wrapped__(64, 0)
    assert set(asked) == {"public", "test"}
    assert not torch.equal(public.images, held_out.images) and not torch.equal(public.centre, held_out.centre)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_undrawn_scenes_are_like_drawn_ones_without_pixels(layout):
    undrawn, drawn = undrawn_scenes(layout, 3000, generator(0, "test")), digit_scenes("train", layout, 3000, 0)
    assert undrawn.images.shape == undrawn.masks.shape == (3000, 0)
    for one, other in zip(undrawn[3:], drawn[3:], strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one.mean(0), other.mean(0), atol=0.03) and torch.allclose(one.std(0), other.std(0), atol=0.03)
    assert torch.equal((undrawn.classes >= 0).sum(1).unique(), (drawn.classes >= 0).sum(1).unique())
    digits = undrawn.classes[undrawn.classes >= 0]
    assert digits.unique().tolist() == list(range(10)) and torch.bincount(digits).min() > 0.08 * len(digits)
