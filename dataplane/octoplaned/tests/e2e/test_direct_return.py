"""Direct server return between real kernels: a client and two nodes on one link, of which one balances and the other has the
backend, whose answers go to the client without the balancer."""

import ipaddress
import json
import subprocess

import pytest

from conftest import run
from test_ipsec import Node
from test_services import get, serve

VIP4, VIP6 = "203.0.113.10", "2001:db8:a::10"
CLIENT4, CLIENT6 = "198.51.100.7", "2001:db8:7::7"

# Every IP packet that arrives at the bridge from a node: by which port, addresses, protocol and what else is to be seen.
SNIFF = r"""
import json, select, socket, sys
found = []
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.settimeout(0.2)
# SO_RCVBUFFORCE (Linux): more than the usual limit, so that nothing is missed.
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        frame, (port, _, kind, *_) = s.recvfrom(65535)
    except TimeoutError:
        continue
    if port in ("eth0", "two") and kind != socket.PACKET_OUTGOING and frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
        found.append((port, frame[14:].hex()))
print(json.dumps(found))
"""

# Answers each datagram with what it held and who sent it.
ECHO = r"""
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", int(sys.argv[1])))
print("ready", flush=True)
while True:
    data, who = s.recvfrom(65535)
    s.sendto(data + b" " + who[0].encode(), who)
"""

# Reads what is sent, says how much it was, and sends twice as much back.
SINK = r"""
import socket, sys
s = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    peer, _ = s.accept()
    data = b""
    while more := peer.recv(65536):
        data += more
    peer.sendall(data + data)
    peer.close()
"""

SEND = r"""
import socket, sys
data = bytes(i * 7 % 251 for i in range(200_000))
s = socket.create_connection((sys.argv[1], 81), 60)
s.settimeout(60)
s.sendall(data)
s.shutdown(socket.SHUT_WR)
back = b""
while more := s.recv(65536):
    back += more
print(back == data + data)
"""

ASK = r"""
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
# Only answers of whom it asked.
s.connect((sys.argv[1], int(sys.argv[2])))
for n in range(3):
    s.send(b"question %d" % n)
    print(s.recv(65535).decode())
"""


