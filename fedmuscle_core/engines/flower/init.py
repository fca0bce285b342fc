"""All files of a deployment, with TLS and a key for every node: what `fedmuscle flower init` writes."""

import datetime
import ipaddress
import os
import re
from pathlib import Path

MEND = "pip install -r requirements-flower.lock && pip install --no-deps ."      # in a copy of the checkout
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
DAYS = 825
NODE_PORT = 9101                                      # of the first node; each of a machine needs its own

ENVIRONMENT = """cd "$(dirname "$0")"
command -v flower-superlink >/dev/null || {
    echo 'flower-superlink: got no such command, expected one; in a copy of the checkout: @MEND@' >&2; exit 1
}
export FLWR_HOME="$PWD/home" TMPDIR="$PWD/tmp" FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 FLWR_SUPEREXEC_TASK_POLL_INTERVAL=0.05
mkdir -p "$FLWR_HOME" "$TMPDIR"
"""
CONFIG = """cat > "$FLWR_HOME/config.toml" <<END
[superlink]
default = "deployment"
[superlink.deployment]
address = "127.0.0.1:@PORT@"
root-certificates = "$PWD/ca.crt"
END
"""
SUPERLINK = """#!/bin/sh
# The SuperLink, which keeps the messages for the nodes.  Stop it with Ctrl-C.
set -eu
@ENVIRONMENT@exec flower-superlink --host @BIND@ --port @PORT@ --ssl-ca-certfile ca.crt --ssl-certfile server.crt \\
    --ssl-keyfile server.key --enable-supernode-auth --database "$PWD/superlink.db" \\
    --disable-runtime-dependency-installation "$@"
"""
REGISTER = """#!/bin/sh
# Tell the SuperLink the keys of the nodes, once: none else gets in.
set -eu
@ENVIRONMENT@@CONFIG@reached=
for try in $(seq 30); do                                                  # while the SuperLink is starting
    flwr supernode list deployment >/dev/null 2>&1 && reached=yes && break
    sleep 1
done
[ "$reached" ] || { echo 'SuperLink: got no answer at 127.0.0.1:@PORT@, expected one: is start.sh running?' >&2; exit 1; }
for key in keys/*.pub; do
    flwr supernode register "$key" deployment --name "$(basename "$key" .pub)" || echo "$key: registered before?"
done
flwr supernode list deployment
"""
RUN = """#!/bin/sh
# Play the rounds and follow the log.  results/ fills as they are played; started again after a crash, it goes on.
# Ctrl-C only ends the log.  Here, FLWR_HOME="$PWD/home" flwr stop RUN_ID deployment stops the run; flwr list names it.
set -eu
@ENVIRONMENT@@CONFIG@exec flwr run ../app deployment --stream "$@"
"""
NODE = """#!/bin/sh
# The node of client @NAME@.  What ends it, it starts again; stop it with Ctrl-C.  Its data and state/ never leave this machine.
set -eu
@ENVIRONMENT@trap 'kill "$node" 2>/dev/null; wait "$node"; exit 0' INT TERM
while :; do
    flower-supernode --superlink @ADDRESS@ --root-certificates ca.crt --auth-supernode-private-key node.key \\
        --host 127.0.0.1 --port @NODE_PORT@ --node-config 'name="@NAME@"' "$@" &
    node=$!
    wait "$node" || echo "The node of client @NAME@ ended; again in 5 s (after a crash it counts as there for a minute)." >&2
    sleep 5
done
"""
PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "federated"
version = "1.0.0"
description = "A federation of @COUNT@ clients"
license = "Apache-2.0"
dependencies = ["fedmuscle-core[flower]"]

[tool.flwr.app]
publisher = "fedmuscle"

[tool.flwr.app.components]
serverapp = "federated:server_app"
clientapp = "federated:client_app"

