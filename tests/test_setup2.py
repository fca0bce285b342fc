"""Image and text clients in one federation, with a dense task among them."""

import pandas as pd
import pytest
import torch

from fedmuscle_core import federation
from fedmuscle_core.client import make_model
from fedmuscle_core.experiments.client_data import private_data
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import SETUPS, ClientSpec
from fedmuscle_core.federation import mask_from_text, predicted_masks
from fedmuscle_core.methods import ALIGNING
from fedmuscle_core.networks.backbones import load_backbone
from fedmuscle_core.networks.client_network import TextRepresentationModel
from fedmuscle_core.networks.text import load_tokenizer, token_ids
from fedmuscle_core.world.scenes import digit_scenes
from fedmuscle_core.world.tasks import TASKS, targets


@pytest.fixture
def mixed(tiny, monkeypatch):
    """As `tiny`, with a segmentation client and two text clients among four."""
    monkeypatch.setitem(SETUPS, "mixed", (ClientSpec("ic10", "vit_small", 24), ClientSpec("ss", "segformer_medium", 24),
                                          ClientSpec("tc10", "bert_small", 24), ClientSpec("tcleft", "distilbert_small", 24)))
    return tiny(setup="mixed", public_domain="pairs", num_peers=2).replace


@pytest.mark.parametrize("method", ALIGNING)
def test_every_method_trains_image_and_text_clients_together(mixed, method):
    history, alignment = federation.train(federation.build(mixed(method=method)), progress=False)
    assert set(history["task"]) == {"ic10", "ss", "tc10", "tcleft"} and history["value"].notna().all()
    built = federation.build(mixed(method=method))
    built.clients.reverse()
    again, alignment_again = federation.train(built, progress=False)
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    assert alignment == alignment_again


def test_text_clients_need_captions_unless_the_method_reads_no_public_data(mixed):
    with pytest.raises(ValueError, match=r"public_domain: got 'single', expected 'pairs': clients \[3, 4\] of mixed"):
        federation.check(mixed(public_domain="single"))
    federation.check(mixed(public_domain="single", method="local"))


def test_clients_read_the_same_samples_each_in_its_own_way(mixed):
    image, dense, text, other = federation.build(mixed()).clients
    assert torch.equal(image.public, dense.public) and image.public.shape[1:] == (3, 32, 32)
    assert torch.equal(text.public, other.public) and text.public.dtype == torch.long and len(text.public) == len(image.public)


def test_the_temperature_between_modalities_changes_the_run(mixed):
    runs = [federation.train(federation.build(mixed(rounds=1, tau_cross=tau)), False)[0] for tau in (None, 0.2, 0.5)]
    assert runs[0]["value"].tolist() == pytest.approx(runs[1]["value"].tolist(), rel=1e-3)
    assert not runs[0]["value"].equals(runs[2]["value"])


@pytest.mark.parametrize("method", ["pairwise", "fedmuscle"])
def test_both_protocols_train_alike_with_a_temperature_between_modalities(mixed, method):
    losses = [federation.train(federation.build(mixed(method=method, protocol=protocol, tau_cross=0.4, rounds=1)), False)[0]
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
    inputs, wanted = private_data(TASKS["ss"], "segformer_medium", "train", 4, 0)
    assert inputs.shape == (4, 3, 32, 32) and wanted.shape == (4, 32, 32) and wanted.max() <= 10
    torch.manual_seed(0)
    model = make_model(TASKS["ss"], "segformer_medium", Settings(dim=8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        TASKS["ss"].loss(model(inputs), wanted).backward()
        optimizer.step()
    assert TASKS["ss"].score(model(inputs).detach(), wanted) > 25
    assert model.representation(inputs).shape == (4, 8)


@pytest.mark.parametrize(("name", "kind"), [("vit_small", "ViTModel"), ("resnet_small", "ResNetModel")])
def test_a_dense_task_needs_a_segformer(name, kind):
    with pytest.raises(ValueError, match=f"backbone: got {kind}, expected a SegformerModel for a dense task"):
        make_model(TASKS["ss"], name, Settings(dim=8))


def test_mean_iou_where_the_answer_is_known():
    wanted = torch.tensor([[[0, 0, 1, 1]]])
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 1]]]), 2).permute(0, 3, 1, 2).float()
    assert TASKS["ss"].score(logits, wanted) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


def test_caption_targets_are_those_of_the_scene():
    scenes = digit_scenes("validation", "number", 50, 0)
    assert torch.equal(targets("tcleft", scenes), scenes.classes[:, 0])
    single = digit_scenes("validation", "single", 50, 0)
    assert torch.equal(targets("tc10", single), targets("ic10", single)) and set(targets("tcleft", single).tolist()) == {-1}


def test_predicted_masks_are_stored_as_text(mixed):
    built = federation.build(mixed(method="local"))
    masks = predicted_masks(built, 3)
    assert list(masks) == [2] and len(masks[2]) == 3
    dense = built.clients[1]
    dense.model.eval()
    with torch.no_grad():
        wanted = dense.model(dense.data["test"][0][:3]).argmax(1)
    assert all(torch.equal(mask_from_text(text), mask) for text, mask in zip(masks[2], wanted, strict=True))
    with pytest.raises(ValueError, match="text: got 3 digits, expected a square number"):
        mask_from_text("0a1")
    assert predicted_masks(federation.build(mixed(method="local", test_size=0))) == {}
