import warnings

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedmuscle_core.networks.backbones import load_backbone
from fedmuscle_core.networks.client_network import num_parameters
from fedmuscle_core.networks.text import load_tokenizer, token_ids
from fedmuscle_core.paths import BACKBONES
from fedmuscle_core.pretraining import texts
from fedmuscle_core.pretraining.texts import CONFIGS, batches, corpus, make_tokenizer, masked, untrained
from fedmuscle_core.seeds import generator, seeded


@pytest.fixture(scope="module")
def lines():
    return corpus(1500, "test")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("bert_small")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_stored_backbone_reads_captions(name, lines, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone, ids = load_backbone(name).eval(), token_ids(load_tokenizer(name), lines[:9])
    assert not caplog.records                                     # transformers logs missing and superfluous weights
    mask = (ids != 0).long()
    with torch.no_grad():
        features = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        short = backbone(input_ids=ids[:1, :mask[0].sum()]).last_hidden_state
    assert features.shape == (9, 40, 64) and features.isfinite().all()
    assert torch.allclose(features[:1, :mask[0].sum()], short, atol=1e-4)     # padding changes nothing
    assert sum(path.stat().st_size for path in (BACKBONES / name).iterdir()) < 2 * 2 ** 20


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_comes_from_the_stored_file_and_training_mode_draws_nothing(name, lines, tokenizer):
    loaded, ids = [], token_ids(tokenizer, lines[:3])
    for seed in (0, 1):
        with seeded(seed, "test"):
            backbone = load_backbone(name).train()
            loaded.append((backbone.state_dict(), backbone(input_ids=ids).last_hidden_state))
    assert all(torch.equal(loaded[0][0][key], loaded[1][0][key]) for key in loaded[0][0])
    assert torch.equal(loaded[0][1], loaded[1][1])                # no dropout


def test_the_stored_tokenizers_are_the_one_the_corpus_gives(tmp_path):
    make_tokenizer(corpus()).save_pretrained(tmp_path)
    for name in CONFIGS:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            assert (BACKBONES / name / file).read_text() == (tmp_path / file).read_text()


def test_the_vocabulary_is_bounded():
    with pytest.raises(ValueError, match="lines: got 500 words, expected a vocabulary of at most 400"):
        make_tokenizer([f"word{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(500)])


def test_the_stored_probe_covers_both_backbones_and_each_is_worth_its_place():
    table = pd.read_csv(BACKBONES / "probe_text.csv").pivot(index="backbone", columns="weights")
    assert set(table.index) == set(CONFIGS)
    assert (table["masked_accuracy"]["pretrained"] > table["masked_accuracy"]["untrained"] + 0.5).all()
    for name in CONFIGS:
        backbone = load_backbone(name)
        unread = num_parameters(backbone.pooler) if hasattr(backbone, "pooler") else 0
        assert (table["parameters"].loc[name] == num_parameters(backbone) - unread).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_stored_weights_fill_gaps_better_than_untrained_ones(name, lines, tokenizer):
    """The language-model head is not stored: a fresh linear one learns on frozen features, 1,000 captions for each."""
    inputs, wanted = masked(token_ids(tokenizer, lines), tokenizer, generator(0, "test"))
    accuracy = []
    for backbone in (load_backbone(name), untrained(name, tokenizer).base_model):
        with torch.no_grad():
            features = backbone.eval()(input_ids=inputs, attention_mask=inputs != 0).last_hidden_state
        fit, score = ((features[rows][wanted[rows] >= 0], wanted[rows][wanted[rows] >= 0])
                      for rows in (slice(1000), slice(1000, None)))
        with seeded(0, "test"):
            head = nn.Linear(64, len(tokenizer))
        optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(head(fit[0]), fit[1]).backward()
            optimizer.step()
        accuracy.append((head(score[0]).argmax(1) == score[1]).float().mean().item())
    assert accuracy[0] > 0.5 > accuracy[1] + 0.1


def test_pretraining_learns_and_gives_the_same_weights_twice(lines, tokenizer):
    first, second = (texts.pretrain("distilbert_small", tokenizer, lines[:960], epochs=2) for _ in range(2))
    assert all(torch.equal(first.state_dict()[key], second.state_dict()[key]) for key in first.state_dict())
    held_out = lines[-400:]
    before, after = (texts.masked_accuracy(model, tokenizer, held_out)
                     for model in (untrained("distilbert_small", tokenizer), first))
    assert before < 0.03 and after > before + 0.05


def test_masking_asks_for_the_stated_share_and_never_for_special_tokens(lines, tokenizer):
    ids = token_ids(tokenizer, lines)
    inputs, wanted = masked(ids, tokenizer, generator(1, "test"))
    asked, words = wanted >= 0, ids >= 5
    assert not asked[~words].any() and torch.equal(inputs[~asked], ids[~asked])
    assert torch.equal(wanted[asked], ids[asked])
    assert asked.sum() / words.sum() == pytest.approx(0.15, abs=0.01)
    hidden, kept = inputs[asked] == tokenizer.mask_token_id, inputs[asked] == wanted[asked]
    assert hidden.float().mean() == pytest.approx(0.8, abs=0.02) and kept.float().mean() == pytest.approx(0.1, abs=0.02)


def test_batches_hold_captions_of_about_one_length_and_every_caption_at_most_once():
    lengths = torch.randint(5, 40, (1000,), generator=generator(2, "test"))
    rows = batches(lengths, 64, generator(3, "test"))
    assert len(rows) == 15 and len(set(torch.cat(rows).tolist())) == 960
    assert max(int(lengths[batch].max() - lengths[batch].min()) for batch in rows) < 8
    starts = [int(lengths[batch].min()) for batch in rows]
    assert starts != sorted(starts)


def test_the_corpus_mixes_layouts_and_does_not_depend_on_the_caller():
    first = corpus(300, "test")
    torch.rand(3)
    assert corpus(300, "test") == first != corpus(300, "held out")
    assert len(first) == 300 and 60 < sum(line.count(",") + line.count(" and ") == 0 for line in first) < 240


def test_main_writes_both_folders_and_the_probe(tmp_path, monkeypatch, capsys):
    small = {name: (config, 1) for name, (config, _) in CONFIGS.items()}
    monkeypatch.setattr(texts, "CONFIGS", small)
    monkeypatch.setattr(texts, "BACKBONES", tmp_path)
    monkeypatch.setattr(texts, "corpus", lambda n=0, name="corpus": corpus(960, name))
    texts.main([])
    table = pd.read_csv(tmp_path / "probe_text.csv")
    assert table.columns.tolist() == ["backbone", "weights", "parameters", "masked_accuracy"]
    assert table["backbone"].tolist() == [name for name in CONFIGS for _ in range(2)]
    assert len(pd.read_csv(tmp_path / "checksums.csv")) == 4 * len(CONFIGS)
    for name in CONFIGS:
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert "masked_accuracy" in capsys.readouterr().out
