"""Who sends what to whom in a round, drawn: one picture for every exchange."""

from typing import NamedTuple

import matplotlib.pyplot as plt

INK, PAPER = "#262626", "#f5f5f4"
WIDTH, HEIGHT, GAP = 2.1, 1.0, 0.7            # of a client's box, and between two


class Sender(NamedTuple):
    """A client of the picture: what stands in its box, what it sends, what it receives, and the colour of its group."""

    text: str
    up: str
    down: str
    colour: str = "#1d4ed8"


def exchange(server, senders, public=""):
    """A figure of one round: the server above, a box a client below, and what travels beside the arrows.

    server, public: texts of the server's box, and of what all clients read, drawn below them where there is any.
    """
    across, top = len(senders) * (WIDTH + GAP) - GAP, 2.6
    fig, ax = plt.subplots(figsize=(1.1 * (across + 0.4), 3.4 + 0.6 * bool(public)))
    _box(ax, across / 2, top, across, 0.8, server, INK)
    for place, sender in enumerate(senders):
        x = place * (WIDTH + GAP) + WIDTH / 2
        _box(ax, x, 0.5, WIDTH, HEIGHT, sender.text, sender.colour)
        for side, text, ends in ((-1, sender.up, (HEIGHT, top - 0.4)), (1, sender.down, (top - 0.4, HEIGHT))):
            _arrow(ax, x + 0.15 * side, ends, sender.colour)
            ax.text(x + 0.22 * side, sum(ends) / 2, text, color=sender.colour, fontsize=9, ha="right" if side < 0 else "left",
                    va="center")
        if public:
            _arrow(ax, x, (-0.4, 0), INK, linestyle="--")
    if public:
        _box(ax, across / 2, -0.65, across, 0.5, public, "#737373")
    ax.set(xlim=(-0.2, across + 0.2), ylim=(-0.95 if public else -0.1, top + 0.5), aspect="equal")
    ax.axis("off")
    return fig


def _arrow(ax, x, ends, colour, **style):
    ax.annotate("", (x, ends[1]), (x, ends[0]), arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, **style})


def _box(ax, x, y, width, height, text, colour):
    corner = x - width / 2, y - height / 2
    ax.add_patch(plt.Rectangle(corner, width, height, facecolor=PAPER, edgecolor=colour, linewidth=1.6))
    ax.text(x, y, text, ha="center", va="center", fontsize=9, color=INK)
