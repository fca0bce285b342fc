"""MaT-FL, soft grouping: every client gets a mean of encoders of its own, weighted by how alike they differ from the mean of
all.

After Cai et al. (2023), "Many-Task Federated Learning: A New Problem Setting and a Simple Baseline"; see
`aggregation.soft_groups`.  Decoders stay with their clients.
"""

from dataclasses import dataclass

from ..aggregation import mean_by_groups
from ..checks import number
from .sharing import RATES, Sharing


@dataclass(frozen=True)
class MaTFL(Sharing):
    """group_shift: see `aggregation.soft_groups`."""

    name, label, colour = "matfl", "MaT-FL", "#e879f9"
    exchanges, needs = "encoder up, a mean of its own down", "one encoder architecture; a server that compares encoders"
    grid, parts = {"local_lr": RATES[1:], "group_shift": (0.0, 0.25, 0.5, 1.0)}, ("encoder",)

    group_shift: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        number("group_shift", self.group_shift, least=0)
        if self.average != "mean":
            raise ValueError(f"average: got {self.average!r}, expected 'mean' with MaT-FL, whose groups are weighted")

    def merge(self, uploads, tasks):
        """An encoder of its own for every client, no decoders."""
        return mean_by_groups(uploads, self.group_shift), {}
