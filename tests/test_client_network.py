import pytest
import torch
from torch import nn
from transformers import AutoModel, ViTConfig

from fedmuscle_core.network import Network, in_batches
from fedmuscle_core.networks import client_network
from fedmuscle_core.networks.backbones import feature_map, feature_width, load_backbone
from fedmuscle_core.networks.client_network import ClientNetwork, DenseClientNetwork, num_parameters
from fedmuscle_core.paths import BACKBONES
from fedmuscle_core.pretraining.images import CONFIGS
from fedmuscle_core.seeds import seeded


@pytest.fixture
def images():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_backbone_makes_a_client_network(name, images):
    network = ClientNetwork(load_backbone(name), dim=16, num_outputs=7)
    assert network.representation(images).shape == (5, 16)
    assert network(images).shape == (5, 7)
    assert torch.allclose(network(images), network.head(network.representation(images)))
    assert (BACKBONES / name / "model.safetensors").stat().st_size < 2 * 2 ** 20


def test_three_families_and_at_least_three_sizes():
    families = {type(config).__name__ for config, _ in CONFIGS.values()}
    assert families == {"ViTConfig", "SegformerConfig", "ResNetConfig"}
    assert len({num_parameters(load_backbone(name)) for name in CONFIGS}) >= 3


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_comes_from_the_stored_file(name):
    """A weight missing there would be drawn at random, and so differ between two loads."""
    loaded = []
    for seed in (0, 1):
        with seeded(seed, "test"):
            loaded.append(load_backbone(name).state_dict())
            untrained = AutoModel.from_config(CONFIGS[name][0]).state_dict()
    assert all(torch.equal(loaded[0][key], loaded[1][key]) for key in loaded[0])
    assert not all(torch.equal(loaded[0][key], untrained[key]) for key in loaded[0])


def test_a_backbone_can_be_any_folder_that_transformers_reads(tmp_path, images):
    config = CONFIGS["vit_small"][0]
    AutoModel.from_config(config).save_pretrained(tmp_path / "mine")
    assert ClientNetwork(load_backbone(str(tmp_path / "mine")), 8, 2)(images).shape == (5, 2)


def test_images_are_resized_to_what_the_backbone_was_made_for(tmp_path, images):
    config = ViTConfig(image_size=64, patch_size=16, hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=24)
    AutoModel.from_config(config).save_pretrained(tmp_path / "large")
    assert ClientNetwork(load_backbone(str(tmp_path / "large")), 8, 2)(images).shape == (5, 2)


def test_an_unknown_backbone_is_named_beside_those_there_are():
    with pytest.raises(ValueError, match=r"backbone: got 'resnet_huge'.*resnet_medium"):
        load_backbone("resnet_huge")


def test_batch_statistics_stay_those_of_pretraining(images):
    network = ClientNetwork(load_backbone("resnet_small"), 8, 2).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for _ in range(3):
        network(10 * images).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert network.head.training


def test_in_batches_is_the_function_without_gradients(images):
    network = ClientNetwork(load_backbone("vit_small"), 8, 2).eval()
    assert torch.allclose(in_batches(network, images, 2), network(images), atol=1e-5)
    assert not in_batches(network, images, 2).requires_grad


@pytest.mark.parametrize("name", CONFIGS)
def test_feature_maps_keep_the_place_and_leave_the_class_token_out(name, images):
    """(B, C, h, w); changing the right half of an image changes the right half of the map most."""
    backbone = load_backbone(name).eval()
    changed = images.clone()
    changed[..., 16:] = 1 - changed[..., 16:]
    with torch.no_grad():
        before, after = feature_map(backbone, images), feature_map(backbone, changed)
    assert before.shape[1] == feature_width(backbone.config) and before.shape[2] == before.shape[3] >= 2
    left, right = (after - before).abs().mean((0, 1, 2)).chunk(2)
    assert right.mean() > left.mean()


@pytest.mark.parametrize("name", ["resnet_small", "vit_small", "segformer_medium"])
def test_encoder_and_decoder_are_all_that_the_answer_takes(name, images):
    network = ClientNetwork(load_backbone(name), 16, 7)
    assert torch.equal(network(images), network.decode(network.encode(images)))
    parts = [*network.encoder().parameters(), *network.decoder().parameters()]
    assert {id(parameter) for parameter in parts} == {id(parameter) for parameter in network.parameters()}


@pytest.mark.parametrize(("fine", "pixels"), [(False, 1), (True, 4)])
def test_a_dense_decoder_answers_for_every_pixel_and_leaves_the_projection_out(images, fine, pixels):
    network = DenseClientNetwork(load_backbone("segformer_medium"), 16, 3, fine)
    assert network(images).shape == (5, 3, 32, 32) and torch.equal(network(images), network.decode(network.encode(images)))
    assert network.head["mix"][-1].out_channels == 3 * pixels ** 2
    projection = {id(parameter) for parameter in network.representation.projection.parameters()}
    parts = {id(parameter) for part in (network.encoder(), network.decoder()) for parameter in part.parameters()}
    assert parts == {id(parameter) for parameter in network.parameters()} - projection


def test_a_fine_decoder_can_tell_neighbouring_pixels_apart(images):
    """Random weights: interpolated answers are piecewise linear from block to block, fine ones are not."""
    def bend(network):
        answers = network(images)[:, :, 8:24, 8:24]
        return (answers[..., 2:] - 2 * answers[..., 1:-1] + answers[..., :-2]).abs().flatten().quantile(0.25).item()
    with seeded(0, "test"):
        coarse, fine = (DenseClientNetwork(load_backbone("segformer_medium"), 16, 3, fine) for fine in (False, True))
    assert bend(coarse) < 1e-6 < 1e-3 < bend(fine)


@pytest.mark.parametrize("make", [lambda backbone: ClientNetwork(backbone, 8, 2), lambda backbone: Network(
    nn.Sequential(nn.Flatten(), nn.Linear(3072, 8)), nn.Linear(8, 2))])
def test_a_network_answers_through_an_encoder_that_is_shared(make, images):
    one, other = (make(load_backbone("resnet_small")).eval() for _ in range(2))
    with torch.no_grad():
        for parameter in other.encoder().parameters():
            parameter += 0.1
    assert not torch.equal(one.encode(images), other.encode(images))
    one.share_encoder(other.encoder())
    assert one.encoder() is other.encoder() and torch.equal(one.encode(images), other.encode(images))
    assert torch.equal(one(images), one.decode(other.encode(images)))


def test_padding_beyond_the_longest_text_of_a_batch_changes_nothing(monkeypatch):
    network = client_network.TextRepresentationModel(load_backbone("bert_small").eval(), 8)
    ids = torch.randint(5, 50, (3, 40), generator=torch.Generator().manual_seed(0))
    ids[:, 13:], ids[0, 6:] = 0, 0
    with torch.no_grad():
        trimmed = network(ids)
        assert network.features(ids)[0].shape[1] == 13 and torch.equal(trimmed, network(ids[:, :13]))
        monkeypatch.setattr(client_network, "longest", lambda ids: ids.shape[1])
        assert network.features(ids)[0].shape[1] == 40 and torch.allclose(trimmed, network(ids), atol=1e-5)


def test_the_length_of_a_batch_is_that_of_its_longest_text():
    ids = torch.tensor([[2, 0, 0, 0], [2, 7, 3, 0]])
    assert client_network.longest(ids) == 3 and client_network.longest(ids.flip(1)) == 4
    assert client_network.longest(torch.zeros(2, 4, dtype=torch.long)) == 4
