"""Who sends what to whom, drawn."""

from matplotlib.colors import to_hex

from fedmuscle_core.analysis.diagrams import Sender, exchange


def test_every_sender_has_a_box_two_arrows_and_what_travels_beside_them():
    senders = [Sender("a", "up a", "down a", "#b45309"), Sender("b", "up b", "down b")]
    (ax,) = exchange("server", senders, "public").axes
    assert {text.get_text() for text in ax.texts} >= {"server", "a", "b", "up a", "down a", "up b", "down b", "public"}
    assert [to_hex(box.get_edgecolor()) for box in ax.patches[1:3]] == ["#b45309", "#1d4ed8"]
    arrows = [text for text in ax.texts if getattr(text, "arrow_patch", None)]
    assert len(arrows) == 2 * len(senders) + len(senders) and len(exchange("server", senders).axes[0].patches) == 3
    up = next(text for text in ax.texts if text.get_text() == "up a")
    down = next(text for text in ax.texts if text.get_text() == "down a")
    assert up.get_position()[0] < down.get_position()[0]
