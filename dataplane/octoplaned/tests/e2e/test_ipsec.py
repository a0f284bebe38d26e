"""Two data planes on one wire, with encryption between them; what goes over the wire is looked at."""

import json
import subprocess

import pytest

from conftest import GATEWAY4, GATEWAY6, Lab, Pings, run, wait
from test_services import get, serve

BOOT = {1: "11111111-1111-1111-1111-111111111111", 2: "22222222-2222-2222-2222-222222222222"}
KEYS = {
    3: "3+ rfc4106(gcm(aes)) 000102030405060708090a0b0c0d0e0f10111213 128",
    4: "4+ rfc4106(gcm(aes)) 404142434445464748494a4b4c4d4e4f50515253 128",
}


class Node(Lab):
    """Node 1 or 2: underlay 192.0.2.NUMBER, pods 10.201.0.x behind the first, 10.202.0.x behind the second."""

    def __init__(self, directory, number, strict=False, rotation=300, framing="tunnel-in-esp", internal=None):
        self.number = number
        self.keys = directory / "keys"
        self.keys.write_text(KEYS[3] + "\n")
        self.net4, self.net6 = f"10.20{number}.0", f"fd00:20{number}:"
        super().__init__(directory)
        # The other one is no kernel that answers at once.
        self.patient()
        text = self.config.read_text()
        for old in ("192.0.2.1/24", "2001:db8::1/64"):
            text = text.replace(old, old.replace("1/", f"{number}/"))
        more = f"""
[ipsec]
key_file = "{self.keys}"
strict = {str(strict).lower()}
framing = "{framing if isinstance(framing, str) else framing[number - 1]}"
addresses = {json.dumps([internal[number]] if internal else [])}
directory = "{directory}/ipsec"
boot_id = "{BOOT[number]}"
rotation_s = {rotation}
"""
        # Tables go before the list of ports.
        self.config.write_text(text.replace("[[ports]]", more + "\n[[ports]]", 1) + f"""
[eal]
file_prefix = "ot-{self.prefix}"
""")
        other = 3 - number
        self.state["endpoints"] = [
            {"id": i, "name": f"test/pod{i}", "port": f"pod{i}", "mac": f"02:00:00:00:00:0{i}", "identity": 1000 + i,
             "addresses": [f"{self.net4}.{i}", f"{self.net6}:{i}"]} for i in (1, 2)]
        self.state["routes"] = [{"prefix": "192.0.2.0/24", "port": "router"}]
        self.state["node"] = {"addresses": [f"192.0.2.{number}"], "routing": "tunnel",
                              "tunnel": {"local4": f"192.0.2.{number}"}}
        self.state["ipcache"] = [{"prefix": prefix, "identity": 1001, "tunnel_endpoint": f"192.0.2.{other}", "key": 3}
                                 for prefix in (f"10.20{other}.0.0/24", f"fd00:20{other}::/64")]

    def pod(self, index):
        pod = f"pod{index}"
        self.cable(pod, f"02:00:00:00:00:0{index}")
        self.inside(pod, "ip", "address", "add", f"{self.net4}.{index}/32", "dev", "eth0")
        self.inside(pod, "ip", "-6", "address", "add", f"{self.net6}:{index}/128", "dev", "eth0", "nodad")
        self.inside(pod, "ip", "route", "add", GATEWAY4, "dev", "eth0", "scope", "link")
        self.inside(pod, "ip", "route", "add", "default", "via", GATEWAY4, "dev", "eth0")
        self.inside(pod, "ip", "-6", "route", "add", "default", "via", GATEWAY6, "dev", "eth0")

    def meet(self, other, key=3):
        self.octoctl("ipsec", "node", "add", f"192.0.2.{other}", "--key", key, "--boot-id", BOOT[other])

    def reach(self, pod, target):
        """The cable was plugged in a moment ago, and neighbours have to be found: not what is tested."""
        for _ in range(10):
            if self.ping(pod, target, 1) == 1:
                break
        assert self.ping(pod, target) == 3

    def counters(self):
        return self.json("ipsec", "counters")


