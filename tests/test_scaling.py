"""The plan of a round against the ledger of a real one, and what breaks first."""

import pytest
from small_clients import CLIENTS, federation, method

from fedmuscle_core.analysis.scaling import USUAL, Limits, breaks, plan, server_work
from fedmuscle_core.benchmarks import scaling
from fedmuscle_core.engines.in_process import InProcess
from fedmuscle_core.exchange import size_of

SMALL = {"num_peers": 2, "batch_size": 8, "dim": 6, "public_size": 20}


@pytest.mark.parametrize(("refresh", "protocol"), [("batch", "matrices"), ("round", "matrices"), ("batch", "tuples")])
def test_bytes_are_those_of_a_real_round(refresh, protocol):
    found = federation(method("fedmuscle", refresh=refresh, protocol=protocol))
    found.fit(1, progress=False)
    wanted = plan(4, **SMALL, steps=2, refresh=refresh, protocol=protocol)
    table = found.ledger.table().set_index(["client", "direction"])["bytes"]
    for client in CLIENTS:
        assert (table[client, "up"], table[client, "down"]) == (wanted.client_up, wanted.client_down)
    assert (wanted.server_in, wanted.server_out) == (4 * wanted.client_up, 4 * wanted.client_down)
    if refresh == "round":
        assert size_of(found.server.memory.uploads) == wanted.server_memory


@pytest.mark.parametrize("refresh", ["batch", "round"])
def test_waits_are_those_of_real_rounds(refresh, monkeypatch):
    asked, ask = [], InProcess.ask
    monkeypatch.setattr(InProcess, "ask", lambda self, stages: (
        asked.append({stage.function for stage in stages}), ask(self, stages))[1])
    counts = []
    for rounds in (1, 3):
        asked.clear()
        federation(method("fedmuscle", refresh=refresh)).fit(rounds, progress=False)
        counts.append(sum(bool(functions & {"embed", "contrast", "local"}) for functions in asked))
    assert counts[1] - counts[0] == 2 * plan(4, **SMALL, steps=2, refresh=refresh).waits


def test_a_share_of_the_clients_costs_that_share_but_memory_of_all_their_uploads():
    whole, half = plan(100, refresh="round"), plan(100, refresh="round", share=0.5)
    assert half.server_in == whole.server_in / 2 and half.server_memory == whole.server_memory
    assert plan(100, refresh="batch", share=0.5).server_memory == 4 * 50 * 32 * 256


def test_peers_are_drawn_among_those_whose_uploads_the_server_has():
    limits = Limits(server_work=0.0, server_draw=1.0)
    assert plan(100, refresh="batch", share=0.1, steps=2, limits=limits).server_seconds == 2 * 10 ** 2
    assert plan(100, refresh="round", share=0.1, steps=2, limits=limits).server_seconds == 2 * 100 ** 2


def test_what_breaks_is_told_worst_first():
    limits = Limits(server_link=1e6, client_link=1e3, server_memory=1e6, seconds=10.0, server_work=1e-9,
                    server_draw=0.0)
    found = plan(1000, num_peers=1, batch_size=10, dim=10, steps=1, public_size=100, refresh="round", limits=limits)
    assert breaks(found, limits) == [("the server's memory", 4.0)]
    assert found.link_seconds == pytest.approx(4.4) and found.client_seconds == pytest.approx(4.4)
    tight = limits._replace(seconds=2.0)
    assert [what for what, _ in breaks(found, tight)] == ["the server's memory", "the server's link", "a client's link"]


def test_the_benchmark_measures_what_the_plan_says(capsys):
    assert [case["clients"] for case in scaling.cases(30)] == [30, 10, 30, 30, 30, 30, 30, 30, 30, 30]
    row = scaling.one(6, 2, 32, 8)
    wanted = plan(6, num_peers=2, batch_size=32, dim=8, steps=8, public_size=scaling.PUBLIC)
    assert (row["up_bytes"], row["down_bytes"], row["server_bytes"]) == (
        wanted.client_up, wanted.client_down, wanted.server_memory)
    assert 0 < row["client_seconds"] < row["seconds"] and row["steps"] == 8
    made = [{**USUAL, "clients": count, "steps": 8, "client_seconds": 1.0, "seconds": 1.0 + 8 * count * (2e-4 + 3e-7 * count)}
            for count in (10, 100, 1000)]
    assert server_work([*made, row]) == pytest.approx((2e-4, 3e-7))


@pytest.mark.parametrize(("values", "message"), [
    ({"num_clients": 0}, "num_clients: got 0"), ({"num_clients": 9, "share": 1.5}, "share: got 1.5, expected at most 1"),
    ({"num_clients": 9, "refresh": "never"}, "refresh: got 'never'"), ({"num_clients": 9, "steps": 0}, "steps: got 0"),
])
def test_bad_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        plan(**values)
