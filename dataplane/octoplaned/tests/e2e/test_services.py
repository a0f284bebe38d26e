"""Services, policy, masquerading and tunnels between real kernels."""

import json
import time

SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{sys.argv[2]} {self.client_address[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
class Server(http.server.ThreadingHTTPServer):
    import socket
    address_family = socket.AF_INET6
Server(("::", int(sys.argv[1])), Handler).serve_forever()
"""


def serve(lab, where, port, name):
    lab.spawn(where, "/usr/bin/python3", "-c", SERVE, port, name)
    deadline = time.monotonic() + 60
    while lab.inside(where, "curl", "-s", f"http://localhost:{port}/", check=False).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def get(lab, pod, url, seconds=20):
    result = lab.inside(pod, "curl", "-sg", "-m", seconds, url, check=False)
    return result.stdout if result.returncode == 0 else None


def until_seen(lab, pod, url, expected, least=1, **kwargs):
    """Asks until everything expected was answered, at least and at most so many times, and returns what was."""
    answers = []
    while len(answers) < least or not expected <= set(answers) and len(answers) < 64:
        answers.append(get(lab, pod, url, **kwargs))
    return set(answers)


def allow(direction, identity, port):
    # A plain allow of the highest priority.
    return {"direction": direction, "identity": identity, "protocol": 6, "port": port, "port_prefix_len": 16,
            "precedence": 0xFFFFFF01}


def test_a_service_with_two_backends_and_a_policy(lab):
    serve(lab, "pod2", 8001, "one")
    serve(lab, "pod2", 8002, "two")
    state = json.loads(json.dumps(lab.state))
    for family, vip, pod in (("4", "10.96.0.10", "10.200.0.2"), ("6", "fd96::10", "fd00:200::2")):
        state.setdefault("services", []).append({
            "name": f"default/deathstar{family}:http", "protocol": "tcp",
            "frontends": [{"address": vip, "port": 80, "type": "cluster_ip"}],
            "backends": [{"address": pod, "port": port, "local": True} for port in (8001, 8002)]})
    lab.apply(state)
    for url, client in (("http://10.96.0.10/", "::ffff:10.200.0.1"), ("http://[fd96::10]/", "fd00:200::1")):
        both = {f"one {client}", f"two {client}"}
        assert until_seen(lab, "pod1", url, both) == both
    # A pod reaches itself through the service, and does not see itself as the client.
    both = {"one ::ffff:169.254.42.1", "two ::ffff:169.254.42.1"}
    assert until_seen(lab, "pod2", "http://10.96.0.10/", both) == both

    # Only pod 1 (identity 1001) may, and only the first backend.
    state["policies"] = [{"endpoint": 2, "enforce_ingress": True, "entries": [allow("ingress", 1001, 8001)]}]
    lab.apply(state)
    one_only = {"one ::ffff:10.200.0.1", None}
    assert until_seen(lab, "pod1", "http://10.96.0.10/", one_only, least=12, seconds=1) == one_only
    assert get(lab, "router", "http://10.200.0.2:8001/", 0.5) is None
    assert lab.drops()[133] > 0
    assert lab.no_answer("pod1", "10.200.0.2")
    state["policies"][0]["entries"] = [{**allow("ingress", 0, 8001), "protocol": 0, "port": 0, "port_prefix_len": 0}]
    lab.apply(state)
    assert lab.ping("pod1", "10.200.0.2") == 3
    # Nothing is left to choose from.
    for service in state["services"]:
        service["backends"] = []
    before = time.monotonic()
    assert get(lab, "pod1", "http://10.96.0.10/") is not None
    usual = time.monotonic() - before
    lab.apply(state)
    before = time.monotonic()
    assert get(lab, "pod1", "http://10.96.0.10/", 60) is None
    # Else its SYN is repeated until the minute is over.
    assert time.monotonic() - before < max(3, 10 * usual), "told at once"
    assert lab.drops()[158] > 0


def test_masquerading(lab):
    serve(lab, "router", 8000, "router")
    # Whoever gets around the data plane's translation gets no answer.
    lab.inside("router", "ip", "route", "del", "10.200.0.0/16")
    lab.inside("router", "ip", "-6", "route", "del", "fd00:200::/64")
    assert get(lab, "pod1", "http://192.0.2.254:8000/", 0.5) is None
    state = {**lab.state, "node": {"masquerade4": "192.0.2.1", "masquerade6": "2001:db8::1"}}
    lab.apply(state)
    for pod in ("pod1", "pod2"):
        assert get(lab, pod, "http://192.0.2.254:8000/") == "router ::ffff:192.0.2.1"
        assert get(lab, pod, "http://[2001:db8::fe]:8000/") == "router 2001:db8::1"
        assert lab.ping(pod, "192.0.2.254") == 3
        assert lab.ping(pod, "2001:db8::fe") == 3
    # An ICMP error finds its way back through the translation: nobody listens there.
    result = lab.inside("pod1", "/usr/bin/python3", "-c", """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("192.0.2.254", 9))
s.send(b"x")
s.settimeout(30)
try:
    s.recv(1)
except ConnectionRefusedError:
    print("refused")
""", check=False)
    assert result.stdout == "refused\n", result.stdout + result.stderr


def test_vxlan_with_a_linux_kernel(lab):
    """The other node is a Linux VXLAN device. It has one VNI, pod 1's identity, for both directions."""
    ours = next(port["mac"] for port in lab.json("port", "list") if port["name"] == "pod1")
    # The device takes frames to its own address only: those of a pod are addressed to our end of its cable.
    lab.inside("router", "ip", "link", "add", "vx0", "address", ours, "type", "vxlan", "id", 1001,
               "local", "192.0.2.254", "remote", "192.0.2.1", "dstport", 8472)
    lab.inside("router", "ip", "link", "set", "vx0", "up")
    lab.inside("router", "ip", "address", "add", "10.201.0.7/32", "dev", "vx0")
    lab.inside("router", "ip", "route", "replace", "10.200.0.1/32", "dev", "vx0", "src", "10.201.0.7")
    lab.inside("router", "ip", "neigh", "replace", "10.200.0.1", "lladdr", "02:00:00:00:00:77", "dev", "vx0")
    serve(lab, "router", 8000, "router")
    state = {**lab.state,
             "node": {"routing": "tunnel", "tunnel": {"protocol": "vxlan", "local4": "192.0.2.1"}},
             "ipcache": [{"prefix": "10.201.0.0/16", "identity": 1001, "tunnel_endpoint": "192.0.2.254"}],
             "policies": [{"endpoint": 1, "enforce_egress": True, "entries": [allow("egress", 1001, 8000)]}]}
    lab.apply(state)
    assert get(lab, "pod1", "http://10.201.0.7:8000/") == "router ::ffff:10.200.0.1"
    received = json.loads(lab.inside("router", "ip", "-s", "-j", "link", "show", "vx0").stdout)[0]["stats64"]["rx"]
    assert received["packets"] > 3
    assert lab.no_answer("pod1", "10.201.0.7"), "policy"
    del state["policies"]
    lab.apply(state)
    assert lab.ping("pod1", "10.201.0.7") == 3
    # And begun from the other side.
    assert lab.ping("router", "10.200.0.1", 3, "-I", "10.201.0.7") == 3
    # Too large for the tunnel: the pod is told by how much.
    result = lab.inside("pod1", "ping", "-c", 1, "-W", 2, "-M", "do", "-s", 1472, "10.201.0.7", check=False)
    assert "mtu" in result.stdout.lower() and "1450" in result.stdout, result.stdout
