"""Bad packets from a pod: counted, and nothing leaks."""

import textwrap
import time

SEND = textwrap.dedent("""
    import sys
    from scapy.all import *
    kind = sys.argv[1]
    me, gw = "02:00:00:00:00:01", "02:aa:aa:aa:aa:aa"
    good = Ether(src=me, dst=gw) / IP(src="10.200.0.1", dst="10.200.0.2") / UDP(sport=1, dport=2) / (b"x" * 64)
    good6 = Ether(src=me, dst=gw) / IPv6(src="fd00:200::1", dst="fd00:200::2") / UDP(sport=1, dport=2) / (b"x" * 64)
    frames = []
    if kind == "truncated":
        for frame in (bytes(good), bytes(good6)):
            frames += [frame[:n] for n in range(14, 54)]
    elif kind == "checksum":
        bad = good.copy(); bad[IP].chksum = 0x1234; frames = [bytes(bad)] * 50
    elif kind == "source":
        for src in ("10.200.0.2", "8.8.8.8", "0.0.0.0", "127.0.0.1"):
            bad = good.copy(); bad[IP].src = src; frames.append(bytes(bad))
        bad = good6.copy(); bad[IPv6].src = "fd00:200::2"; frames.append(bytes(bad))
    elif kind == "vlan":
        frames = [bytes(Ether(src=me, dst=gw) / Dot1Q(vlan=5) / good[IP])] * 50
    elif kind == "ethertypes":
        frames = [bytes(Ether(src=me, dst=gw, type=t)) + b"z" * 46 for t in range(0, 65536, 13) if t not in (0x800, 0x806, 0x86dd)]
    elif kind == "jumbo":
        frames = [bytes(Ether(src=me, dst=gw) / IP(flags="DF", src="10.200.0.1", dst="10.200.0.2") / UDP() / (b"j" * 1900))] * 20
    elif kind == "noise":
        import random
        random.seed(7)
        base = [bytes(good), bytes(good6), bytes(Ether(src=me, dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="169.254.1.1")),
                bytes(Ether(src=me, dst=gw) / IPv6(src="fe80::2", dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt="fe80::1"))]
        for _ in range(3000):
            frame = bytearray(random.choice(base))
            for _ in range(random.randint(1, 6)):
                frame[random.randrange(12, len(frame))] = random.randrange(256)
            frames.append(bytes(frame[:random.randint(14, len(frame))]))
    s = conf.L2socket(iface="eth0")
    for frame in frames:
        s.send(frame)
    print(len(frames))
""")


def send(lab, kind):
    return int(lab.inside("pod1", "/usr/bin/python3", "-c", SEND, kind, timeout=120).stdout)


def quiet(lab):
    """Waits until all that was sent has been seen."""
    before = -1
    while (now := lab.json("port", "stats", "pod1")[0]["rx_packets"]) != before:
        before = now
        time.sleep(0.2)


def received(lab):
    quiet(lab)
    return lab.json("port", "stats", "pod1")[0]["rx_packets"]


def dropped(lab, kind):
    """Sends a kind of garbage. Returns how many packets arrived (a busy machine may lose some before they reach the
    data plane) and how many were dropped by code."""
    packets, before = received(lab), lab.drops()
    sent = send(lab, kind)
    after, arrived = lab.drops(), received(lab) - packets
    while (now := lab.drops()) != after or received(lab) - packets != arrived:
        # Something came in between the two looks.
        after, arrived = now, received(lab) - packets
    assert arrived > sent // 10, (arrived, sent)
    return arrived, {code: after[code] - before.get(code, 0) for code in after if after[code] != before.get(code, 0)}


def test_each_kind_of_garbage_is_counted_and_nothing_leaks(lab):
    assert lab.ping("pod1", "10.200.0.2") == 3
    # No stray traffic of any kernel in between: router solicitations and multicast reports are dropped and counted, too.
    for name in ("pod1", "pod2", "router"):
        lab.inside(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    quiet(lab)
    used = lab.json("status")["mbufs_in_use"]

    arrived, drops = dropped(lab, "truncated")
    # An IPv4 packet shorter than it says, an IPv6 packet shorter than its header.
    assert drops.get(134) == arrived, drops
    arrived, drops = dropped(lab, "checksum")
    assert drops.get(153, 0) + drops.get(132, 0) == arrived, drops
    arrived, drops = dropped(lab, "source")
    assert drops.get(132, 0) + drops.get(134, 0) == arrived, drops
    arrived, drops = dropped(lab, "vlan")
    assert drops.get(139, 0) + drops.get(132, 0) == arrived, drops
    arrived, drops = dropped(lab, "ethertypes")
    # Below 0x600 it is a length: another protocol family, another code.
    assert drops.get(166, 0) > 0
    assert drops.get(166, 0) + drops.get(139, 0) + drops.get(132, 0) == arrived, (drops, arrived)
    lab.inside("pod1", "ip", "link", "set", "eth0", "mtu", "2000")
    lab.inside("dp", "ip", "link", "set", "pod1", "mtu", "2000")
    arrived, drops = dropped(lab, "jumbo")
    # What the driver's buffers cut off contradicts its own length; what they hold is too large for the other pod.
    assert drops.get(136, 0) + drops.get(134, 0) + drops.get(132, 0) == arrived, drops
    arrived, drops = dropped(lab, "noise")
    assert sum(drops.values()) > arrived // 3, drops

    assert lab.ping("pod1", "10.200.0.2") == 3
    time.sleep(1)
    assert lab.json("status")["mbufs_in_use"] == used, "packet buffers leak"
    assert lab.daemon.poll() is None
