"""FedHeNN: the local objective has a further term that pulls a client's kernel of public batches to the mean kernel.

    loss = task loss + eta (1 - CKA(K_n, mean K)),   K_n = Z_n Z_n^T of a public batch, (B, B)

After Makhija et al. (2022); some public re-implementations add the similarity itself, which pushes clients apart.
"""

from dataclasses import dataclass

import torch

from ..aggregation import kernel_mean
from ..checks import boolean, number, positive_int
from ..client import embed, local_phase, or_nan, public_batch
from ..exchange import Stage, expect
from ..losses import cka_loss
from ..method import Method, by_metric
from ..placement import at_work
from ..seeds import generator
from .contrastive import UNIT, check_public_size, full_batches


@dataclass(frozen=True)
class FedHeNN(Method):
    """batch_size [B] of the public batches, gone through once a round; eta: weight of the term; augment: every public batch is
    seen through one random view, the same for all clients."""

    name, label, colour = "fedhenn", "FedHeNN", "#e879f9"
    exchanges, needs, uses_public = "B x B kernels up, their mean down", "public data; a server that averages", True
    tells = "the local objective has a further term"
    grid = {"eta": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), "batch_size": (16, 32)}

    batch_size: int = 32
    eta: float = 1.0
    augment: bool = False

    def __post_init__(self):
        positive_int("batch_size", self.batch_size)
        number("eta", self.eta, above=0)
        boolean("augment", self.augment)

    def check(self, num_clients, public_size=None, dim=None):
        check_public_size(public_size, self.batch_size)

    @property
    def changes_public(self):
        return self.augment

    def batches(self, seed, public_size, round):
        """Rows of the round's public batches."""
        return full_batches(public_size, self.batch_size, generator(seed, "contrastive", round))

    def opening(self, server, round):
        """The kernels of the round's public batches."""
        count, kernel = server.public_size // self.batch_size, torch.empty(self.batch_size, self.batch_size, device="meta")

        def check(client, reply):
            found = reply.get("kernels")
            if not isinstance(found, (list, tuple)) or len(found) != count:
                raise ValueError(f"got {len(found) if isinstance(found, (list, tuple)) else type(found).__name__} as kernels, "
                                 f"expected {count} of them")
            named = {f"kernel {place}": one for place, one in enumerate(found)}
            expect(named | {name: value for name, value in reply.items() if name != "kernels"}, dict.fromkeys(named, kernel))
            for name, one in named.items():
                if not ((one.diagonal() - 1).abs().max() <= UNIT and one.abs().max() <= 1 + UNIT
                        and (one - one.T).abs().max() <= UNIT):
                    raise ValueError(f"got {name!r} that is none of unit-length rows, expected z_i . z_j")

        return Stage("kernels", server.present(round), lambda client: {"round": round}, check)

    def play(self, server, round):
        """All clients upload the kernels of the round's public batches and get the means back, then train locally.

        As many local steps carry the term as there are public batches in an epoch (all steps, where there are fewer), spread
        evenly: our choice, so that every method makes as many steps on public data.
        """
        sent = yield self.opening(server, round)
        columns = zip(*(reply["kernels"] for reply in sent.values()), strict=True)
        means = [kernel_mean(list(several)) for several in columns]
        return by_metric((yield self.local_phases(server, round, lambda client: {"kernels": means} if client in sent else {})))

    # Client functions.

    @torch.no_grad()
    def kernels(self, client, message):
        """The client's linear kernels (B, B) of the public batches."""
        round, found = message["round"], []
        with at_work(client):
            for number, rows in enumerate(self.batches(client.seed, client.public.size, round)):
                features = embed(client, public_batch(client, rows, self.augment, round, number), round, number)
                found.append(features @ features.T)
        return {"kernels": found}

    def local(self, client, message):
        """A local phase with the term, where the means came."""
        if "kernels" not in message:
            return super().local(client, message)
        terms = []
        loss = local_phase(client, message["round"], self.kernel_term(client, message["kernels"], message["round"], terms))
        return {"local_loss": loss, "kernel_loss": sum(terms) / len(terms)}

    def kernel_term(self, client, means, round, terms):
        """The `extend` of `client.local_phase` that adds eta (1 - CKA); the terms' values are appended to `terms`."""
        batches = self.batches(client.seed, client.public.size, round)

        def extend(loss, step):
            number = step.number * len(batches) // step.total
            if step.number and number == (step.number - 1) * len(batches) // step.total:
                return loss
            batch = public_batch(client, batches[number], self.augment, round, number)
            mean = means[number].to(client.device)
            term = or_nan(lambda features: cka_loss(features, mean), embed(client, batch, "local", round, number))
            terms.append(term.item())
            return loss + self.eta * term
        return extend

    def forwards(self, work):
        batches = work.public_size // self.batch_size
        return (batches + (1 + work.back) * min(batches, work.local_steps)) * self.batch_size

    def turns(self, work):
        return 3

    def samples_at_once(self, work):
        return work.local_batch + self.batch_size