[tool.flwr.app.config]
rounds = 3
patience = 600.0
folder = "results"
"""
APP = '''"""Who learns what, and how: fill in the three places.  `python federated.py` plays it in one process."""

import torch
from torch import nn

from fedmuscle_core import Client, Federation, FedMuscle, Training, classification
from fedmuscle_core.engines import flower

CLIENTS = @CLIENTS@
torch.set_num_threads(1)  # the same sums, bit for bit, on machines with other numbers of cores


# 1. The method and the training, the same for all.  A method must be able to travel: refresh="round", measure_gradients=False.
def federation(clients=()):
    return Federation(clients, FedMuscle(num_peers=1, contrastive_lr=1e-3, refresh="round"), seed=0,
                      training=Training(local_lr=1e-2), bad_uploads="skip")


# 2. The data of a client, which stay on its machine, and the public data: sample i is the same one for all.
def data(name):
    """Points of the plane, in two classes: inside and outside of a circle."""
    def points(count, seed):
        return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))

    own, test = points(40, 1 + CLIENTS.index(name)), points(100, 1000)
    return {"train": (own, (own.norm(dim=1) > 1).long()), "validation": (test, (test.norm(dim=1) > 1).long()),
            "public": points(64, 2000)}


# 3. The network of a client: an encoder, representations as wide as everybody's, and a head.
def client(name):
    torch.manual_seed(CLIENTS.index(name))
    encoder = nn.Sequential(nn.Linear(2, 16 + 8 * CLIENTS.index(name)), nn.Tanh(), nn.Linear(16 + 8 * CLIENTS.index(name), 8))
    return Client(name, encoder, nn.Linear(8, 2), classification(2, "circle"), **data(name))


server_app = flower.server_app(federation, CLIENTS)
client_app = flower.client_app(lambda context: federation().join(client(context.node_config["name"])), federation().method)

if __name__ == "__main__":
    print(federation([client(name) for name in CLIENTS]).fit(3, progress=False).query("split == 'validation'"))
'''
README = """# A federation of @COUNT@ clients over Flower

Made by `fedmuscle flower init`. Every machine needs Python and the same versions of all packages, with their commands
on the PATH. The package is on no index: copy the checkout to each machine, and run in it
`@MEND@`.

`app/federated.py` runs as it stands, with clients of a few numbers: try all of this on one machine first, a terminal each.

| where | what to copy there | command |
|---|---|---|
| the server, @ADDRESS@ | `server/`, `app/` | `sh server/start.sh` |
| the machine of each client | its folder of `nodes/` | @STARTS@ |
| the server, once | | `sh server/register.sh` |
| the server | | `sh server/run.sh` |

Then fill in the three places of `app/federated.py`: method, data, network. `server/run.sh --run-config "rounds=20"` changes
what stands in `app/pyproject.toml`: rounds, patience (seconds until a client that does not answer counts as absent), folder.

- The app travels: each node gets `app/` from the server and runs it. Data do not: `data(name)` reads them where the node is.
- `server/results/`: history.csv, bytes.csv, log.csv, after every round. `nodes/NAME/state/`: what the client has learnt;
  `fedmuscle_core.engines.flower.learnt(client, folder)` puts it into its network.
- All nodes have to be there when a new run begins: where one does not come before the patience is over, it ends with an
  error. A client that fails or is late in message 1, in which it registers, is out of that run.
- A node that dies later, starts again and is back before the patience is over gets its message again, and nothing changes but
  the time. One that stays away is absent, by name in the log, and takes part again in the round after it has come back. So is
  one whose reply cannot be read. Where nobody gives a reply that can be used, the run ends with an error; `run.sh` goes on.
- A server that dies: `start.sh`, `run.sh`, and it goes on after its last whole round. Another method, seed, training or other
  clients need another folder.
- Ctrl-C of `run.sh` only ends the log. In `server/`, `FLWR_HOME="$PWD/home" flwr stop RUN_ID deployment` stops a run;
  `flwr list deployment`, likewise, says which there are.
- Every machine's clock has to be right to a minute: signatures and messages have times.

## What is closed, and what is not

Closed: all traffic is encrypted and the server shows a certificate of `ca.crt`; only nodes whose keys were registered get in,
and a node can answer for no other client. Keep `ca.key` offline, `server.key` on the server, each `node.key` on its node.