class Link:
    """The client: a bridge with both nodes' uplinks."""

    def __init__(self, one, two):
        self.lab = one
        run("ip", "-n", f"{two.prefix}-router", "link", "set", "eth0", "netns", f"{one.prefix}-router", "name", "two")
        for command in (
            "ip link add br0 type bridge mcast_snooping 0", "ip address flush dev eth0", "ip link set eth0 master br0",
            "ip link set two master br0", "ip link set two up", "ip link set br0 up", "ethtool -K br0 tx off",
            "ethtool -K two tx off",
            "ip address add 192.0.2.254/24 dev br0", f"ip address add {CLIENT4}/32 dev br0",
            "ip -6 address add 2001:db8::fe/64 dev br0 nodad", f"ip -6 address add {CLIENT6}/128 dev br0 nodad",
            f"ip route add {VIP4} via 192.0.2.1 src {CLIENT4}",
            f"ip -6 route add {VIP6} via 2001:db8::1 src {CLIENT6}",
        ):
            one.inside("router", *command.split())

    def get(self, url):
        return get(self.lab, "router", url)

    def python(self, script, *arguments, timeout=120):
        return self.lab.inside("router", "/usr/bin/python3", "-c", script, *arguments, timeout=timeout).stdout

    def sniff(self):
        process = self.lab.spawn("router", "/usr/bin/python3", "-c", SNIFF, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return lambda: [(port, bytes.fromhex(packet))
                        for port, packet in json.loads(process.communicate("\n", timeout=60)[0])]


class Direct(Node):
    """A node that has no encryption."""

    def __init__(self, directory, number):
        super().__init__(directory, number)
        text = self.config.read_text()
        begin, end = text.index("[ipsec]"), text.index("[[ports]]")
        self.config.write_text(text[:begin] + text[end:])

    def set(self, forwarding, dispatch):
        other = 3 - self.number
        state = json.loads(json.dumps(self.state))
        own4, own6 = f"192.0.2.{self.number}", f"2001:db8::{self.number}"
        state["routes"] = [
            {"prefix": "0.0.0.0/0", "via": "192.0.2.254", "port": "router"},
            {"prefix": "::/0", "via": "2001:db8::fe", "port": "router"},
            {"prefix": f"10.20{other}.0.0/24", "via": f"192.0.2.{other}", "port": "router"},
            {"prefix": f"fd00:20{other}::/64", "via": f"2001:db8::{other}", "port": "router"}]
        state["node"] = {"addresses": [own4, own6], "masquerade4": own4, "masquerade6": own6,
                         "native_cidrs": ["10.0.0.0/8", "fd00::/16"],
                         "tunnel": {"protocol": "geneve", "local4": own4},
                         "forwarding": forwarding, "dsr": {"dispatch": dispatch}}
        for entry in state["ipcache"]:
            entry["key"] = 0
        state["services"] = [
            {"name": f"test/{name}{family}", "protocol": protocol,
             "frontends": [{"address": vip, "port": port, "type": "load_balancer"}],
             "backends": [{"address": pod, "port": backend, "local": self.number == 2}]}
            for family, vip, pod in ((4, VIP4, "10.202.0.1"), (6, VIP6, "fd00:202::1"))
            for name, protocol, port, backend in (
                ("http", "tcp", 80, 8000), ("sink", "tcp", 81, 8081), ("echo", "udp", 80, 8000))]
        self.apply(state)


@pytest.fixture
def nodes(tmp_path):
    made = []
    for number in (1, 2):
        directory = tmp_path / str(number)
        directory.mkdir()
        # Listed first: a lab that fails half-way is taken down, too.
        node = Direct.__new__(Direct)
        made.append(node)
        node.processes, node.namespaces = [], []
    try:
        for number, node in enumerate(made, 1):
            node.__init__(tmp_path / str(number), number)
        link = Link(*made)
        for node in made:
            node.start()
        two = made[1]
        serve(two, "pod1", 8000, "backend")
        for script, port in ((ECHO, 8000), (SINK, 8081)):
            process = two.spawn("pod1", "/usr/bin/python3", "-c", script, port, stdout=subprocess.PIPE, text=True)
            assert process.stdout.readline() == "ready\n"
        yield *made, link
    finally:
        for node in made:
            node.close()


def source(packet):
    at = 12 if packet[0] >> 4 == 4 else 8
    return ipaddress.ip_address(packet[at:at + (4 if at == 12 else 16)])


def from_vip(found, port):
    return [packet for at, packet in found if at == port and str(source(packet)) in (VIP4, VIP6)]


def everything(link, asking=(f"::ffff:{CLIENT4}", CLIENT6)):
    """What a client does with the services, over both families; `asking` is who sends datagrams, as the backend sees it."""
    for vip, url, client, asks in ((VIP4, f"http://{VIP4}/", f"::ffff:{CLIENT4}", asking[0]),
                                   (VIP6, f"http://[{VIP6}]/", CLIENT6, asking[1])):
        assert link.get(url) == f"backend {client}"
        # Long enough to need the largest packets there are, both ways.
        assert link.python(SEND, vip) == "True\n"
        answers = link.python(ASK, vip, 80).splitlines()
        assert answers == [f"question {n} {asks}" for n in range(3)]


@pytest.mark.parametrize("dispatch", ["opt", "geneve", "ipip"])
def test_the_backends_node_answers(nodes, dispatch):
    one, two, link = nodes
    for node in (one, two):
        node.set("dsr", dispatch)
    sniffed = link.sniff()
    everything(link)
    found = sniffed()
    # All answers came from the second node, none from the balancer.
    answers = from_vip(found, "two")
    assert len(answers) > 100 and {packet[0] >> 4 for packet in answers} == {4, 6}
    assert from_vip(found, "eth0") == []
    # What the balancer sent on.
    sent = [packet for port, packet in found if port == "eth0" and packet[0] >> 4 == 4]
    if dispatch == "opt":
        options = [packet for packet in sent if packet[0] == 0x47]
        # SYNs of two connections, and three datagrams; port and address with their bytes in the opposite order.
        assert len(options) >= 5, options
        assert {packet[20:28].hex() for packet in options} == {"9a0850000a7100cb", "9a0851000a7100cb"}
    elif dispatch == "geneve":
        tunnelled = [packet for packet in sent if packet[9] == 17 and packet[22:24] == (6081).to_bytes(2, "big")]
        with_option = [packet for packet in tunnelled if packet[28] & 0x3F == 3]
        assert len(with_option) >= 5 and len(tunnelled) > 50
        assert with_option[0][32:35] == bytes([0, 0, 2])
        assert with_option[0][36:48].hex() == "014b8102cb00710a00500000"
    else:
        around = [packet for packet in sent if packet[9] == 4]
        assert len(around) > 50
        assert {(str(source(packet)), str(source(packet[20:]))) for packet in around} == {("192.0.2.1", CLIENT4)}
    # Nothing looked broken to either.
    assert one.drops().get(134, 0) == two.drops().get(134, 0) == 0


def test_hybrid_is_for_tcp(nodes):
    one, two, link = nodes
    for node in (one, two):
        node.set("hybrid", "opt")
    sniffed = link.sniff()
    everything(link, ("::ffff:192.0.2.1", "2001:db8::1"))
    found = sniffed()
    at = {4: 9, 6: 6}
    by = {(port, packet[at[packet[0] >> 4]])
          for port in ("eth0", "two") for packet in from_vip(found, port)}
    # TCP answers come from the backend's node, datagrams from the balancer.
    assert by == {("two", 6), ("eth0", 17)}