def wire(one, two):
    """Their uplinks become the two ends of one cable."""
    for node in (one, two):
        node.inside("dp", "ip", "link", "del", "router")
    run("ip", "link", "add", "router", "netns", f"{one.prefix}-dp", "type", "veth",
        "peer", "name", "router", "netns", f"{two.prefix}-dp")
    for node in (one, two):
        node.inside("dp", "ip", "link", "set", "router", "up")
        node.inside("dp", "ethtool", "-K", "router", "tx", "off", check=False)


SNIFF = r"""
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("router", 0))
s.settimeout(0.2)
# SO_RCVBUFFORCE (Linux): more than the usual limit, so that nothing is missed.
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)
print("ready", flush=True)
kinds, found, secret = {}, 0, sys.argv[1].encode()
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        frame, who = s.recvfrom(65535)
    except TimeoutError:
        continue
    kind = struct.unpack(">H", frame[12:14])[0]
    name = {0x0806: "arp", 0x86dd: "ipv6"}.get(kind, hex(kind))
    if kind == 0x0800:
        name = {50: "esp", 17: "udp", 6: "tcp", 1: "icmp"}.get(frame[23], str(frame[23]))
    kinds[name] = kinds.get(name, 0) + 1
    found += secret in frame
import json
print(json.dumps({"kinds": kinds, "found": found}))
"""


class Sniffer:
    """Counts what goes over the wire, and in how many frames a text is to be seen. What a data plane sends is seen where it
    arrives: the driver does not show it to others on its side."""

    program = SNIFF

    def __init__(self, nodes, secret):
        self.processes = [node.spawn("dp", "/usr/bin/python3", "-c", self.program, secret, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True) for node in nodes]
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"

    def result(self):
        kinds, found = {}, 0
        for process in self.processes:
            seen = json.loads(process.communicate("\n", timeout=60)[0])
            found += seen["found"]
            for kind, count in seen["kinds"].items():
                kinds[kind] = kinds.get(kind, 0) + count
        return kinds, found


@pytest.fixture
def nodes(tmp_path):
    made = []

    def make(**kwargs):
        for number in (1, 2):
            directory = tmp_path / str(number)
            directory.mkdir()
            # Listed first: a lab that fails half-way is taken down, too.
            node = Node.__new__(Node)
            made.append(node)
            node.processes, node.namespaces = [], []
            node.__init__(directory, number, **kwargs)
        wire(*made)
        for node in made:
            node.start()
            node.apply()
        return made

    yield make
    for node in made:
        node.close()


