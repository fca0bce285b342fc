"""The methods, one small file each.  To add one: write `play_round(federation, round)`, then name it here.

`play_round` trains the clients of a federation for one round, sends what it exchanges through `federation.ledger`, and
returns its training losses as {metric: {client index: value}}.  `reads`: the exchange settings that can change its result.
`exchanges`, `needs`: for people, what travels each round and what the method asks of clients and server.
"""

from typing import NamedTuple

from . import cofed, fedhenn, fedmuscle, gramian, local, simclr

PUBLIC = ("public_domain", "public_size")
CONTRASTIVE = (*PUBLIC, "batch_size", "contrastive_lr", "contrastive_epochs", "contrastive_steps", "tau")
PEERS = (*CONTRASTIVE, "num_peers", "augment", "peer_choice", "absence", "refresh")
MUSCLE = (*PEERS, "protocol", "tau_cross", "distant")


class Method(NamedTuple):
    label: str
    play_round: object
    reads: tuple
    exchanges: str
    needs: str


METHODS = {
    "local": Method("Local", local.play_round, (), "nothing", "nothing"),
    "simclr": Method("SimCLR", simclr.play_round, CONTRASTIVE, "nothing", "public data"),
    "cofed": Method("CoFED", cofed.play_round, (*PUBLIC, "vote_margin", "vote_share"),
                    "votes up, pseudo-labels down",
                    "public data; several clients of one label space (alone, one teaches itself); a server that counts"),
    "fedhenn": Method("FedHeNN", fedhenn.play_round, (*PUBLIC, "batch_size", "eta", "augment"),
                      "B x B kernels up, their mean down", "public data; a server that averages"),
    "gramian": Method("Gramian", gramian.play_round, PEERS,
                      "B x d representations up, those of M peers down", "public data; a server that relays"),
    "pairwise": Method("Pairwise", fedmuscle.play_pairwise_round, MUSCLE,
                       "B x d representations up, those of M peers down", "public data; a server that relays"),
    "fedmuscle": Method("FedMuscle", fedmuscle.play_round, (*MUSCLE, "tau_prev", "num_samples"),
                        "B x d representations up, those of M peers down", "public data; a server that relays"),
}
