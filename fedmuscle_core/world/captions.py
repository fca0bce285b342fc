"""Captions: what a scene of digits shows, in English; the text of image-caption pairs and of the text tasks.

The digits are always told, size, colour and position often but not always.  About half of the digits of scenes with one or
two are told by way of another number ("the digit after six", "not a three but a seven"), and which of two digits stands
left often has to be worked out ("a seven to the right of a three"): words alone do not give the answer away.
"""

import random
from typing import NamedTuple

import torch

MENTION = 0.7       # how often a caption tells the size, the colour, the position
UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SIZE_WORDS = (("small", "little", "tiny"), ("medium", "average"), ("large", "big", "huge"))
SIZE_BOUNDS = {1: (0.50, 0.62), 2: (0.394, 0.427)}      # side at which small and medium end: of one digit, of several
COLOURS = (("red", "reddish", "rosy"), ("green", "greenish", "emerald"), ("blue", "bluish", "azure"), ("pale", "whitish"))
PALE = 0.08         # channels of the ink no further apart than this
VERTICAL, HORIZONTAL = (("upper", "top"), ("lower", "bottom")), ("left", "right")
PLACES = ("in the {} {}", "at the {} {}", "in the {} {} corner", "near the {} {} corner")
DIGIT_WORDS = ("digit", "number", "figure")
RELATIONS = (       # wording, offsets of the numbers it names
    ("after {}", (-1,)), ("following {}", (-1,)), ("before {}", (1,)), ("between {} and {}", (-1, 1)),
    ("one less than {}", (1,)), ("one more than {}", (-1,)), ("two less than {}", (2,)), ("two more than {}", (-2,)))
CONTRASTS = ("not {wrong} but {right}", "{right} and not {wrong}", "{right} rather than {wrong}")
SHOWS = ("{}", "{}", "the picture shows {}", "this image shows {}", "there is {}", "one can see {}", "somebody wrote {}")
ONE_PLACED = (
    "{at} there is {it}", "{at} sits {it}", "{at} one can see {it}", "{at}, {it}", "{it} sits {at}", "{it} stands {at}",
    "{it} {at}", "the picture shows {it} {at}", "this image shows {it} {at}", "there is {it} {at}", "somebody wrote {it} {at}")
TWO_NAMED = (       # to be put into one of SHOWS
    "{left} to the left of {right}", "{right} to the right of {left}", "{left} left of {right}", "{right} right of {left}",
    "{left} followed by {right}", "{right} preceded by {left}", "{left} on the left beside {right}",
    "{right} on the right beside {left}", "{left} on the left and {right} on the right",
    "{right} on the right and {left} on the left", "{left} and {right} from left to right",
    "{right} and {left} from right to left")
TWO_PLACED = (
    "left of {right} stands {left}", "right of {left} stands {right}", "to the left of {right} there is {left}",
    "to the right of {left} there is {right}", "on the left {left}, on the right {right}",
    "on the right {right}, on the left {left}", "after {left} comes {right}", "before {right} comes {left}",
    "{right} comes after {left}", "{left} comes before {right}")


class Digit(NamedTuple):
    """One digit of a scene: its value, and the indices of its words in `SIZE_WORDS`, `COLOURS`, `VERTICAL`, `HORIZONTAL`."""

    value: int
    size: int
    colour: int
    vertical: int
    horizontal: int


class Told(NamedTuple):
    """What a caption mentions."""

    size: bool
    colour: bool
    position: bool


def captions(scenes, rng):
    """One caption for each of `scenes` (`Scenes` of digits, n of them): list of n strings, lower case.

    rng: `torch.Generator`, the only source of randomness; captions do not depend on the scenes that come later.
    Raises ValueError when a scene has no digit or something else than digits.
    """
    classes = scenes.classes
    if classes is None or classes.ndim != 2 or not len(classes):
        raise ValueError("scenes: got no classes, expected a digit 0 to 9 or -1 for every slot (n, 4)")
    if classes.max() > 9 or classes.amax(1).min() < 0:
        row = int(((classes > 9).any(1) | (classes < 0).all(1)).int().argmax())
        raise ValueError(f"scenes: got classes {classes[row].tolist()} in scene {row}, expected digits 0 to 9, at least one")
    draw = random.Random(int(torch.randint(2 ** 62, (), generator=rng)))
    return [_caption(slots, draw) for slots in _described(scenes)]


def _described(scenes):
    """For each scene {slot: `Digit`}, empty slots left out."""
    present = scenes.classes >= 0
    alone = (present.sum(1, keepdim=True) == 1)
    size = sum((scenes.side > torch.where(alone, one, several)).long()
               for one, several in zip(SIZE_BOUNDS[1], SIZE_BOUNDS[2], strict=True))
    pale = scenes.ink.amax(2) - scenes.ink.amin(2) < PALE
    colour = torch.where(pale, 3, scenes.ink.argmax(2))
    right, below = (scenes.centre > 0).long().unbind(2)
    table = torch.stack([scenes.classes, size, colour, below, right], 2).tolist()
    return [{slot: Digit(*values) for slot, values in enumerate(row) if values[0] >= 0} for row in table]


def _caption(slots, draw):
    told = Told(*(draw.random() < MENTION for _ in Told._fields))
    digits = list(slots.values())
    if len(digits) == 1:
        return _one(digits[0], told, draw)
    if list(slots) in ([0, 1], [2, 3]):                                       # side by side
        return _two(*digits, told, draw) if told.position else _as_number(*digits, told, draw)
    return _several(digits, told, draw)


