import pytest
import torch

from fedmuscle_core.augment import augment
from fedmuscle_core.seeds import generator
from fedmuscle_core.world.scenes import public_scenes


def test_image_views_differ_but_show_the_same_scene():
    images = public_scenes("single", 64, 0)
    first, second = augment(images, generator(0)), augment(images, generator(1))
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, augment(images, generator(0))) and not torch.equal(first, second)
    flat = [(view - view.mean((1, 2, 3), keepdim=True)).flatten(1) for view in (first, images)]
    own = torch.cosine_similarity(flat[0], flat[1])
    other = torch.cosine_similarity(flat[0], flat[1].roll(1, 0))
    assert own.mean() > other.mean() + 0.2


def test_a_constant_image_changes_in_brightness_only():
    images = torch.full((8, 3, 32, 32), 0.5)
    views = augment(images, generator(0))
    assert torch.allclose(views.amax((1, 2, 3)), views.amin((1, 2, 3)), atol=1e-5)
    assert (views[:, 0, 0, 0] - 0.5).abs().max() <= 0.1 + 1e-6 and views[:, 0, 0, 0].std() > 0.01


def test_words_are_dropped_but_never_the_first_token_nor_added():
    ids = torch.arange(1, 13).repeat(500, 1)
    ids[:, 8:] = 0
    views = augment(ids, generator(0))
    assert torch.equal(views[:, 0], ids[:, 0]) and ((views == ids) | (views == 0)).all() and (views[:, 8:] == 0).all()
    assert 0.12 < (views[:, 1:8] == 0).float().mean() < 0.18


@pytest.mark.parametrize("batch", [torch.rand(4, 20), torch.rand(4, 8, 8), torch.zeros(4, 3, 8, 8, dtype=torch.long),
                                   torch.zeros(4, dtype=torch.long)])
def test_what_is_neither_images_nor_tokens_needs_a_view_of_its_own(batch):
    with pytest.raises(ValueError, match=r"view: got a batch of shape \(4.*, expected images \(B, C, H, W\) or token ids"):
        augment(batch, generator(0))
