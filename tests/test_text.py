import pytest
import torch

from fedmuscle_core.networks.text import MAX_LENGTH, load_tokenizer, token_ids
from fedmuscle_core.pretraining.texts import CONFIGS, corpus
from fedmuscle_core.seeds import generator
from fedmuscle_core.world.captions import captions
from fedmuscle_core.world.scenes import TASK_LAYOUTS, public_pairs, undrawn_scenes


@pytest.fixture
def tokenizer():
    return load_tokenizer("bert_small")


def test_special_tokens_stand_where_models_expect_them(tokenizer):
    assert [tokenizer.convert_tokens_to_ids(piece) for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [*range(5)]
    ids = token_ids(tokenizer, ["a tiny red 7", "there is seven"], max_length=8)
    assert ids.shape == (2, 8) and ids.dtype == torch.long
    assert tokenizer.convert_ids_to_tokens(ids[0]) == ["[CLS]", "a", "tiny", "red", "7", "[SEP]", "[PAD]", "[PAD]"]
    assert tokenizer.convert_ids_to_tokens(ids[1])[:5] == ["[CLS]", "there", "is", "seven", "[SEP]"]


@pytest.mark.parametrize("layout", TASK_LAYOUTS)
def test_every_caption_comes_back_from_its_tokens(layout, tokenizer):
    """5,000 captions from a stream that the tokenizer's corpus does not hold."""
    lines = captions(undrawn_scenes(layout, 5000, generator(0, "test", layout)), generator(1, "test", layout))
    ids = token_ids(tokenizer, lines)
    assert ids.shape == (5000, MAX_LENGTH)
    assert not (ids == tokenizer.unk_token_id).any()
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == lines


def test_the_longest_caption_there_can_be_fits(tokenizer):
    item = "a little bluish seven in the lower right"
    longest = f"the picture shows {item}, {item}, {item} and {item}"
    assert (token_ids(tokenizer, [longest]) != tokenizer.pad_token_id).sum() == MAX_LENGTH


def test_words_that_no_caption_has_are_spelt(tokenizer):
    assert tokenizer.tokenize("Aeroplane 417") == ["a", *(f"##{letter}" for letter in "eroplane"), "4", "##1", "##7"]


def test_a_row_does_not_depend_on_the_others(tokenizer):
    lines = captions(public_pairs(20, 0), generator(0))
    assert torch.equal(token_ids(tokenizer, lines)[7:8], token_ids(tokenizer, lines[7:8]))


def test_both_backbones_have_the_same_tokenizer():
    lines = corpus(100, "test")
    assert torch.equal(*(token_ids(load_tokenizer(name), lines) for name in CONFIGS))
    assert load_tokenizer("bert_small") is load_tokenizer("bert_small")


@pytest.mark.parametrize(("lines", "message"), [
    ([], "captions: got an empty list"),
    ("a seven", "captions: got 'a seven', expected a list of strings"),
    (["a seven", 7], r"captions: got \['a seven', 7\], expected a list of strings"),
    (["a seven", "a " * 5 + "seven"], "captions: 'a a a a a seven' has 8 tokens, expected at most max_length = 6"),
])
def test_bad_captions_are_named(lines, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        token_ids(tokenizer, lines, max_length=6)


def test_a_tokenizer_that_is_not_there_is_named_beside_those_that_are():
    with pytest.raises(ValueError, match="backbone: got 'bert_huge', expected one of .*'bert_small'"):
        load_tokenizer("bert_huge")
    with pytest.raises(ValueError, match="tokenizer: got 'vit_small'.*this backbone reads images"):
        load_tokenizer("vit_small")


def test_padding_must_be_token_0():
    class Other:
        pad_token_id = 1
    with pytest.raises(ValueError, match="tokenizer: got padding with token 1, expected 0"):
        token_ids(Other(), ["a seven"])
