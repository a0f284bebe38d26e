"""Two data planes with ESP inside VXLAN, as Cilium had it up to 1.17: what goes over the wire, large transfers, and one node of
either form."""

import json
import subprocess

from test_ipsec import BOOT, SNIFF, Sniffer, nodes  # noqa: F401 (a fixture)
from test_services import get, serve

KINDS = SNIFF.replace("    kinds[name]", """    if name == "udp" and frame[36:38] == b"\\x21\\x18":
        # In the tunnel: Ethernet, and IPv4 with ESP or something else.
        name = "vxlan-esp" if frame[62:64] == b"\\x08\\x00" and frame[73] == 50 else "vxlan"
    kinds[name]""", 1)
assert KINDS != SNIFF

# Ends of the security associations of their own, as Cilium's internal addresses.
INTERNAL = {1: "10.201.0.254", 2: "10.202.0.254"}


class Wire(Sniffer):
    program = KINDS


def meet(one, two):
    for node, number in ((one, 2), (two, 1)):
        node.octoctl("ipsec", "node", "add", f"192.0.2.{number}", "--key", 3, "--boot-id", BOOT[number],
                     "--sa-address", INTERNAL[number])


def transfer(server, client, address, *options):
    """Megabits a second of a transfer over TCP that comes to its end."""
    process = server.spawn("pod1", "iperf3", "--server", "--one-off", "--forceflush", stdout=subprocess.PIPE, text=True)
    assert "-----" in process.stdout.readline()
    result = client.inside("pod1", "iperf3", "--client", address, "--bytes", "8M", "--window", "200K", "--json",
                           "--connect-timeout", 30_000, *options, check=False, timeout=120)
    process.communicate(timeout=60)
    report = json.loads(result.stdout)
    assert "error" not in report, report
    # The client ends when its last bytes are in its buffer, which is therefore a small one.
    assert report["end"]["sum_received"]["bytes"] >= 6 << 20, report["end"]
    return report["end"]["sum_received"]["bits_per_second"] / 1e6


def test_esp_inside_vxlan(nodes):  # noqa: F811
    one, two = nodes(framing="esp-in-tunnel", internal=INTERNAL, strict=True)
    meet(one, two)
    secret = "a-secret-that-nobody-may-see"
    serve(two, "pod1", 8000, secret)
    sniffer = Wire((one, two), secret)
    assert one.ping("pod1", "10.202.0.1", 5) == 5
    assert one.ping("pod2", "fd00:202::2", 5) == 5
    for url in ("http://10.202.0.1:8000/", "http://[fd00:202::1]:8000/"):
        assert get(one, "pod1", url).startswith(secret)
    # 1500 less 50 for the tunnel, 52 for ESP over IPv4, and two bytes of trailer.
    assert one.ping("pod1", "10.202.0.1", 2, "-s", "1366", "-M", "do") == 2
    result = one.inside("pod1", "ping", "-n", "-c", "1", "-W", "2", "-s", "1367", "-M", "do", "10.202.0.1", check=False)
    said = result.stdout + result.stderr
    assert "mtu = 1394" in said or "mtu=1394" in said, said
    kinds, found = sniffer.result()
    assert found == 0 and set(kinds) <= {"vxlan-esp", "arp", "ipv6"}, (kinds, found)
    assert kinds["vxlan-esp"] > 2 * 12 + 2 * 7, kinds
    for node in (one, two):
        counters = node.counters()
        assert counters["encrypted"] > 10 and counters["decrypted"] > 10, counters
        assert not counters["outbound"] and not counters["inbound"], counters
    ends = {(sa["source"], sa["destination"]) for sa in one.json("ipsec", "sa", "list")}
    assert ends == {(INTERNAL[1], INTERNAL[2]), (INTERNAL[2], INTERNAL[1])}


def test_transfers_do_not_stall(nodes):  # noqa: F811
    one, two = nodes(framing="esp-in-tunnel", internal=INTERNAL)
    meet(one, two)
    for address in ("10.202.0.1", "fd00:202::1"):
        for options in ((), ("--reverse",)):
            assert transfer(two, one, address, *options) > 1
    for node in (one, two):
        assert not node.counters()["outbound"], node.counters()


def test_one_node_of_either_form(nodes):  # noqa: F811
    one, two = nodes(framing=("esp-in-tunnel", "tunnel-in-esp"), strict=True)
    one.meet(2)
    two.meet(1)
    sniffer = Wire((one, two), "10.202")
    assert one.ping("pod1", "10.202.0.1", 5) == 5
    assert two.ping("pod1", "10.201.0.1", 5) == 5
    kinds, found = sniffer.result()
    assert found == 0 and set(kinds) <= {"vxlan-esp", "esp", "arp", "ipv6"}, (kinds, found)
    assert kinds["esp"] >= 10 and kinds["vxlan-esp"] >= 10, kinds
    assert transfer(two, one, "10.202.0.1") > 1
