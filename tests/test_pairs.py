import torch

from fedmuscle_core.world.pairs import held_out_data, public_data, scene_captions
from fedmuscle_core.world.scenes import held_out_pairs, public_pairs, public_scenes


def test_public_pairs_belong_together_and_to_their_seed():
    pairs = public_data("pairs", 64, 3)
    assert len(pairs.captions) == len(pairs.images) == 64
    assert torch.equal(pairs.images, public_pairs(64, 3).images)
    assert pairs.captions == public_data("pairs", 64, 3).captions != public_data("pairs", 64, 4).captions


def test_other_domains_have_no_captions():
    pairs = public_data("letters", 8, 0)
    assert pairs.captions is None and torch.equal(pairs.images, public_scenes("letters", 8, 0))


def test_held_out_pairs_are_not_public_ones():
    held_out = held_out_data(64)
    assert torch.equal(held_out.images, held_out_pairs(64, 0).images) and len(held_out.captions) == 64
    public = public_data("pairs", 512, 0).images.flatten(1)
    assert torch.cdist(held_out.images.flatten(1), public).min() > 0.5


def test_private_captions_have_streams_of_their_own():
    first = scene_captions("train", "single", 20, 0, "client", 9)
    assert first == scene_captions("train", "single", 20, 0, "client", 9)
    assert first != scene_captions("train", "single", 20, 0, "client", 10)
