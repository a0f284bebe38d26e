"""kill -9 at random moments while several clients program: what is there again is the state before or after a transaction,
and never one before an answer.

Every client stamps all objects of a transaction with its number, so that half of one would show. OCTOPLANE_CRASHES says how
often (default 200)."""

import os
import random
import threading
import time

import pytest

grpc = pytest.importorskip("grpc", reason="python3-grpcio is missing")
pytest.importorskip("google.protobuf", reason="python3-protobuf is missing")
from api import Api  # noqa: E402
from bare import daemon  # noqa: E402, F401

CRASHES = int(os.environ.get("OCTOPLANE_CRASHES", "200"))
CLIENTS = 3


def transaction(it, client, number):
    """What transaction `number` of a client changes; the objects that come and go do so with odd and even numbers."""
    base = 10 + client
    stamp = number % 1_000_000 + 1
    changes = [
        {"put_endpoint": it.Endpoint(id=base, name=str(number), port="pod", mac="02:00:00:00:00:01", identity=stamp,
                                     addresses=[f"10.{base}.0.1"])},
        {"put_route": it.Route(prefix=f"10.{base}.1.0/24", blackhole=True, mtu=1280 + number % 1000)},
        {"put_ipcache": it.Ipcache(prefix=f"10.{base}.2.0/24", identity=stamp)},
        {"put_service": it.Service(name=f"service-{base}", protocol=it.SERVICE_PROTOCOL_TCP,
                                   frontends=[it.Frontend(address=f"172.20.0.{base}", port=80,
                                                          type=it.FRONTEND_TYPE_CLUSTER_IP)],
                                   backends=[it.Backend(address=f"10.{base}.3.{n}", port=number % 60_000 + 1)
                                             for n in range(1, 1 + number % 20)])},
        {"put_policy": it.Policy(endpoint=base, enforce_ingress=True, entries=[
            it.PolicyEntry(direction=it.POLICY_DIRECTION_INGRESS, identity=n, protocol=6, port=80, port_prefix_len=16,
                           cookie=number) for n in range(1, 2 + number % 7)])},
    ]
    transient = [it.Endpoint(id=100 * base + n, port="pod", mac="02:00:00:00:00:01", identity=stamp,
                             addresses=[f"10.{base}.4.{n}"]) for n in range(1, 30)]
    if number % 2:
        changes += [{"put_endpoint": endpoint} for endpoint in transient]
    elif number:
        changes += [{"remove_endpoint": endpoint.id} for endpoint in transient]
    return changes


def number_of(found, client):
    """Which transaction of a client the state shows; all of its objects have to agree."""
    base = 10 + client
    mine = [it for it in found.get("endpoint", []) if it.id == base]
    if not mine:
        for kind in ("endpoint", "ipcache", "service", "policy", "route"):
            for it in found.get(kind, []):
                assert f"10.{base}." not in str(it) and f"service-{base}" not in str(it), it
        return None
    number = int(mine[0].name)
    stamp = number % 1_000_000 + 1
    assert mine[0].identity == stamp
    routes = [it for it in found["route"] if it.prefix == f"10.{base}.1.0/24"]
    assert [it.mtu for it in routes] == [1280 + number % 1000]
    assert [it.identity for it in found["ipcache"] if it.prefix == f"10.{base}.2.0/24"] == [stamp]
    services = [it for it in found["service"] if it.name == f"service-{base}"]
    assert [[b.port for b in it.backends] for it in services] == [[number % 60_000 + 1] * (number % 20)]
    policies = [it for it in found["policy"] if it.endpoint == base]
    assert [[(e.identity, e.cookie) for e in it.entries] for it in policies] == [
        [(n, number) for n in range(1, 2 + number % 7)]]
    transient = [it.identity for it in found["endpoint"] if it.id // 100 == base]
    assert transient == [stamp] * (29 if number % 2 else 0)
    return number


class Programmer(threading.Thread):
    """Sends one transaction after the other, until the daemon dies."""

    def __init__(self, client, number, first):
        super().__init__()
        self.client, self.number = client, number
        # Which was answered last, which was sent last.
        self.answered, self.sent = first, first
        self.revision = 0

    def run(self):
        try:
            while True:
                following = -1 if self.sent is None else self.sent
                self.sent = following + 1
                self.revision = self.client.apply(*transaction(self.client, self.number, self.sent)).revision
                self.answered = self.sent
        except grpc.RpcError as error:
            self.error = error


@pytest.mark.timeout(1500)
def test_crashes(daemon):  # noqa: F811
    seed = random.randrange(1 << 32)
    choose = random.Random(seed)
    print(f"seed {seed}")
    answered, sent, revision = [None] * CLIENTS, [None] * CLIENTS, 0
    transactions = in_between = 0
    for crash in range(CRASHES + 1):
        daemon.spawn()
        if choose.random() < 0.1:
            # It may die before it answers, too, with the file open or not.
            time.sleep(choose.uniform(0, 0.4))
            daemon.kill()
            daemon.spawn()
        client = daemon.client()
        now, found = client.state()
        assert now >= revision, f"crash {crash}: revision {now} after {revision}"
        for number in range(CLIENTS):
            there = number_of(found, number)
            least, most = answered[number], sent[number]
            assert there in (least, most), f"crash {crash}, client {number}: {there}, not {least} or {most}"
            in_between += there != least
            answered[number] = sent[number] = there
        if crash == CRASHES:
            break
        threads = [Programmer(Api(daemon.socket), number, answered[number]) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        if choose.random() < 0.9:
            # Where everything is slow, too, it dies among answers; else before them as well.
            deadline = time.monotonic() + 20
            while not any(thread.revision for thread in threads) and time.monotonic() < deadline:
                time.sleep(0.001)
        time.sleep(choose.uniform(0, 0.15))
        daemon.kill()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
            thread.client.close()
        client.close()
        for number, thread in enumerate(threads):
            transactions += (-1 if thread.answered is None else thread.answered) - (
                -1 if answered[number] is None else answered[number])
            answered[number], sent[number] = thread.answered, thread.sent
            revision = max(revision, thread.revision)
    print(f"{CRASHES} crashes, {transactions} transactions answered, {in_between} there without an answer")
    assert transactions > CRASHES
    assert "ERROR" not in daemon.log() and "panicked" not in daemon.log(), daemon.log()
