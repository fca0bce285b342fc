"""Makes the small text backbones of `networks/pretrained`: `python -m fedmuscle_core.pretraining.texts`.

They stand in for BERT and DistilBERT: each learns, once, to fill the gaps of captions (masked-language modelling, as BERT
did) of scenes that are never drawn.  Each folder holds the tokenizer too.
"""

import argparse
import copy
import csv
from collections import Counter

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tqdm.auto import tqdm
from transformers import AutoModelForMaskedLM, BertConfig, DistilBertConfig, PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertPooler

from ..networks.backbones import write_checksums
from ..networks.client_network import num_parameters
from ..networks.text import MAX_LENGTH, token_ids
from ..paths import BACKBONES
from ..seeds import generator, seeded
from ..world.captions import captions
from ..world.scenes import TASK_LAYOUTS, undrawn_scenes

SEED = 0
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_VOCABULARY = 400
MASKED = 0.15       # share of the tokens to be predicted, BERT's

# No dropout anywhere: what a client computes must not depend on the order in which clients draw random numbers.
CONFIGS = {  # name: (configuration, epochs)
    "bert_small": (BertConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
                              max_position_embeddings=48, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), 8),
    "distilbert_small": (DistilBertConfig(dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=48,
                                          dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0, qa_dropout=0.0), 12),
}


def corpus(n=20_000, name="corpus"):
    """`n` captions, a third of each layout, in random order.  `name` is that of the random stream."""
    lines = []
    for index, layout in enumerate(TASK_LAYOUTS):
        rng = generator(SEED, "pretrain text", name, layout)
        lines += captions(undrawn_scenes(layout, (n + index) // len(TASK_LAYOUTS), rng), rng)
    order = torch.randperm(n, generator=generator(SEED, "pretrain text", name, "order"))
    return [lines[row] for row in order.tolist()]


def make_tokenizer(lines, least=1, most=MAX_VOCABULARY, length=MAX_LENGTH):
    """A WordPiece tokenizer whose vocabulary is every word of `lines` that occurs `least` times and every letter, figure and
    comma; length: the most tokens that its models read.

    A number of several figures is no word of its own: "37" becomes "3", "##7".  The library's own trainer is not used: it
    breaks ties between pieces in an order that differs from run to run.
    """
    split, normal = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True)
    words = Counter(word for line in sorted(set(lines)) for word, _ in split.pre_tokenize_str(normal.normalize_str(line)))
    letters = sorted(set("".join(words)) | set("abcdefghijklmnopqrstuvwxyz0123456789"))
    whole = sorted(word for word, count in words.items() if len(word) > 1 and not word.isdigit() and count >= least)
    vocabulary = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *whole]
    if len(vocabulary) > most:
        raise ValueError(f"lines: got {len(whole)} words, expected a vocabulary of at most {most}")
    ids = {piece: row for row, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normal
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(piece, ids[piece]) for piece in ("[CLS]", "[SEP]")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, pad_token="[PAD]",
                                   unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")


def untrained(name, tokenizer):
    """The language model `name` of `CONFIGS` with random weights."""
    config = copy.deepcopy(CONFIGS[name][0])
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    config.max_position_embeddings = max(config.max_position_embeddings, tokenizer.model_max_length)
    with seeded(SEED, "pretrain text", name):
        return AutoModelForMaskedLM.from_config(config)


def masked(ids, tokenizer, rng):
    """BERT's masking of `ids` (B, L): (inputs, targets), both (B, L), targets -100 where nothing is asked.

    Of the tokens asked for, 80 % read [MASK], 10 % a random token, 10 % stay.
    """
    chosen, how = torch.rand(2, *ids.shape, generator=rng)
    asked = (chosen < MASKED) & (ids >= len(SPECIAL))
    anything = torch.randint(len(SPECIAL), len(tokenizer), ids.shape, generator=rng)
    inputs = torch.where(asked & (how < 0.8), tokenizer.mask_token_id, torch.where(asked & (how >= 0.9), anything, ids))
    return inputs, torch.where(asked, ids, -100)


def batches(lengths, batch_size, rng):
    """Rows of captions of `lengths` (n,) as index tensors (batch_size,), in random order; the remainder is left out.

    Captions of about one length go together, so that little is computed for [PAD].
    """
    rows = (lengths + torch.rand(len(lengths), generator=rng)).argsort().split(batch_size)
    return [rows[k] for k in torch.randperm(len(rows), generator=rng).tolist() if len(rows[k]) == batch_size]


def pretrain(name, tokenizer, lines, epochs=None, batch_size=64, max_lr=3e-3):
    """The language model `name` of `CONFIGS`, trained to fill the gaps of `lines`: one-cycle AdamW."""
    model, ids = untrained(name, tokenizer).train(), ids_of(tokenizer, lines)
    lengths, rng = (ids != tokenizer.pad_token_id).sum(1), generator(SEED, "pretrain text", "order")
    epochs, steps = epochs or CONFIGS[name][1], len(ids) // batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=max_lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, total_steps=epochs * steps, pct_start=0.1)
    for _ in (bar := tqdm(range(epochs), desc=name)):
        total = 0.0
        for rows in batches(lengths, batch_size, rng):
            inputs, wanted = masked(ids[rows, :lengths[rows].max()], tokenizer, rng)
            logits = model(input_ids=inputs, attention_mask=inputs != tokenizer.pad_token_id).logits
            loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() / steps
        bar.set_postfix(loss=f"{total:.3f}")
    return model.eval()


def ids_of(tokenizer, lines):
    """Token ids of `lines`; real texts, whose tokenizers read more, are cut off."""
    return token_ids(tokenizer, lines, tokenizer.model_max_length, cut=tokenizer.model_max_length > MAX_LENGTH)


@torch.no_grad()
def masked_accuracy(model, tokenizer, lines):
    """Share in [0, 1] of the masked tokens of `lines` that the model names; always the same gaps."""
    inputs, wanted = masked(ids_of(tokenizer, lines), tokenizer, generator(SEED, "pretrain text", "probe"))
    right = asked = 0
    for x, y in zip(inputs.split(256), wanted.split(256), strict=True):
        guess = model.eval()(input_ids=x, attention_mask=x != tokenizer.pad_token_id).logits.argmax(2)
        right, asked = right + int((guess == y).sum()), asked + int((y != -100).sum())
    return right / asked


def save(folder, name, model, tokenizer):
    """Body and tokenizer of the model `name` into `folder`.

    `AutoModel` gives BERT a pooler, which no masked-language model trains and nothing here reads; it is stored with its
    random weights, since one missing in the file would be drawn anew (and warned of) at each loading.
    """
    body = model.base_model
    if getattr(body, "pooler", 0) is None:
        with seeded(SEED, "pretrain text", name, "pooler"):
            body.pooler = BertPooler(body.config)
    body.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(argv=None):
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    torch.set_num_threads(1)    # same weights on any number of cores
    lines, held_out = corpus(), corpus(2000, "held out")
    tokenizer, rows = make_tokenizer(lines), []
    for name in CONFIGS:
        trained = pretrain(name, tokenizer, lines)
        for weights, model in [("pretrained", trained), ("untrained", untrained(name, tokenizer))]:
            rows.append({"backbone": name, "weights": weights, "parameters": num_parameters(model.base_model),
                         "masked_accuracy": round(masked_accuracy(model, tokenizer, held_out), 4)})
            print(rows[-1])
        save(BACKBONES / name, name, trained, tokenizer)
    write_checksums(BACKBONES)
    with (BACKBONES / "probe_text.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