def _one(digit, told, draw):
    """"in the upper left there is a tiny red seven"."""
    it = _thing(digit, told, draw)
    if draw.random() < 0.25:
        wrong = draw.choice([value for value in range(10) if value != digit.value])
        it = draw.choice(CONTRASTS).format(right=it, wrong=_with_article([_spelt(wrong, draw)]))
    if told.position:
        return draw.choice(ONE_PLACED).format(it=it, at=_place(digit, draw))
    return draw.choice(SHOWS).format(it)


def _two(left, right, told, draw):
    """"a red 7 to the right of a three"."""
    words = {"left": _thing(left, told, draw), "right": _thing(right, told, draw)}
    if draw.random() < 0.5:
        return draw.choice(SHOWS).format(draw.choice(TWO_NAMED).format(**words))
    return draw.choice(TWO_PLACED).format(**words)


def _as_number(left, right, told, draw):
    """"the number thirty seven, the first digit tiny and red"."""
    value, form = 10 * left.value + right.value, draw.random()
    if form < 0.25 and 10 <= value <= 99:
        text = f"the number {_relation(value, 10, 99, draw)}"
    elif form < 0.45:
        text = f"{_spelt_pair(right.value, left.value, draw)} read backwards"
    elif form < 0.6:
        text = f"the digits {_spelt(left.value, draw)} and {_spelt(right.value, draw)}"
    else:
        text = draw.choice(("", "the number ", "the figure ")) + _spelt_pair(left.value, right.value, draw)
    backwards = text.endswith("backwards")                                    # then "first" could be either
    tails = [f"the {side if backwards else draw.choice((side, rank))} digit {' and '.join(adjectives)}"
             for digit, side, rank in ((left, "left", "first"), (right, "right", "second"))
             if (adjectives := _adjectives(digit, told, draw))]
    draw.shuffle(tails)
    return ", ".join([draw.choice(SHOWS).format(text), *tails[:draw.choice((1, 2))]])


def _several(digits, told, draw):
    """"a 7 at the top left, a small three in the lower right and a 2 at the top right"."""
    digits = draw.sample(digits, len(digits))
    things = [_with_article([*_adjectives(digit, told, draw), _spelt(digit.value, draw)]) for digit in digits]
    if told.position:
        things = [f"{thing} {_place(digit, draw, PLACES[:2])}" for thing, digit in zip(things, digits, strict=True)]
    return draw.choice(SHOWS).format(", ".join(things[:-1]) + " and " + things[-1])


def _thing(digit, told, draw):
    """A noun phrase for one digit: "a tiny red seven", "the digit 7 in rosy ink", "the tiny digit after six"."""
    by_ink = told.colour and draw.random() < 0.2
    ink = f" in {draw.choice(COLOURS[digit.colour])} ink" if by_ink else ""
    adjectives = _adjectives(digit, told._replace(colour=told.colour and not by_ink), draw)
    form = draw.random()
    if form < 0.4:
        return " ".join(["the", *adjectives, draw.choice(DIGIT_WORDS), _reckoned(digit.value, draw)]) + ink
    if form < 0.6:
        return " ".join(["the", *adjectives, draw.choice(DIGIT_WORDS), _spelt(digit.value, draw)]) + ink
    return _with_article([*adjectives, _spelt(digit.value, draw)]) + ink


def _adjectives(digit, told, draw):
    return [draw.choice(words[index]) for words, index, wanted in
            ((SIZE_WORDS, digit.size, told.size), (COLOURS, digit.colour, told.colour)) if wanted]


def _place(digit, draw, places=PLACES):
    return draw.choice(places).format(draw.choice(VERTICAL[digit.vertical]), HORIZONTAL[digit.horizontal])


def _reckoned(value, draw):
    """"after six", "equal to three plus four"."""
    form = draw.random()
    if form < 0.15:
        part = draw.randint(0, value)
        return f"equal to {_spelt(part, draw)} plus {_spelt(value - part, draw)}"
    if form < 0.3:
        whole = draw.randint(value, 9)
        return f"equal to {_spelt(whole, draw)} minus {_spelt(whole - value, draw)}"
    return _relation(value, 0, 9, draw)


def _relation(value, low, high, draw):
    """One of `RELATIONS` to `value` whose numbers lie from `low` to `high`."""
    possible = [(wording, offsets) for wording, offsets in RELATIONS
                if low <= value + min(offsets) and value + max(offsets) <= high]
    wording, offsets = draw.choice(possible)
    spell = _spelt if high == 9 else (lambda number, draw: _spelt_pair(*divmod(number, 10), draw))
    return wording.format(*(spell(value + offset, draw) for offset in offsets))


def _spelt(value, draw):
    """One digit as a word or a numeral."""
    return UNITS[value] if draw.random() < 0.5 else str(value)


def _spelt_pair(tens, units, draw):
    """Two digits as one number: "37", "thirty seven"; "07", "zero seven"."""
    if draw.random() < 0.5:
        return f"{tens}{units}"
    if tens == 0:
        return f"{UNITS[0]} {UNITS[units]}"
    if tens == 1:
        return TEENS[units]
    return TENS[tens - 2] + (" " + UNITS[units] if units else "")


def _with_article(words):
    return " ".join(["an" if words[0][0] in "aei8" else "a", *words])         # "a one", "an 8"
