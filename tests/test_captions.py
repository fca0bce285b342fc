"""Captions against a reader that knows English, not the code: it finds the digits and what is said of each."""

import re
import time
from collections import Counter

import pytest
import torch

from fedmuscle_core.seeds import generator
from fedmuscle_core.world.captions import captions
from fedmuscle_core.world.glyphs import letter_pool
from fedmuscle_core.world.scenes import TASK_LAYOUTS, compose, digit_scenes, public_pairs, undrawn_scenes

TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
WORDS = {word: k for k, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
                                           *TEENS])}
TENS = {word: 20 + 10 * k for k, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty",
                                                    "ninety"])}
SIZE = {"small": 0, "little": 0, "tiny": 0, "medium": 1, "average": 1, "large": 2, "big": 2, "huge": 2}
COLOUR = {"red": 0, "reddish": 0, "rosy": 0, "green": 1, "greenish": 1, "emerald": 1, "blue": 2, "bluish": 2, "azure": 2,
          "pale": 3, "whitish": 3}

UNIT = r"(?:\d|zero|one|two|three|four|five|six|seven|eight|nine)\b"
PAIR = rf"(?:\d\d|zero (?={UNIT})[a-z]+|{'|'.join(TEENS)}|(?:{'|'.join(TENS)})(?: (?={UNIT})[a-z]+)?)\b"
RELATION = ("(?:(?:after|following|before|(?:one|two) (?:less|more) than) {n}|between {n} and {n}|"
            "equal to {n} (?:plus|minus) {n})")
ADJECTIVES = rf"(?:(?:{'|'.join([*SIZE, *COLOUR])}) )*"
THING = re.compile(rf"(?:\ban? (?P<adjectives>{ADJECTIVES})(?P<number>{UNIT})|\bthe (?P<adjectives2>{ADJECTIVES})"
                   rf"(?:digit|number|figure) (?P<number2>{RELATION.format(n=UNIT)}|{UNIT}))(?: in (?P<ink>[a-z]+) ink)?")
NUMBER = re.compile(rf"(?:\bthe number )?(?P<relation>{RELATION.format(n=PAIR)})|(?P<plain>\b{PAIR})(?P<back> read backwards)?"
                    rf"|the digits (?P<first>{UNIT}) and (?P<second>{UNIT})")

LEFT_FIRST = ("A to the left of B", "A left of B", "A followed by B", "A on the left beside B",
              "A on the left and B on the right", "A and B from left to right", "right of A stands B",
              "to the right of A there is B", "on the left A, on the right B", "after A comes B", "A comes before B")
RIGHT_FIRST = ("A to the right of B", "A right of B", "A preceded by B", "A on the right beside B",
               "A on the right and B on the left", "A and B from right to left", "left of A stands B",
               "to the left of A there is B", "on the right A, on the left B", "before A comes B", "A comes after B")


def value(text):
    """The number that a numeral or number words name."""
    if text.isdigit():
        return int(text)
    return sum(TENS.get(word, WORDS.get(word, 0)) for word in text.split())


def reckon(text, number):
    """The number that "after six" or "six" means."""
    found = [value(one) for one in re.findall(number, re.sub(r"^(one|two) (?=less|more)", "", text))]
    if text.startswith("between"):
        assert found[1] - found[0] == 2
        return found[0] + 1
    if text.startswith("equal"):
        return found[0] + found[1] if "plus" in text else found[0] - found[1]
    step = {"after": 1, "following": 1, "before": -1, "one less": -1, "one more": 1, "two less": -2, "two more": 2}
    return found[0] + next((change for start, change in step.items() if text.startswith(start + " ")), 0)


def things(caption):
    """[(digit, its adjectives)] in the order of mention, and the caption with A, B, C, D in their stead."""
    found = []

    def replace(match):
        number = match["number"] or match["number2"]
        described = (match["adjectives"] or "") + (match["adjectives2"] or "") + (match["ink"] or "")
        found.append((reckon(number, UNIT), described.split()))
        return "ABCD"[len(found) - 1]

    return found, THING.sub(replace, caption)


