"""A FedMuscle round of six paper-sized clients: `python -m fedmuscle_core.benchmarks.paper_round --device cuda`.

ViT-B or ViT-S with random weights, LoRA of rank 16, B = 32, M = 3, d = 256, noise of 224 x 224 pixels for photos.  Times whole
rounds (a contrastive phase of `--batches` public batches and a local phase) and, in turns with them, the forward and backward
passes of the same networks on the same batches alone; tells the accelerator's peak memory.
"""

import statistics
import sys
import time

import torch
from transformers import AutoModel, ViTConfig

from ..client import Client, Training, embed
from ..federation import Federation
from ..methods import FedMuscle
from ..networks.adaptation import adapt
from ..networks.backbones import PIXELS
from ..networks.checkpoints import CHECKPOINTS
from ..networks.client_network import ClientNetwork
from ..seeds import generator, seeded
from ..tasks import multilabel
from . import begun, play_round
from .saving import parser_of, save

CONFIGS = {"vit_base": CHECKPOINTS["vit_base"].config,
           "vit_small": ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)}
SIDE, DIM, BATCH, LABELS = 224, 256, 32, 20


def make_federation(config, batches, precision, device):
    """Six clients, all with this architecture, public noise for `batches` batches and as much private."""
    rng, clients, task, size = generator(0, "paper round"), [], multilabel(LABELS), BATCH * batches
    public = torch.randint(256, (size, 3, SIDE, SIDE), generator=rng, dtype=torch.uint8)
    wanted = torch.randint(2, (size, LABELS), generator=rng).float()
    for name in range(1, 7):
        with seeded(0, "paper round", name):
            network = ClientNetwork(adapt(AutoModel.from_config(config), "lora"), DIM, LABELS,
                                    scale=PIXELS._replace(precision=precision))
        clients.append(Client(name, network, None, task, train=(public, wanted), public=public, works_on=device))
    training = Training(local_batch_size=BATCH, min_local_steps=batches)
    return Federation(clients, FedMuscle(num_peers=3, batch_size=BATCH), training=training)


def passes_alone(federation):
    """The passes of one round without exchange, loss between clients, or steps: as many forwards and backwards."""
    for client in federation.clients:
        for rows in torch.arange(client.public.size).split(BATCH):
            public = client.public.take(rows)[0]
            embed(client, public.to(client.device)).sum().backward()
            images, wanted = (part.to(client.device) for part in client.data["train"].take(rows))
            client.task.loss(client.network(images), wanted).backward()
        client.local_optimizer.param_groups[0]["params"][0].grad.zero_()


def timed(function, device):
    """Seconds that `function()` takes, the accelerator's work included."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    clock = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - clock


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--backbone", choices=list(CONFIGS), default="vit_base")
    parser.add_argument("--batches", type=int, default=8, help="public batches of 32 a round, and as many private ones")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    federation = make_federation(CONFIGS[args.backbone], args.batches, args.precision, args.device)
    begun(federation, 1 + args.repeats)
    play_round(federation, 1)
    passes_alone(federation)
    rows = []
    for repeat in range(args.repeats):
        whole = timed(lambda number=2 + repeat: play_round(federation, number), args.device)
        alone = timed(lambda: passes_alone(federation), args.device)
        rows.append({"round_seconds": whole, "passes_seconds": alone, "ratio": whole / alone})
        print(f"round {whole:7.2f} s   passes alone {alone:7.2f} s   ratio {whole / alone:.3f}")
    on_gpu = args.device.startswith("cuda")
    record = {"backbone": args.backbone, "batches": args.batches, "precision": args.precision,
              "device": torch.cuda.get_device_name() if on_gpu else "cpu", "rows": rows,
              "median_ratio": statistics.median(row["ratio"] for row in rows),
              "peak_MiB": round(torch.cuda.max_memory_allocated() / 2 ** 20) if on_gpu else None}
    print(f"{record['device']}: median ratio {record['median_ratio']:.3f}, peak memory {record['peak_MiB']} MiB")
    save(args.save, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
