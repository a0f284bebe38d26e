"""Raw sockets in a lab's namespaces, and connections by the hundred thousand that are nothing but packets.

A pod talks to two services; their backends are elsewhere, behind the router, and the pod goes to them under the node's
address. Every packet has its connection's number and its own in its payload."""

import ctypes
import os
import socket
import struct
import time

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_SO_RCVBUFFORCE = 33
_SO_SNDBUFFORCE = 32

PODS, VIPS = "10.200.0.1", ("10.96.0.10", "10.96.0.11")
BACKENDS = [f"198.51.100.{n}" for n in range(1, 17)]
NODE, PORT, BACKEND_PORT = "192.0.2.1", 80, 8080
SYN, ACK = 2, 16

# Ethernet, IPv4 and TCP headers, two numbers.
_FRAME = struct.Struct("!6s6sH BBHHHBBH4s4s HHIIBBHHH II")
_OFFSET = 14 + 20


def open_in(lab, name, interface="eth0"):
    """A packet socket in a namespace: the thread goes there and back."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{lab.prefix}-{name}", os.O_RDONLY)
    try:
        assert _libc.setns(there, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
            sock.bind((interface, 0x0800))
        finally:
            assert _libc.setns(here, _CLONE_NEWNET) == 0
    finally:
        os.close(here)
        os.close(there)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 29)
    sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 24)
    # Its own packets are not news.
    sock.setsockopt(socket.SOL_PACKET if hasattr(socket, "SOL_PACKET") else 263, 23, 1)
    sock.setblocking(False)
    return sock


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def frame(there, here, source, destination, sport, dport, flags, connection, number):
    def make(checksum):
        return _FRAME.pack(there, here, 0x0800, 0x45, 0, 48, connection & 0xFFFF, 0, 64, 6, checksum, source, destination,
                           sport, dport, number, 0, 0x50, flags, 65535, 0, 0, connection, number)
    words = struct.unpack("!10H", make(0)[14:34])
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return make(~total & 0xFFFF)


def received(sock, then=None):
    """What waits in a socket: source, destination, ports, connection and number of each packet."""
    found = []
    while True:
        try:
            data = sock.recv(2048)
        except BlockingIOError:
            return found
        if len(data) < 62 or data[23] != 6:
            continue
        found.append((data[26:30], data[30:34], *struct.unpack_from("!HH", data, _OFFSET),
                      *struct.unpack_from("!II", data, _OFFSET + 20)))


class Connections:
    """Connections of pod 1 to the services, as packets."""

    def __init__(self, lab, count):
        self.count = count
        macs = {port["name"]: port["mac"] for port in lab.json("port", "list")}
        self.pod, self.router = open_in(lab, "pod1"), open_in(lab, "router")
        self.gateway, self.uplink = mac(macs["pod1"]), mac(macs["router"])
        self.number = 0
        # What each leaves as: address, port, backend.
        self.translated = {}
        self.source = socket.inet_aton(PODS)
        self.vips = [socket.inet_aton(vip) for vip in VIPS]
        self.node = socket.inet_aton(NODE)

    def ends(self, connection):
        """Source port and service of a connection."""
        return 1024 + connection % 60_000, self.vips[connection // 60_000]

    def forward(self, connection, flags=ACK):
        self.number += 1
        sport, vip = self.ends(connection)
        return frame(self.gateway, mac("02:00:00:00:00:01"), self.source, vip, sport, PORT, flags, connection, self.number)

    def reply(self, connection):
        self.number += 1
        _, sport, backend = self.translated[connection]
        return frame(self.uplink, mac("02:00:00:00:00:fe"), backend, self.node, BACKEND_PORT, sport, ACK, connection,
                     self.number)

    def all_of_them(self, out, into, make, heard, portion=200, rounds=30):
        """Sends a packet of each connection, those that were not heard again, until all were. Returns how many were not."""
        missing = list(range(self.count))
        for _ in range(rounds):
            received(into)
            left = set()
            for first in range(0, len(missing), portion):
                some = missing[first:first + portion]
                waiting = set(some)
                for connection in some:
                    out.send(make(connection))
                quiet = time.monotonic() + 0.2
                while waiting and time.monotonic() < quiet:
                    packets = received(into)
                    for packet in packets:
                        heard(packet)
                        waiting.discard(packet[4])
                    if packets:
                        quiet = time.monotonic() + 0.2
                    else:
                        time.sleep(0.0002)
                left |= waiting
            missing = sorted(left)
            if not missing:
                return 0
        return len(missing)

    def begin(self):
        """Begins all of them; returns how many did not get through."""
        def heard(packet):
            source, destination, sport, dport, connection, _ = packet
            assert source == self.node and dport == BACKEND_PORT, packet
            self.translated.setdefault(connection, (source, sport, destination))
        missing = self.all_of_them(self.pod, self.router, lambda it: self.forward(it, SYN), heard)
        # Everyone has a way back of its own.
        assert len(set(self.translated.values())) == len(self.translated)
        return missing

    def go_on(self):
        """A packet of each, there; returns how many did not get through, and how many are not what they were."""
        broken = set()

        def heard(packet):
            source, destination, sport, _, connection, _ = packet
            if self.translated[connection] != (source, sport, destination):
                broken.add(connection)
        return self.all_of_them(self.pod, self.router, self.forward, heard), len(broken)

    def answer(self):
        """The same back."""
        broken = set()

        def heard(packet):
            source, destination, sport, dport, connection, _ = packet
            port, vip = self.ends(connection)
            if (source, destination, sport, dport) != (vip, self.source, PORT, port):
                broken.add(connection)
        return self.all_of_them(self.router, self.pod, self.reply, heard), len(broken)

    def close(self):
        self.pod.close()
        self.router.close()


class Stream:
    """Packets of random connections at a steady rate, from a thread. `stop` says which were lost."""

    def __init__(self, connections, rate):
        import threading
        self.connections, self.rate = connections, rate
        self.sent = {}
        self.stopping = False
        received(connections.router)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        start = time.perf_counter()
        count = 0
        while not self.stopping:
            due = int((time.perf_counter() - start) * self.rate)
            while count < due:
                count += 1
                packet = self.connections.forward((count * 7919) % self.connections.count)
                self.sent[self.connections.number] = time.perf_counter()
                try:
                    self.connections.pod.send(packet)
                except BlockingIOError:
                    pass
            time.sleep(0.0005)

    def stop(self):
        """Number of lost packets, of all, and the time from the first lost one to the last in milliseconds."""
        self.stopping = True
        self.thread.join()
        heard = set()
        # Until the last one that waits somewhere has come.
        quiet = time.monotonic() + 1
        while time.monotonic() < quiet:
            if packets := received(self.connections.router):
                heard |= {packet[5] for packet in packets}
                quiet = time.monotonic() + 1
            time.sleep(0.01)
        lost = sorted(self.sent[number] for number in self.sent if number not in heard)
        window = (lost[-1] - lost[0]) * 1000 + 1000 / self.rate if lost else 0
        return len(lost), len(self.sent), window