def test_everything_between_the_nodes_is_encrypted(nodes):
    one, two = nodes()
    # Nobody knows the other: nothing may leave, not even in the clear.
    sniffer = Sniffer((one, two), "10.202")
    assert one.ping("pod1", "10.202.0.1", 1) == 0
    assert one.drops()[197] > 0
    kinds, _ = sniffer.result()
    assert set(kinds) <= {"arp", "ipv6"}, kinds

    one.meet(2)
    two.meet(1)
    secret = "a-secret-that-nobody-may-see"
    serve(two, "pod1", 8000, secret)
    sniffer = Sniffer((one, two), secret)
    assert one.ping("pod1", "10.202.0.1", 5) == 5
    assert one.ping("pod2", "fd00:202::2", 5) == 5
    for url in ("http://10.202.0.1:8000/", "http://[fd00:202::1]:8000/"):
        assert get(one, "pod1", url).startswith(secret)
    # Full segments: the path MTU is found out.
    assert one.ping("pod1", "10.202.0.1", 2, "-s", "1368", "-M", "do") == 2
    result = one.inside("pod1", "ping", "-n", "-c", "1", "-W", "2", "-s", "1372", "-M", "do", "10.202.0.1", check=False)
    assert "mtu = 1396" in result.stdout + result.stderr or "mtu=1396" in result.stdout + result.stderr
    kinds, found = sniffer.result()
    assert found == 0 and set(kinds) <= {"esp", "arp", "ipv6"}, (kinds, found)
    # 12 pings and what answers them, and two connections.
    assert kinds["esp"] > 2 * 12 + 2 * 7, kinds

    for node in (one, two):
        counters = node.counters()
        assert counters["encrypted"] > 10 and counters["decrypted"] > 10, counters
        assert not counters["outbound"] and not counters["inbound"], counters
    sas = one.json("ipsec", "sa", "list")
    assert [(sa["direction"], sa["spi"], sa["source"], sa["destination"]) for sa in sas] == [
        ("outbound", 3, "192.0.2.1", "192.0.2.2"), ("inbound", 3, "192.0.2.2", "192.0.2.1")]
    # Both ends have the same keys, a pair for each direction.
    prints = {(sa["source"], sa["fingerprint"]) for sa in sas}
    assert prints == {(sa["source"], sa["fingerprint"]) for sa in two.json("ipsec", "sa", "list")} and len(prints) == 2
    assert one.json("ipsec", "policy", "list") == [{"node": "192.0.2.2", "action": "encrypt", "key": 3}]
    status = one.json("ipsec", "status")
    assert (status["key"], status["boot_id"], status["provider"]) == (3, BOOT[1], "software"), status
    assert status["framing"] == "tunnel-in-esp" and {sa["provider"] for sa in sas} == {"software"}
    assert [queue["worker"] for queue in one.counters()["queues"]] == [0]
    # No key is ever told.
    for output in (one.log(), json.dumps(sas), json.dumps(status)):
        assert "0001020304" not in output

    # After a restart both go on with numbers that were not used: nodes and numbers are kept.
    assert two.stop() == 0
    two.start()
    two.apply()
    one.reach("pod1", "10.202.0.1")
    assert one.ping("pod1", "10.202.0.1", 5) == 5
    assert not one.counters()["inbound"], one.counters()
    assert one.stop() == 0 and two.stop() == 0


def test_strict_refuses_the_clear(nodes):
    one, two = nodes(strict=True)
    one.meet(2)
    two.meet(1)
    one.reach("pod1", "10.202.0.1")
    # The first takes the other for one without a key, and sends as it is.
    one.meet(2, key=0)
    assert one.no_answer("pod1", "10.202.0.1")
    assert two.drops()[195] >= 2


@pytest.mark.timeout(900)
def test_rotation_under_traffic(nodes):
    one, two = nodes(rotation=30)
    one.meet(2)
    two.meet(1)
    one.reach("pod1", "10.202.0.1")
    pings = Pings(one, "pod1", "10.202.0.1")
    pings.more()

    def until(node, what):
        wait(lambda: what(node), 120, lambda: node.octoctl("ipsec", "status").stdout + node.log())

    def announces(key):
        return lambda node: node.json("ipsec", "status")["key"] == key

    # Both load the new key, each at a time of its own; then each hears what the other announces.
    for node in (one, two):
        node.keys.write_text(KEYS[4] + "\n")
        until(node, announces(4))
    for node, other in ((one, 2), (two, 1)):
        node.meet(other, key=4)
        assert node.json("ipsec", "policy", "list")[0]["key"] == 4
    for node in (one, two):
        until(node, lambda node: [key["key"] for key in node.json("ipsec", "status")["keys"]] == [4])
        assert {sa["spi"] for sa in node.json("ipsec", "sa", "list")} == {4}
    count, missing = pings.stop()
    assert count > 500 and not missing, (count, missing)
    # A key that is no other one is refused, and nothing happens to traffic.
    one.keys.write_text(KEYS[3].replace("3+", "4+") + "\n")
    until(one, lambda node: "needs a new number" in node.json("ipsec", "status")["key_file_error"])
    assert one.ping("pod1", "10.202.0.1") == 3