**Open: whoever reaches https://@ADDRESS@/v1/control can register nodes and run any program on all machines, as `server/run.sh`
does: Flower asks nobody for a password there.** Do not leave the port open to a network that you do not trust. Close it by a
firewall or VPN that lets only the nodes' machines to the port, or, better, by a proxy in front of the SuperLink (then bound to
127.0.0.1) that passes on `/v1/fleet` alone and refuses the rest; `/v1/control` and `/v1/runtime` are used on the server only.
And who runs the server can run programs on the nodes: that is how Flower works. `--trusted-entities` of `flower-supernode`
restricts a node to apps signed by keys it knows.
"""


def init(folder, clients, address="127.0.0.1:9100"):
    """Write all files of a deployment into `folder`, which must be empty or not there: see its README.md.

    clients: their names, words.  address: host:port of the SuperLink as the nodes reach it.
    Raises ValueError, before anything is written, for what does not fit, and without the extra [flower].
    """
    folder = Path(folder)
    host, port = checked(folder, clients, address)
    fill = {"MEND": MEND, "ADDRESS": address, "PORT": str(port), "COUNT": str(len(clients)), "CLIENTS": repr(list(clients)),
            "BIND": host if host in ("127.0.0.1", "localhost") else "0.0.0.0",
            "STARTS": ", ".join(f"`sh nodes/{name}/start.sh`" for name in clients)}
    files = {"README.md": README, "app/pyproject.toml": PROJECT, "app/federated.py": APP, "server/start.sh": SUPERLINK,
             "server/register.sh": REGISTER, "server/run.sh": RUN}
    for path, text in files.items():
        write(folder / path, filled(text, fill))
    ca = certificates(folder, host)
    for place, name in enumerate(clients):
        node = folder / "nodes" / name
        write(node / "start.sh", filled(NODE, fill | {"NAME": name, "NODE_PORT": str(NODE_PORT + place)}))
        write(node / "ca.crt", ca)
        private, public = node_key()
        write(node / "node.key", private, secret=True)
        write(folder / "server" / "keys" / f"{name}.pub", public)


def checked(folder, clients, address):
    """(host, port) of the address; ValueError where an argument does not fit."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder: got {folder}, expected a new or empty one")
    for name in clients:
        if not re.fullmatch(NAME, name):
            raise ValueError(f"clients: got {name!r}, expected letters, digits, '_', '-' and '.'")
    if not clients or len({name.lower() for name in clients}) < len(clients):
        raise ValueError(f"clients: got {list(clients)}, expected different names, at least one")
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", host) or not port.isdecimal() or not 0 < int(port) < 2 ** 16:
        raise ValueError(f"address: got {address!r}, expected HOST:PORT, a name or IPv4 address that the nodes reach")
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ValueError("flower: got no package cryptography, expected that of the extra [flower]; in a copy of the checkout: "
                         f"{MEND}") from None
    return host, int(port)


def filled(text, fill):
    """The text with its @NAME@s replaced."""
    text = text.replace("@ENVIRONMENT@", ENVIRONMENT).replace("@CONFIG@", CONFIG)
    return re.sub(r"@([A-Z_]+)@", lambda found: fill[found[1]], text)


def write(path, content, secret=False):
    """Write text or bytes to a new file; a secret one can be read by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644), "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def certificates(folder, host):
    """Write a certificate authority and the server's certificate for `host`, this machine's own names among them.  Returns
    the authority's certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])

    def certificate(key, subject, signer, issuer, extensions):
        now = datetime.datetime.now(datetime.UTC)
        made = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=DAYS)))
        for extension, critical in extensions:
            made = made.add_extension(extension, critical)
        return made.sign(signer, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)

    def usage(signs):
        return x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)

    ca_key, server_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    own = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    names = {x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")), alternative(host)}
    ca = certificate(ca_key, named("fedmuscle authority"), ca_key, named("fedmuscle authority"), [
        (x509.BasicConstraints(ca=True, path_length=0), True), (usage(True), True), (own, False)])
    server = certificate(server_key, named(host), ca_key, named("fedmuscle authority"), [
        (x509.BasicConstraints(ca=False, path_length=None), True), (usage(False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), False),
        (x509.SubjectAlternativeName(sorted(names, key=str)), False)])
    write(folder / "ca.key", private_bytes(ca_key), secret=True)
    write(folder / "server" / "server.key", private_bytes(server_key), secret=True)
    write(folder / "server" / "server.crt", server)
    write(folder / "server" / "ca.crt", ca)
    return ca


def alternative(host):
    """What a certificate says of a host."""
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def node_key():
    """(private key, public key) of a node, ECDSA on P-384, as OpenSSH writes them."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    return (key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()),
            key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b"\n")


def private_bytes(key):
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
