"""Image and text clients in one federation, with a dense task among them."""

from functools import partial

import pandas as pd
import pytest
import torch
from rounds import fit

from fedmuscle_core import Settings
from fedmuscle_core.experiments.build import build, check, make_network, mask_from_text, predicted_masks
from fedmuscle_core.experiments.setups import Setup
from fedmuscle_core.methods import of_group
from fedmuscle_core.networks.backbones import load_backbone
from fedmuscle_core.networks.client_network import TextRepresentationModel
from fedmuscle_core.networks.text import load_tokenizer, token_ids
from fedmuscle_core.world.scenes import digit_scenes
from fedmuscle_core.world.tasks import TASKS, targets

MIXED = Setup("mixed", (("ic10", "vit_small", 24), ("ss", "segformer_medium", 24), ("tc10", "bert_small", 24),
                        ("tcleft", "distilbert_small", 24)))


@pytest.fixture
def mixed(tiny):
    """As `tiny`, with a segmentation client and two text clients among four."""
    return partial(tiny, setup=MIXED, public_domain="pairs")


@pytest.mark.parametrize("method", of_group("aligning"))
def test_every_method_trains_image_and_text_clients_together(mixed, method):
    (history, found), (again, other) = (fit(mixed(method=method), reverse=reverse) for reverse in (False, True))
    assert set(history["task"]) == {"ic10", "ss", "tc10", "tcleft"} and history["value"].notna().all()
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    assert found.alignment == other.alignment and len(found.alignment["after"]["cka"]) == 4


def test_text_clients_need_captions_unless_the_method_reads_no_public_data(mixed):
    with pytest.raises(ValueError, match=r"public_domain: got 'single', expected 'pairs': clients \[3, 4\] read captions"):
        check(mixed(public_domain="single"))
    check(mixed(public_domain="single", method="local"))


def test_clients_read_the_same_samples_each_in_its_own_way(mixed):
    image, dense, text, other = (client.public.inputs for client in build(mixed()).clients)
    assert torch.equal(image, dense) and image.shape[1:] == (3, 32, 32)
    assert torch.equal(text, other) and text.dtype == torch.long and len(text) == len(image)


def test_the_temperature_between_modalities_changes_the_run(mixed):
    runs = [fit(mixed(rounds=1, tau_cross=tau))[0]["value"] for tau in (None, 0.2, 0.5)]
    assert runs[0].tolist() == pytest.approx(runs[1].tolist(), rel=1e-3)
    assert not runs[0].equals(runs[2])


@pytest.mark.parametrize("method", ["pairwise", "fedmuscle"])
def test_both_protocols_train_alike_with_a_temperature_between_modalities(mixed, method):
    losses = [fit(mixed(method=method, protocol=protocol, tau_cross=0.4, rounds=1))[0]
              .query("metric == 'contrastive_loss'")["value"].to_numpy() for protocol in ("matrices", "tuples")]
    assert abs(losses[0] - losses[1]).max() < 1e-3


def test_padding_does_not_change_a_text_representation():
    torch.manual_seed(0)
    model = TextRepresentationModel(load_backbone("bert_small"), 8).eval()
    tokenizer, text = load_tokenizer("bert_small"), ["a tiny red seven"]
    short, long = token_ids(tokenizer, text, 12), token_ids(tokenizer, text, 40)
    assert torch.allclose(model(short), model(long), atol=1e-5)
    by_hand = model.backbone(input_ids=short[:, :(short != 0).sum()]).last_hidden_state.mean(1)
    assert torch.allclose(model(short), model.projection(by_hand), atol=1e-5)


def test_a_dense_client_answers_for_every_pixel_and_learns_masks():
    """Four scenes by heart: far above calling everything background, which scores below 10."""
    (client,) = build(Settings.of(Setup("dense", (("ss", "segformer_medium", 4),)), "local", dim=8)).clients
    inputs, wanted = client.data["train"].inputs, client.data["train"].targets
    assert inputs.shape == (4, 3, 32, 32) and wanted.shape == (4, 32, 32) and wanted.max() <= 10
    network = client.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        client.task.loss(network(inputs), wanted).backward()
        optimizer.step()
    assert client.task.score(client.task.keep(network(inputs).detach()), wanted) > 25
    assert network.representation(inputs).shape == (4, 8)


@pytest.mark.parametrize(("name", "kind"), [("vit_small", "ViTModel"), ("resnet_small", "ResNetModel")])
def test_a_dense_task_needs_a_segformer(name, kind):
    with pytest.raises(ValueError, match=f"backbone: got {kind}, expected a SegformerModel for a dense task"):
        make_network(TASKS["ss"], load_backbone(name), name, Settings.of(dim=8))


def test_caption_targets_are_those_of_the_scene():
    scenes = digit_scenes("validation", "number", 50, 0)
    assert torch.equal(targets("tcleft", scenes), scenes.classes[:, 0])
    single = digit_scenes("validation", "single", 50, 0)
    assert torch.equal(targets("tc10", single), targets("ic10", single)) and set(targets("tcleft", single).tolist()) == {-1}


def test_predicted_masks_are_stored_as_text(mixed):
    built = build(mixed(method="local"))
    masks = predicted_masks(built, 3)
    assert list(masks) == [2] and len(masks[2]) == 3
    dense = built.clients[1]
    dense.network.eval()
    with torch.no_grad():
        wanted = dense.network(dense.data["test"].inputs[:3]).argmax(1)
    assert all(torch.equal(mask_from_text(text), mask) for text, mask in zip(masks[2], wanted, strict=True))
    with pytest.raises(ValueError, match="text: got 3 digits, expected a square number"):
        mask_from_text("0a1")
    assert predicted_masks(build(mixed(method="local", test_size=0))) == {}
