"""Sockets in other network namespaces, and answering pings without a kernel."""

import ctypes
import os
import socket
import struct
import threading

CLONE_NEWNET = 0x40000000
ETH_P_IP = 0x0800
ICMP_ECHO, ICMP_REPLY = 8, 0

_libc = ctypes.CDLL(None, use_errno=True)


def inside(namespace, make):
    """What `make` returns when it is called by a thread in a namespace: a socket stays in the namespace it was made in."""
    made = []

    def thread():
        fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            if _libc.setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), namespace)
        finally:
            os.close(fd)
        made.append(make())

    worker = threading.Thread(target=thread)
    worker.start()
    worker.join()
    return made[0]


def wire(namespace, interface="eth0"):
    """The IPv4 frames of an interface."""
    def make():
        frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        frames.bind((interface, ETH_P_IP))
        frames.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        # All frames, not only those for the interface's own address (linux/if_packet.h: PACKET_ADD_MEMBERSHIP, PROMISC).
        index = socket.if_nametoindex(interface)
        frames.setsockopt(263, 1, struct.pack("IHH8s", index, 1, 0, b""))
        return frames
    return inside(namespace, make)


def checksum(data):
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def echo(kind, ident, sequence, payload=b"octoplane"):
    """An ICMP echo message (RFC 792)."""
    head = struct.pack("!BBHHH", kind, 0, 0, ident, sequence)
    return struct.pack("!BBHHH", kind, 0, checksum(head + payload), ident, sequence) + payload


class Pods(threading.Thread):
    """Answers pings for many pods behind one port, each at its own Ethernet address: what comes for a pod with another's is
    counted and not answered."""

    def __init__(self, namespace):
        super().__init__(daemon=True)
        self.frames = wire(namespace)
        self.macs = {}
        self.misdirected = 0

    def add(self, address, mac):
        self.macs[socket.inet_aton(address)] = bytes.fromhex(mac.replace(":", ""))

    def run(self):
        while True:
            frame = self.frames.recv(65536)
            destination, source = frame[30:34], frame[26:30]
            mac = self.macs.get(destination)
            if mac is None or frame[23] != socket.IPPROTO_ICMP or frame[34] != ICMP_ECHO:
                continue
            if frame[0:6] != mac:
                self.misdirected += 1
                continue
            length = struct.unpack("!H", frame[16:18])[0]
            ident, sequence = struct.unpack("!HH", frame[38:42])
            message = echo(ICMP_REPLY, ident, sequence, frame[42:14 + length])
            head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(message), 0, 0, 64, socket.IPPROTO_ICMP, 0,
                               destination, source)
            head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
            self.frames.send(frame[6:12] + mac + struct.pack("!H", ETH_P_IP) + head + message)


class Prober(threading.Thread):
    """Pings addresses from a namespace until they answer, and says when they did."""

    IDENT = 0x0c71

    def __init__(self, namespace):
        super().__init__(daemon=True)
        self.socket = inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        self.answered = {}

    def wait(self, index, address, clock, deadline):
        """Seconds until `address` answers; None if it does not. `index` is its own for each address."""
        begin = clock()
        event = self.answered.setdefault(index, [threading.Event(), None])
        while clock() - begin < deadline:
            self.socket.sendto(echo(ICMP_ECHO, self.IDENT, index), (address, 0))
            if event[0].wait(0.02):
                return event[1] - begin
        return None

    def run(self):
        import time
        while True:
            packet, (_, _) = self.socket.recvfrom(2048)
            kind, _, _, ident, sequence = struct.unpack("!BBHHH", packet[20:28])
            if kind == ICMP_REPLY and ident == self.IDENT and sequence in self.answered:
                event = self.answered[sequence]
                if event[1] is None:
                    event[1] = time.monotonic()
                    event[0].set()
