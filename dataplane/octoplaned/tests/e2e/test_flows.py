"""Connections, as octoctl shows and ends them."""

import subprocess
import time

POD1, POD2 = "10.200.0.1", "10.200.0.2"

ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], 8080))
print("ready", flush=True)
peer, _ = server.accept()
while data := peer.recv(100):
    peer.sendall(data)
peer.close()
"""

# Sends a line and waits for its echo for each line on its standard input; closes at the end of it.
CLIENT = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 8080), 60, source_address=("", 4000))
for line in sys.stdin:
    peer.sendall(line.encode())
    peer.recv(100)
    print("echo", flush=True)
peer.close()
"""


def wait_for(what, seconds):
    """Waits until `what` is true, and says how long it took."""
    start = time.monotonic()
    while not what():
        assert time.monotonic() < start + seconds
        time.sleep(0.1)
    return time.monotonic() - start


def talk(lab):
    """A TCP connection from pod1 to pod2 over which one line went."""
    server = lab.spawn("pod2", "/usr/bin/python3", "-c", ECHO, POD2, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    client = lab.spawn("pod1", "/usr/bin/python3", "-c", CLIENT, POD2, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                       text=True)
    say(client)
    return client


def say(client):
    client.stdin.write("hello\n")
    client.stdin.flush()
    assert client.stdout.readline() == "echo\n"


def tcp(lab):
    return lab.json("flow", "list", "--protocol", "tcp")


def test_flow_of_a_ping(lab):
    begin = time.monotonic()
    assert lab.ping("pod1", POD2) == 3
    flows = lab.json("flow", "list", "--protocol", "icmp", "--source", POD1, "--destination", POD2)
    took = time.monotonic() - begin
    assert len(flows) == 1
    flow = flows[0]
    forward, reply = flow["forward"], flow["reply"]
    assert flow["state"] == "open" and flow["idle_seconds"] <= 2 + took and 57 - took <= flow["expires_seconds"] <= 60
    assert (forward["source"], forward["destination"]) == (POD1, POD2)
    assert (reply["source"], reply["destination"]) == (POD2, POD1)
    assert forward["destination_port"] == reply["source_port"] > 0, "the identifier"
    assert (forward["in_port"], reply["in_port"]) == ("pod1", "pod2")
    assert (forward["identity"], reply["identity"]) == (1001, 1002)
    assert forward["current"] and reply["current"] and not forward["translated"] and not reply["translated"]
    got = lab.json("flow", "get", POD1, f"{POD2}:{forward['destination_port']}", "--protocol", "icmp")
    assert got["forward"] == forward
    assert lab.ping("pod1", "fd00:200::2") == 3
    assert len(lab.json("flow", "list", "--protocol", "icmpv6", "--address", "fd00:200::/64")) >= 1


def test_flow_of_a_tcp_connection_from_beginning_to_end(lab):
    client = talk(lab)
    flows = tcp(lab)
    assert len(flows) == 1
    flow = flows[0]
    assert flow["state"] == "established" and flow["expires_seconds"] > 7900
    assert (flow["forward"]["source_port"], flow["forward"]["destination_port"]) == (4000, 8080)
    assert lab.json("flow", "get", f"{POD2}:8080", f"{POD1}:4000")["forward"] == flow["forward"]
    table = lab.octoctl("flow", "list", "--port", "4000").stdout
    assert f"{POD1}:4000" in table and "established" in table
    # Other tables: decided again only if they say something of its addresses, and with the next packet.
    lab.octoctl("route", "add", "198.51.100.0/24", "--blackhole")
    assert tcp(lab)[0]["forward"]["current"]
    lab.octoctl("route", "add", POD2.rsplit(".", 1)[0] + ".0/24", "--blackhole")
    assert not tcp(lab)[0]["forward"]["current"]
    say(client)
    assert tcp(lab)[0]["forward"]["current"]
    begin = time.monotonic()
    client.stdin.close()
    assert client.wait(60) == 0
    closed = wait_for(lambda: tcp(lab)[0]["state"] == "closing", 60)
    wait_for(lambda: not tcp(lab), 60)
    gone = time.monotonic() - begin
    assert gone > 7, "it is kept for a while"
    print(f"closing after {closed:.1f} s, gone after {gone:.1f} s")
    wait_for(lambda: "not found" in lab.octoctl("flow", "get", f"{POD1}:4000", f"{POD2}:8080", check=False).stderr, 60)


def test_timeouts_are_those_of_the_configuration(make_lab):
    lab = make_lab()
    lab.config.write_text(lab.config.read_text() + "[timeouts]\nother_s = 12\ntcp_syn_s = 700\n")
    lab.start()
    lab.apply()
    assert lab.ping("pod1", POD2) == 3
    icmp = lambda: lab.json("flow", "list", "--protocol", "icmp", "--source", POD1)
    assert icmp()[0]["expires_seconds"] <= 12
    assert wait_for(lambda: not icmp(), 60) > 1
    lab.inside("pod2", "ip", "link", "set", "eth0", "down")
    lab.spawn("pod1", "/usr/bin/python3", "-c", CLIENT, POD2, stdin=subprocess.PIPE)
    wait_for(lambda: tcp(lab), 60)
    assert 600 < tcp(lab)[0]["expires_seconds"] <= 700


def test_flow_that_nobody_answers(lab):
    lab.inside("pod2", "ip", "link", "set", "eth0", "down")
    lab.spawn("pod1", "/usr/bin/python3", "-c", CLIENT, POD2, stdin=subprocess.PIPE)
    wait_for(lambda: tcp(lab), 60)
    flow = tcp(lab)[0]
    assert flow["state"] == "syn" and flow["expires_seconds"] <= 60
    assert not flow["reply"]["decided"]


def test_flow_flush(lab):
    client = talk(lab)
    assert lab.ping("pod1", POD2) == 3
    used = lambda: next(it["used"] for it in lab.json("status")["tables"] if it["name"] == "connections")
    assert lab.octoctl("flow", "flush", check=False).returncode == 2, "everything only on request"
    before = used()
    assert lab.json("flow", "flush", "--protocol", "tcp", "--source", POD1) == {"flushed": 1}
    assert not tcp(lab)
    took = wait_for(lambda: used() < before, 60)
    print(f"swept after {took:.1f} s")
    assert lab.json("flow", "list", "--protocol", "icmp", "--address", POD1)
    # What still talks goes on, as a connection that is new to the data plane.
    say(client)
    assert len(tcp(lab)) == 1
    assert lab.json("flow", "flush", "--all")["flushed"] >= 2
    wait_for(lambda: used() == 0, 60)
    say(client)
