"""The daemon is started again with live connections through services and masquerading: none is broken. How long packets are
lost is printed (`-s`)."""

import json
import os
import signal
import subprocess
import time

import pytest

from raw import BACKEND_PORT, BACKENDS, NODE, PORT, VIPS, Connections, Stream

COUNT = int(os.environ.get("OCTOPLANE_CONNECTIONS", "100000"))
# Packets a second while the daemon is gone.
RATE = 5000

ECHO = """
import socket, threading
def serve(peer):
    while data := peer.recv(100):
        peer.sendall(data)
server = socket.create_server(("198.51.100.1", 8080))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

# Keeps some connections open, and says something on all of them for each line it is given.
TALK = """
import socket, sys
peers = [socket.create_connection((sys.argv[1], 80), 60) for _ in range(20)]
names = [peer.getsockname() for peer in peers]
print("ready", flush=True)
for line in sys.stdin:
    for peer in peers:
        peer.settimeout(90)
        peer.sendall(line.encode())
        assert peer.recv(100) == line.encode()
    print("heard", flush=True)
"""


def kept_lab(make_lab, **kwargs):
    """A lab whose daemon keeps everything, with rings that a busy machine does not overrun."""
    lab = make_lab(**kwargs)
    lab.connections = f"/dev/shm/{lab.prefix}"
    lab.kept = lab.directory / "state"
    text = lab.config.read_text().replace('directory = ""\nconnections = ""',
                                          f'directory = "{lab.kept}"\nconnections = "{lab.connections}"', 1)
    for port in ("pod1", "pod2", "router"):
        text = text.replace(f'iface={port}"', f'iface={port},framecnt=4096"')
    # A neighbour that is learned or forgotten would count as a change of the tables.
    text = text.replace("reachable_s = 2", "reachable_s = 3600")
    assert lab.connections in text
    lab.config.write_text(text)
    lab.state = {**lab.state, "node": {"masquerade4": NODE}, "services": [
        {"name": f"default/{n}", "protocol": "tcp",
         "frontends": [{"address": vip, "port": PORT, "type": "cluster_ip"}],
         "backends": [{"address": backend, "port": BACKEND_PORT} for backend in BACKENDS]}
        for n, vip in enumerate(VIPS)]}
    lab.start()
    lab.apply()
    return lab


@pytest.fixture
def lab(make_lab):
    lab = kept_lab(make_lab)
    try:
        yield lab
    finally:
        if lab.daemon and lab.daemon.poll() is None:
            lab.daemon.kill()
            lab.daemon.wait(10)
        subprocess.run(["rm", "-rf", lab.connections], check=True)


def restart(lab, how):
    """Ends the daemon and starts it again, at once; returns how long both took."""
    begin = time.monotonic()
    if how == "kill -9":
        lab.daemon.send_signal(signal.SIGKILL)
        lab.daemon.wait(60)
    else:
        assert lab.stop() == 0
    gone = time.monotonic()
    lab.start()
    return (gone - begin) * 1000, (time.monotonic() - gone) * 1000


@pytest.mark.parametrize("how", ["kill -9", "SIGTERM"])
def test_connections_of_real_kernels(lab, how):
    """Twenty TCP connections, to a backend in the router, under the node's address."""
    for service in lab.state["services"]:
        service["backends"] = service["backends"][:1]
    lab.apply()
    lab.inside("router", "ip", "address", "add", f"{BACKENDS[0]}/32", "dev", "lo")
    lab.inside("router", "ip", "route", "del", "10.200.0.0/16")
    server = lab.spawn("router", "/usr/bin/python3", "-c", ECHO, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    client = lab.spawn("pod1", "/usr/bin/python3", "-c", TALK, VIPS[0], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                       text=True)
    assert client.stdout.readline() == "ready\n"

    def talk():
        client.stdin.write("hello\n")
        client.stdin.flush()
        assert client.stdout.readline() == "heard\n"
    talk()
    flows = lambda: sorted((json.dumps(flow["forward"]["source_port"]), json.dumps(flow["reply"]["destination_port"]))
                           for flow in lab.json("flow", "list", "--protocol", "tcp"))
    before = flows()
    assert len(before) == 20
    for _ in range(2):
        restart(lab, how)
        states = {flow["state"] for flow in lab.json("flow", "list", "--protocol", "tcp")}
        assert states == {"established"}
        talk()
        assert flows() == before, "the same ports as before"
    assert "connections go on" in lab.log()
    # Time goes on, too: they are about as old as they are.
    assert all(7900 < flow["expires_seconds"] <= 8000 for flow in lab.json("flow", "list", "--protocol", "tcp"))


@pytest.mark.timeout(1500)
def test_a_hundred_thousand_connections(lab):
    lab.inside("pod1", "ip", "address", "flush", "dev", "eth0")
    connections = Connections(lab, COUNT)
    try:
        begin = time.monotonic()
        assert connections.begin() == 0
        assert connections.answer() == (0, 0)
        print(f"\n{COUNT} connections made in {time.monotonic() - begin:.1f} s")
        used = lambda: next(it["used"] for it in lab.json("status")["tables"] if it["name"] == "connections")
        assert used() == COUNT
        for how in ("kill -9", "SIGTERM"):
            stream = Stream(connections, RATE)
            time.sleep(0.5)
            gone, back = restart(lab, how)
            time.sleep(0.5)
            lost, sent, window = stream.stop()
            print(f"{how}: gone in {gone:.0f} ms, answered {back:.0f} ms after; lost {lost} of {sent} packets at {RATE} a "
                  f"second: {window:.0f} ms")
            assert used() == COUNT
            missing, broken = connections.go_on()
            assert (missing, broken) == (0, 0), f"{how}: {missing} dead, {broken} translated otherwise"
            # Or for as long as it took the machine to start it.
            assert window < max(5000, gone + back + 1000)
        assert connections.answer() == (0, 0)
        assert used() == COUNT, "no connection was made anew"
    finally:
        connections.close()


AGENT = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from api import Api
it = Api(sys.argv[3])
def steps():
    yield it.ResyncRequest(begin=it.ResyncBegin())
    yield it.ResyncRequest(objects=it.ReplaceRequest(endpoints=[it.Endpoint(
        id=1, name="test/pod1", port="pod1", mac="02:00:00:00:00:01", identity=1001,
        addresses=["10.200.0.1", "fd00:200::1"])]))
    print("half", flush=True)
    sys.stdin.readline()
it.call_Resync(steps())
"""


def test_an_agent_that_is_started_again_loses_nothing(lab):
    pytest.importorskip("grpc", reason="python3-grpcio is missing")
    pytest.importorskip("google.protobuf", reason="python3-protobuf is missing")
    lab.inside("pod1", "ip", "address", "flush", "dev", "eth0")
    connections = Connections(lab, 1000)
    here = os.path.dirname(__file__)
    try:
        assert connections.begin() == 0
        before = lab.json("endpoint", "list"), lab.json("service", "list"), lab.json("route", "list")
        neighbours = lab.json("neigh", "list")
        revision = lab.json("status")["revision"]
        stream = Stream(connections, 2000)
        for _ in range(3):
            # Half of it is sent; then it is killed, and its successor sends everything.
            agent = subprocess.Popen(["/usr/bin/python3", "-c", AGENT, here, os.path.join(here), str(lab.socket)],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert agent.stdout.readline() == "half\n"
            agent.send_signal(signal.SIGKILL)
            agent.wait(10)
            out = lab.octoctl("resync", "-f", "-", input=json.dumps(lab.state)).stdout
            assert "no changes" in out, out
        time.sleep(0.2)
        lost, sent, _ = stream.stop()
        print(f"\nan agent that was killed three times: {lost} of {sent} packets lost")
        assert sent > 1000 and lost == 0
        assert (lab.json("endpoint", "list"), lab.json("service", "list"), lab.json("route", "list")) == before
        if lab.json("neigh", "list") == neighbours:
            # What is learned counts as a change, too.
            assert lab.json("status")["revision"] == revision, "nothing was touched"
        assert connections.go_on() == (0, 0)
    finally:
        connections.close()


def test_what_cannot_be_used_is_said(lab):
    assert lab.ping("pod1", "10.200.0.2") == 3
    assert lab.stop() == 0
    path = os.path.join(lab.connections, "connections")
    with open(path, "r+b") as file:
        file.seek(8)
        file.write(b"\xff")
    lab.start()
    assert "what is there cannot be used, connections begin anew: its header is damaged" in lab.log()
    assert lab.ping("pod1", "10.200.0.2") == 3
    assert lab.stop() == 0
    lab.config.write_text(lab.config.read_text() + "\n[capacity]\nconnections = 5000\n")
    lab.start()
    assert "tables of other sizes (capacity.connections)" in lab.log()
    assert lab.ping("pod1", "10.200.0.2") == 3
