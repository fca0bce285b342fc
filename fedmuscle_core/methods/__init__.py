"""The methods, one small file each.  To add one: write `play_round(federation, round)`, then name it here.

`play_round` trains the clients of a federation for one round, sends what it exchanges through `federation.ledger`, and
returns its training losses as {metric: {client index: value}}.  `reads`: the exchange settings that can change its result.
"""

from typing import NamedTuple

from ..settings import EXCHANGE_FIELDS
from . import fedmuscle, local


class Method(NamedTuple):
    label: str
    play_round: object
    reads: tuple


METHODS = {
    "local": Method("Local", local.play_round, ()),
    "pairwise": Method("Pairwise", fedmuscle.play_pairwise_round, tuple(set(EXCHANGE_FIELDS) - {"tau_prev"})),
    "fedmuscle": Method("FedMuscle", fedmuscle.play_round, EXCHANGE_FIELDS),
}
