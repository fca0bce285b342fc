"""MaT-FL, soft grouping: every client gets a mean of encoders of its own, weighted by how alike they
differ from the mean of all.

After Cai et al. (2023), "Many-Task Federated Learning: A New Problem Setting and a Simple Baseline"; see
`aggregation.soft_groups`.  Decoders stay with their clients.
"""

from ..aggregation import mean_by_groups
from . import sharing


def play_round(federation, round):
    """One round."""
    def merge(uploads, tasks):
        return mean_by_groups(uploads, federation.settings.group_shift), {}
    return sharing.play(federation, round, merge, parts=("encoder",))
