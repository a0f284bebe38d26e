"""What would happen to a packet, and what happens: explanations and events against real traffic."""

import json
import select
import subprocess
import threading
import time

import pytest
from conftest import wait
from test_services import allow, get, serve

pytest.importorskip("grpc", reason="python3-grpcio is missing")
pytest.importorskip("google.protobuf", reason="python3-protobuf is missing")

POD1, POD2, VIP, WORLD = "10.200.0.1", "10.200.0.2", "10.96.0.10", "192.0.2.254"

FLOOD = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])):
    sender.sendto(b"x", (sys.argv[1], 9))
"""


def programmed(lab):
    """A service on pod2, which lets pod1 in to port 8001 only."""
    state = json.loads(json.dumps(lab.state))
    state["services"] = [{
        "name": "default/web:http", "protocol": "tcp", "frontends": [{"address": VIP, "port": 80, "type": "cluster_ip"}],
        "backends": [{"address": POD2, "port": port, "local": True} for port in (8001, 8002)]}]
    state["policies"] = [{"endpoint": 2, "enforce_ingress": True,
                          "entries": [{**allow("ingress", 1001, 8001), "cookie": 71}]}]
    lab.apply(state)
    return state


def explain(lab, *arguments):
    return lab.json("explain", *arguments)


def entry(explained, stage):
    return [step for step in explained["steps"] if step["stage"] == stage]


def test_explained_and_done(lab):
    serve(lab, "pod2", 8001, "one")
    programmed(lab)
    allowed = explain(lab, "--from", "test/pod1", "--to", f"{POD2}:8001")
    assert allowed["answer"]["outcome"] == "delivered" and allowed["answer"]["endpoint"] == 2
    assert allowed["answer"]["mac"] == "02:00:00:00:00:02" and "connection" not in allowed
    policy = entry(allowed, "policy")[-1]["policy"]
    assert (policy["cookie"], policy["result"], policy["entry"]["port"]) == (71, "allow", 8001)
    assert get(lab, "pod1", f"http://{POD2}:8001/") == f"one ::ffff:{POD1}"
    denied = explain(lab, "--from", POD1, "--to", f"{POD2}:8002")
    assert (denied["answer"]["outcome"], denied["answer"]["code"]) == ("dropped", 133)
    before = lab.drops().get(133, 0)
    assert get(lab, "pod1", f"http://{POD2}:8002/", 1) is None
    assert lab.drops()[133] > before
    # Each backend of the service has its own answer.
    service = entry(explain(lab, "--from", "1", "--to", f"{VIP}:80"), "service")[0]["service"]
    found = {it["backend"]["port"]: it["answer"]["outcome"] for it in service["candidates"]}
    assert found == {8001: "delivered", 8002: "dropped"}
    table = lab.octoctl("explain", "--from", "1", "--to", f"{VIP}:80").stdout
    assert "default/web:http" in table and "=> " in table
    mistaken = lab.octoctl("explain", "--from", "nobody", "--to", f"{POD2}:80", check=False)
    assert mistaken.returncode == 1 and "from: there is no endpoint" in mistaken.stderr


def test_a_live_connection_is_known(lab):
    assert lab.ping("pod1", WORLD) == 3
    flow = lab.json("flow", "list", "--protocol", "icmp", "--source", POD1)[0]
    identifier = flow["forward"]["destination_port"]
    used = lambda: lab.json("flow", "list", "--protocol", "icmp")
    ping = explain(lab, "--from", "1", "--to", WORLD, "--protocol", "icmp", "--source-port", identifier)
    assert ping["connection"]["state"] == "open" and ping["answer"]["outcome"] == "sent"
    assert ping["answer"]["mac"] == "02:00:00:00:00:fe" and ping["answer"]["port"] == "router"
    assert entry(ping, "neighbour")[0]["neighbour"]["address"] == WORLD
    # And its answer.
    back = explain(lab, "--from", WORLD, "--to", POD1, "--protocol", "icmp")
    assert back["answer"]["outcome"] == "delivered" and back["in_port"] == "router"
    assert len(used()) == 1, "explaining makes no connection"


def test_events_as_they_happen(lab):
    programmed(lab)
    monitor = lab.octoctl_spawn("-o", "json", "monitor", "--endpoint", "test/pod2", stdout=subprocess.PIPE, text=True)
    events = []
    reader = threading.Thread(target=lambda: events.extend(map(json.loads, monitor.stdout)), daemon=True)
    reader.start()
    found = lambda kind: [it[kind] for it in list(events) if kind in it]
    deadline = time.monotonic() + 60
    while not (found("verdict") and found("drop")):
        assert time.monotonic() < deadline, events
        get(lab, "pod1", f"http://{POD2}:8002/", 1)
    verdict, drop = found("verdict")[-1], found("drop")[-1]
    assert (verdict["endpoint"], verdict["direction"], verdict["result"]) == (2, "ingress", "deny")
    assert (verdict["local_identity"], verdict["remote_identity"], verdict["code"]) == (1002, 1001, 133)
    assert verdict["packet"]["destination_port"] == 8002 and verdict["packet"]["protocol"] == 6
    assert (drop["code"], drop["in_port"], drop["source_endpoint"], drop["destination_endpoint"]) == (133, "pod1", 1, 2)
    age = time.time() - events[-1]["time"] / 1e9
    assert -1 < age < 30
    serve(lab, "pod2", 8001, "one")
    get(lab, "pod1", f"http://{POD2}:8001/")
    deadline = time.monotonic() + 60
    while not [it for it in found("verdict") if it["cookie"] == 71]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    allowed = [it for it in found("verdict") if it["cookie"] == 71]
    assert len(allowed) == 1 and allowed[0]["result"] == "allow" and allowed[0]["match"] == "l3_l4"
    monitor.terminate()
    reader.join(10)
    # The other endpoint's policies were asked, too, and nobody wanted to know.
    assert {it["endpoint"] for it in found("verdict")} == {2}


def test_a_client_that_does_not_read(lab):
    """Holds nobody up, and what it missed is counted."""
    from api import Api
    programmed(lab)
    api = Api(lab.socket)
    stream = api.call_StreamEvents(api.StreamEventsRequest(drops=True), timeout=250)
    assert not next(stream).events, "it is heard from now on"
    before = lab.drops()
    # More than is kept for a client, and than is on its way to it.
    deadline = time.monotonic() + 120
    while lab.drops().get(133, 0) - before.get(133, 0) < 14_000:
        assert time.monotonic() < deadline
        lab.inside("pod1", "/usr/bin/python3", "-c", FLOOD, POD2, 60_000)
    assert lab.ping("pod1", WORLD) == 3, "packets go on"
    steady = []

    def counted():
        """The flood has come to its end."""
        steady.append(lab.drops())
        time.sleep(0.2)
        return len(steady) > 2 and steady[-3] == steady[-2] == steady[-1]
    wait(counted)
    after = steady[-1]
    dropped = sum(after.values()) - sum(before.values())
    seen, lost = 0, 0
    while seen + lost < dropped:
        message = next(stream)
        seen, lost = seen + len(message.events), lost + message.lost
    assert seen > 0 and lost > 0, (seen, lost)
    print(f"{dropped} dropped, {seen} told, {lost} lost")
    stream.cancel()
    # Nobody listens any more: workers stop, and a new client gets what is new.
    again = api.call_StreamEvents(api.StreamEventsRequest(verdicts=True, endpoint=1), timeout=250)
    assert not next(again).events
    start = time.time_ns()
    assert lab.ping("pod1", POD2, 1) == 0
    first = next(again).events[0]
    assert first.time > start - 1_000_000_000 and first.verdict.endpoint == 1
    assert first.verdict.result == api.POLICY_RESULT_ALLOW and not first.verdict.enforced
    again.cancel()
    api.close()
    assert lab.stop() == 0


def test_the_daemon_stops_with_a_listener(lab):
    monitor = lab.octoctl_spawn("monitor", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def heard():
        lab.ping("pod1", POD2, 1)
        return select.select([monitor.stdout], [], [], 0)[0]
    wait(heard)
    start = time.monotonic()
    assert lab.stop() == 0
    assert time.monotonic() - start < 10
    monitor.wait(60)