def read_one(caption):
    """(digit, adjectives, sentence) of a caption of one digit."""
    found, sentence = things(caption)
    if len(found) == 2:
        assert re.search("A and not B|A rather than B|not A but B", sentence), caption
        wrong, right = found if "but" in sentence else reversed(found)
        assert wrong[0] != right[0] and not wrong[1], caption
        return *right, sentence
    assert len(found) == 1, caption
    return *found[0], sentence


def read_two(caption):
    """[(digit, adjectives)] of the left and the right digit, and the sentence, of a caption of two digits side by side."""
    found, sentence = things(caption)
    if len(found) == 2:
        core = re.sub("^(the picture shows|this image shows|there is|one can see|somebody wrote) ", "", sentence)
        assert core in LEFT_FIRST + RIGHT_FIRST, caption
        return found if core in LEFT_FIRST else found[::-1], core
    head, *tails = caption.split(", ")
    match = NUMBER.search(head)
    if match["relation"]:
        number, form = reckon(match["relation"], PAIR), "relation"
    elif match["plain"]:
        number, form = value(match["plain"]), "plain"
        if match["back"]:
            number, form = 10 * (number % 10) + number // 10, "backwards"
    else:
        number, form = 10 * value(match["first"]) + value(match["second"]), "digits"
    adjectives = {"left": [], "right": []}
    for tail in tails:
        which, words = re.fullmatch("the (first|left|second|right) digit (.+)", tail).groups()
        adjectives[{"first": "left", "second": "right"}.get(which, which)] = words.replace(" and ", " ").split()
    return [(number // 10, adjectives["left"]), (number % 10, adjectives["right"])], form


def check_adjectives(adjectives, scenes, row, slot, bounds):
    ink, side = scenes.ink[row, slot], scenes.side[row, slot]
    for word in adjectives:
        if word in SIZE:
            assert SIZE[word] == sum(float(side) > bound for bound in bounds)
        elif COLOUR[word] == 3:
            assert ink.max() - ink.min() < 0.08
        else:
            assert ink[COLOUR[word]] == ink.max()


def check_place(text, scenes, row, slot):
    x, y = scenes.centre[row, slot]
    assert not re.search(r"\b(upper|top)\b", text) or y < 0
    assert not re.search(r"\b(lower|bottom)\b", text) or y > 0
    assert not re.search(r"\bleft\b", text) or x < 0
    assert not re.search(r"\bright\b", text) or x > 0


def test_captions_of_one_digit_tell_the_truth():
    scenes = undrawn_scenes("single", 2500, generator(0, "test"))
    sentences, told = set(), Counter()
    for row, caption in enumerate(captions(scenes, generator(1, "test"))):
        digit, adjectives, sentence = read_one(caption)
        assert digit == scenes.classes[row, 0], caption
        check_adjectives(adjectives, scenes, row, 0, (0.50, 0.62))
        check_place(sentence, scenes, row, 0)
        told.update(size=any(word in SIZE for word in adjectives), colour=any(word in COLOUR for word in adjectives),
                    position=bool(re.search(r"\b(left|right)\b", sentence)), word=bool(re.search("zero|five|nine", caption)),
                    numeral=bool(re.search("0|5|9", caption)), reckoned=bool(re.search("after|than|plus|minus", caption)))
        sentences.add(re.sub("upper|top|lower|bottom", "v", re.sub("left|right", "h", sentence)))
    assert len(sentences) > 100
    assert all(0.65 < told[what] / 2500 < 0.75 for what in ("size", "colour", "position"))
    assert all(told[what] > 300 for what in ("word", "numeral", "reckoned"))


def test_captions_of_two_digits_tell_which_one_stands_left():
    scenes = undrawn_scenes("number", 4000, generator(2, "test"))
    forms = Counter()
    for row, caption in enumerate(captions(scenes, generator(3, "test"))):
        sides, form = read_two(caption)
        assert [digit for digit, _ in sides] == scenes.classes[row, :2].tolist(), caption
        for slot, (_, adjectives) in enumerate(sides):
            check_adjectives(adjectives, scenes, row, slot, (0.394, 0.427))
        forms[form] += 1
    assert set(forms) == {*LEFT_FIRST, *RIGHT_FIRST, "relation", "plain", "backwards", "digits"}
    assert min(forms.values()) > 30
    mirrored = sum(forms[form] for form in RIGHT_FIRST) / sum(forms[form] for form in LEFT_FIRST)
    assert 0.85 < mirrored < 1.15                                 # the order of mention says nothing


def test_captions_of_several_digits_put_each_where_it_is():
    scenes = undrawn_scenes("multi", 2000, generator(4, "test"))
    placed = 0
    for row, caption in enumerate(captions(scenes, generator(5, "test"))):
        slots = [slot for slot in range(4) if scenes.classes[row, slot] >= 0]
        if len(slots) == 1 or slots in ([0, 1], [2, 3]):
            digits = [read_one(caption)[0]] if len(slots) == 1 else [digit for digit, _ in read_two(caption)[0]]
            assert digits == scenes.classes[row, slots].tolist(), caption
            continue
        found, sentence = things(caption)
        assert Counter(digit for digit, _ in found) == Counter(scenes.classes[row, slots].tolist()), caption
        places = re.findall("[A-D] (?:in|at) the (upper|top|lower|bottom) (left|right)", sentence)
        assert len(places) in (0, len(slots)), caption
        for (digit, adjectives), (vertical, horizontal) in zip(found, places, strict=False):
            slot = 2 * (vertical in ("lower", "bottom")) + (horizontal == "right")
            assert digit == scenes.classes[row, slot], caption
            check_adjectives(adjectives, scenes, row, slot, (0.394, 0.427))
            check_place(f"{vertical} {horizontal}", scenes, row, slot)
            placed += 1
    assert placed > 1000


@pytest.mark.parametrize("layout", TASK_LAYOUTS)
def test_captions_are_plain_lower_case_and_mostly_all_different(layout):
    lines = captions(undrawn_scenes(layout, 2000, generator(6, layout)), generator(7, layout))
    assert all(re.fullmatch(r"[a-z0-9]+(,? [a-z0-9]+)*", line) for line in lines)
    assert len(set(lines)) > 1800
    assert not any(re.search(r"\b(a [aei8]|an [^aei8])", line) for line in lines)


def test_captions_depend_on_their_generator_alone():
    scenes, first = public_pairs(200, 0), captions(public_pairs(200, 0), generator(0, "captions"))
    torch.rand(3)
    assert captions(scenes, generator(0, "captions")) == first
    assert captions(scenes, generator(1, "captions")) != first
    shorter = type(scenes)(*(field[:50] for field in scenes))
    assert captions(shorter, generator(0, "captions")) == first[:50]


def test_the_words_alone_do_not_give_the_answer_away():
    """A linear model on words, from 300 captions, is far from certain; chance is 10 %."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    for layout, low, high in (("single", 0.25, 0.6), ("number", 0.15, 0.4)):
        fit, score = (undrawn_scenes(layout, n, generator(8, layout, n)) for n in (300, 1000))
        model = make_pipeline(CountVectorizer(token_pattern=r"\S+"), LogisticRegression(max_iter=500))
        model.fit(captions(fit, generator(9)), fit.classes[:, 0])
        assert low < model.score(captions(score, generator(10)), score.classes[:, 0]) < high


def test_captioning_a_public_set_takes_no_time():
    scenes = public_pairs(512, 0)
    captions(scenes, generator(0))                                # the first call of a process takes longer
    begin = time.process_time()
    captions(scenes, generator(0))
    assert time.process_time() - begin < 0.2


def test_scenes_that_cannot_be_captioned_are_refused():
    scenes = digit_scenes("train", "multi", 10, 0)
    classes = scenes.classes.clone()
    classes[3] = -1
    with pytest.raises(ValueError, match=r"scenes: got classes \[-1, -1, -1, -1\] in scene 3, expected digits 0 to 9"):
        captions(scenes._replace(classes=classes), generator(0))
    with pytest.raises(ValueError, match="scenes: got classes .* in scene"):
        captions(compose(letter_pool(), "multi", 40, generator(0)), generator(0))
    with pytest.raises(ValueError, match="scenes: got no classes"):
        captions(scenes._replace(classes=None), generator(0))
