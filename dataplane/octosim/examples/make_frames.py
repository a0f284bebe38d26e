#!/usr/bin/env python3
"""Makes the frames of service.jsonl and tunnel.jsonl with scapy: what goes in, and what has to come out."""

import json

from scapy.all import ICMP, IP, TCP, UDP, Ether, Raw
from scapy.layers.vxlan import VXLAN

OURS = "02:00:00:00:ff:%02x"
POD = "02:00:00:00:00:%02x"


def hexed(frame):
    return bytes(frame).hex()


def line(**request):
    return json.dumps(request)


def tcp(src, dst, sport, dport, flags, ttl=64):
    return IP(src=src, dst=dst, ttl=ttl, id=7, flags="DF") / TCP(sport=sport, dport=dport, flags=flags, seq=1)


def service():
    """A connection to a service, there and back; one that policy forbids; the same once it is allowed."""
    syn = tcp("10.0.0.1", "10.96.0.10", 40000, 80, "S")
    translated = tcp("10.0.0.1", "10.0.0.2", 40000, 8080, "S", ttl=63)
    answer = tcp("10.0.0.2", "10.0.0.1", 8080, 40000, "SA")
    restored = tcp("10.96.0.10", "10.0.0.1", 80, 40000, "SA", ttl=63)
    stranger = tcp("10.0.0.3", "10.96.0.10", 40000, 80, "S")
    allowed = tcp("10.0.0.3", "10.0.0.2", 40000, 8080, "S", ttl=63)
    entry = {"direction": "ingress", "protocol": 6, "port": 8080, "port_prefix_len": 16, "precedence": 4294967041}
    policy = {"endpoint": 2, "enforce_ingress": True,
              "entries": [entry | {"identity": identity} for identity in (1001, 1003)]}
    return [
        "# The client opens a connection to the service: it is translated to the web pod.",
        line(inject={"port": "client", "hex": hexed(Ether(src=POD % 1, dst=OURS % 0) / syn)}),
        line(expect={"sent": [{"port": "web", "hex": hexed(Ether(src=OURS % 1, dst=POD % 2) / translated)}],
                     "drops": []}),
        "# The answer comes from the service's address.",
        line(inject={"port": "web", "hex": hexed(Ether(src=POD % 2, dst=OURS % 1) / answer)}),
        line(expect={"sent": [{"port": "client", "hex": hexed(Ether(src=OURS % 0, dst=POD % 1) / restored)}],
                     "drops": []}),
        "# The stranger may not: dropped by policy.",
        line(inject={"port": "stranger", "hex": hexed(Ether(src=POD % 3, dst=OURS % 2) / stranger)}),
        line(expect={"sent": [], "drops": [133]}),
        "# Now it may.",
        line(put={"policies": [policy]}),
        line(inject={"port": "stranger", "hex": hexed(Ether(src=POD % 3, dst=OURS % 2) / stranger)}),
        line(expect={"sent": [{"port": "web", "hex": hexed(Ether(src=OURS % 1, dst=POD % 2) / allowed)}],
                     "drops": []}),
        "# Nothing more is heard of them: connections that were never established end after a minute.",
        line(flows={}),
        line(advance="1m 1s"),
        line(flows={}),
    ]


def tunnel():
    """A ping from a pod on another node, in VXLAN, and its answer; one with the identity that no node may send."""
    def outer(vni, inner):
        return (Ether(src="02:00:00:00:01:02", dst=OURS % 1) / IP(src="192.0.2.2", dst="192.0.2.1", id=0, flags="DF")
                / UDP(sport=50000, dport=8472, chksum=0) / VXLAN(vni=vni, flags=8)
                / Ether(src=POD % 9, dst=POD % 1) / inner)
    ping = IP(src="10.0.2.9", dst="10.0.0.1", ttl=64, id=1) / ICMP(id=5, seq=1) / Raw(b"hello")
    arrived = IP(src="10.0.2.9", dst="10.0.0.1", ttl=63, id=1) / ICMP(id=5, seq=1) / Raw(b"hello")
    pong = IP(src="10.0.0.1", dst="10.0.2.9", ttl=64, id=2) / ICMP(type=0, id=5, seq=1) / Raw(b"hello")
    return [
        "# A ping out of the tunnel.",
        line(inject={"port": "uplink", "hex": hexed(outer(2009, ping))}),
        line(expect={"sent": [{"port": "pod", "hex": hexed(Ether(src=OURS % 0, dst=POD % 1) / arrived)}], "drops": []}),
        "# Its answer goes back in it. The source port depends on the seed, so only its being sent is looked at.",
        line(inject={"port": "pod", "hex": hexed(Ether(src=POD % 1, dst=OURS % 0) / pong)}),
        line(expect={"sent": [{"port": "uplink"}], "drops": []}),
        "# Nobody out there speaks for a host.",
        line(inject={"port": "uplink", "hex": hexed(outer(1, ping))}),
        line(expect={"sent": [], "drops": [171]}),
    ]


if __name__ == "__main__":
    for name, lines in (("service", service()), ("tunnel", tunnel())):
        with open(f"{name}.jsonl", "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
