"""The methods, one small file each.  To add one: write `play_round(federation, round)`, then name it here.

`play_round` trains the clients of a federation for one round, sends what it exchanges through `federation.ledger`, and
returns its training losses, and what else it measures, as {metric: {client index: value}}.  Clients are scored after it, as
they would be used: after their local phase; Centralised has none.  `reads`: the exchange settings that can change its result.
`exchanges`, `needs`: for people, what travels each round and what the method asks of clients and server.
"""

from typing import NamedTuple

from . import centralised, cofed, encoder_only, fedavg, fedhenn, fedmuscle, gramian, local, matfl, mfed, simclr

PUBLIC = ("public_domain", "public_size")
CONTRASTIVE = (*PUBLIC, "batch_size", "contrastive_lr", "contrastive_epochs", "contrastive_steps", "tau")
PEERS = (*CONTRASTIVE, "num_peers", "augment", "peer_choice", "absence", "refresh")
MUSCLE = (*PEERS, "protocol", "tau_cross", "distant")
UPLOADS = ("bad_uploads",)


class Method(NamedTuple):
    label: str
    play_round: object
    reads: tuple
    exchanges: str
    needs: str


ALIGNING = {                                          # models and tasks may differ; public data
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

SHARING = {                                           # one encoder architecture; no public data
    "fedavg": Method("FedAvg in task", fedavg.play_round, UPLOADS, "encoder and decoder up, their task's means down",
                     "several clients of a task, one architecture; a server that averages"),
    "fedprox": Method("FedProx in task", fedavg.play_proximal_round, (*UPLOADS, "mu"),
                      "encoder and decoder up, their task's means down",
                      "several clients of a task, one architecture; a server that averages"),
    "encoder_only": Method("Encoder only", encoder_only.play_round, UPLOADS, "encoder up, the mean of all down",
                           "one encoder architecture; a server that averages"),
    "matfl": Method("MaT-FL", matfl.play_round, (*UPLOADS, "group_shift"), "encoder up, a mean of its own down",
                    "one encoder architecture; a server that compares encoders"),
    "mfed": Method("M-Fed", mfed.play_round, (*UPLOADS, "lam", "decoder_term", "share"),
                   "encoder and decoder up, the mean encoder and the task's decoder down",
                   "one encoder architecture, one decoder a task; a server that averages"),
    "centralised": Method("Centralised", centralised.play_round, (), "private data up, the model down",
                          "all private data in one place"),
}

METHODS = ALIGNING | SHARING
