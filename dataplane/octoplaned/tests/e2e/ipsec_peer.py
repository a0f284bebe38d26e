"""The other end of security associations: scapy behind a lab's router, and a lab that is programmed for it."""

import hashlib
import threading
import time

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import Ether

from conftest import wait  # noqa: F401 (for those who test with it)
from raw import open_in

OURS, THEIRS = "192.0.2.1", "198.51.100.9"
POD, NET = "10.200.0.1", "10.9.0.0/16"


def allow_policies(lab, more=""):
    """Security associations and policies can be programmed."""
    text = lab.config.read_text()
    lab.config.write_text(text.replace("[[ports]]", f"""[ipsec]
policies = true
directory = "{lab.directory}/ipsec"
{more}

[[ports]]""", 1))


def key(spi):
    """A key of AES-128-GCM with its salt; another one for each SPI."""
    return hashlib.sha256(b"%d" % spi).digest()[:20]


def add_sa(lab, direction, spi, *more, algorithm="aes-128-gcm-16", secret=None, src=None, dst=None, reqid=1, check=True):
    ours, theirs = src or OURS, dst or THEIRS
    if direction == "inbound":
        ours, theirs = (src or THEIRS), (dst or OURS)
    return lab.octoctl("ipsec", "sa", "add", direction, "--spi", spi, "--src", ours, "--dst", theirs, "--reqid", reqid,
                       "--algorithm", algorithm, "--key-file", "-", *more, input=(secret or key(spi)).hex() + "\n", check=check)


def add_policies(lab, reqid=1, src=POD, dst=NET, *more):
    lab.octoctl("ipsec", "policy", "add", "1", "outbound", "protect", "--reqid", reqid, "--src", src, "--dst", dst, *more)
    lab.octoctl("ipsec", "policy", "add", "2", "inbound", "protect", "--reqid", reqid, "--src", dst, "--dst", src)


def reach(lab, pod, target):
    """Cables were plugged in a moment ago, and neighbours have to be found: not what is tested."""
    for _ in range(20):
        if lab.ping(pod, target, 1) == 1:
            return
    raise AssertionError((lab.drops(), lab.json("ipsec", "counters")))


def pings(lab, pod, target, count=3):
    """One after the other: each has its time, however busy the machine is. Returns how many were answered."""
    return sum(lab.ping(pod, target, 1, "-W", "5") for _ in range(count))


class Peer:
    """Answers pings that come in ESP, by the SPI that the lab decrypts with."""

    def __init__(self, lab, transport=False, nat=False, answer=True):
        self.transport, self.nat, self.answer = transport, nat, answer
        self.inbound, self.outbound = {}, None
        # What came: outer packet and the one inside, or what was in the clear.
        self.opened, self.clear, self.errors = [], [], []
        self.socket = open_in(lab, "router")
        self.uplink = next(port["mac"] for port in lab.json("port", "list") if port["name"] == "router")
        # What scapy loads when it is needed takes a second.
        warm = self.association(256)
        warm.decrypt(warm.encrypt(IP(src=OURS, dst=THEIRS) / UDP() / b"x"))
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def association(self, spi, secret=None, src=OURS, dst=THEIRS, **more):
        outer = {} if self.transport else {"tunnel_header": IP(src=src, dst=dst)}
        if self.nat:
            outer["nat_t_header"] = UDP(sport=4500, dport=4500)
        more = {"crypt_algo": "AES-GCM", "crypt_key": secret or key(spi), **more}
        return SecurityAssociation(ESP, spi=spi, **outer, **more)

    def decrypts(self, spi, *args, **kwargs):
        self.inbound[spi] = self.association(spi, *args, **kwargs)

    def encrypts(self, spi, *args, src=THEIRS, dst=OURS, **kwargs):
        self.outbound = self.association(spi, *args, src=src, dst=dst, **kwargs)

    def send(self, packet, outbound=None):
        """Encrypts and sends."""
        outbound = outbound or self.outbound
        packet = packet.__class__(bytes(packet))
        outer = outbound.encrypt(packet)
        if self.nat:
            # scapy leaves it at what it was without a payload.
            outer[UDP].len = 8 + len(bytes(outer[UDP].payload))
            outer[UDP].chksum = 0
        self.send_clear(outer)
        return outer

    def send_clear(self, packet):
        frame = Ether(dst=self.uplink, src="02:00:00:00:00:fe", type=0x0800) / packet
        self.socket.send(bytes(frame))

    def _run(self):
        while not self.stopping:
            try:
                frame = Ether(self.socket.recv(65535))
            except BlockingIOError:
                time.sleep(0.001)
                continue
            try:
                self._take(frame)
            except Exception as error:  # noqa: BLE001: told to the test
                self.errors.append((repr(error), bytes(frame)))

    def _take(self, frame):
        packet = frame.payload
        if not isinstance(packet, IP):
            return
        # What pads the frame is no part of the packet.
        packet = IP(bytes(packet)[:packet.len])
        if ESP in packet or UDP in packet and packet[UDP].dport == 4500:
            esp = packet[ESP] if ESP in packet else ESP(bytes(packet[UDP].payload))
            association = self.inbound.get(esp.spi)
            if association is None:
                self.errors.append((f"unknown SPI {esp.spi}", bytes(packet)))
                return
            inner = association.decrypt(packet.copy())
            self.opened.append((packet, inner))
            if self.answer and self.outbound is not None:
                self._answer(inner)
        else:
            self.clear.append(packet)

    def _answer(self, inner):
        if ICMP in inner and inner[ICMP].type == 8 and not inner.flags.MF and inner.frag == 0:
            self.send(IP(src=inner.dst, dst=inner.src) / ICMP(type=0, id=inner[ICMP].id, seq=inner[ICMP].seq)
                      / bytes(inner[ICMP].payload))
        elif ICMPv6EchoRequest in inner:
            it = inner[ICMPv6EchoRequest]
            self.send(IPv6(src=inner.dst, dst=inner.src) / ICMPv6EchoReply(id=it.id, seq=it.seq, data=it.data))

    def spis(self):
        """SPIs of what came, in their order."""
        return [(it[ESP] if ESP in it else ESP(bytes(it[UDP].payload))).spi for it, _ in self.opened]

    def numbers(self, spi):
        all_of_them = [it[ESP] if ESP in it else ESP(bytes(it[UDP].payload)) for it, _ in self.opened]
        return [it.seq for it in all_of_them if it.spi == spi]

    def close(self):
        self.stopping = True
        self.thread.join()
        self.socket.close()
