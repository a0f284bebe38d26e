"""The crate under test, as `tests/scapy.rs` serves it, and scapy's security associations to match."""

import json
import os
import socket
import warnings

import pytest

warnings.filterwarnings("ignore")

from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.ciphers import algorithms, modes  # noqa: E402
from cryptography.hazmat.primitives.hmac import HMAC  # noqa: E402
from scapy.layers import ipsec  # noqa: E402
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402

SPI = 0x1234ABCD


class Peer:
    """A node of the crate under test."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.environ["ESP_PEER_SOCKET"])
        self.lines = self.socket.makefile("rw")

    def ask(self, **request):
        self.lines.write(json.dumps(request) + "\n")
        self.lines.flush()
        return json.loads(self.lines.readline())

    def encrypt(self, sa, packets):
        answers = self.ask(op="encrypt", sa=sa, packets=[bytes(packet).hex() for packet in packets])
        return [bytes.fromhex(answer["packet"]) for answer in answers]

    def decrypt(self, packets):
        """A list of packets and, for those refused, causes."""
        answers = self.ask(op="decrypt", packets=[bytes(packet).hex() for packet in packets])
        return [
            bytes.fromhex(answer["packet"]) if "packet" in answer else answer["cause"] for answer in answers
        ]

    def counters(self):
        return self.ask(op="counters")


@pytest.fixture
def peer():
    node = Peer()
    yield node
    node.lines.close()
    node.socket.close()


class EsnHmac(ipsec.AuthAlgo):
    """scapy does not authenticate the upper half of the number in ESP with a separate integrity algorithm (RFC 4303, section
    2.2.1): here it does."""

    esn = None

    def _icv(self, esp, key):
        mac = HMAC(key, self.digestmod())
        mac.update(bytes(esp))
        if self.esn is not None:
            mac.update(self.esn.to_bytes(4, "big"))
        return mac.finalize()[: self.icv_size]

    def sign(self, pkt, key, **_):
        pkt[ipsec.ESP].data += self._icv(pkt[ipsec.ESP], key)
        return pkt

    def verify(self, pkt, key, **_):
        clone = pkt.copy()
        clone.data = clone.data[: -self.icv_size]
        if self._icv(clone, key) != pkt.data[-self.icv_size :]:
            raise ipsec.IPSecIntegrityError("wrong ICV")


def _short_gcm(icv):
    """AES-GCM with a shorter ICV, through the interface of OpenSSL that has it."""
    return ipsec.CryptAlgo(
        "AES-GCM-%d" % icv,
        cipher=algorithms.AES,
        mode=modes.GCM,
        salt_size=4,
        block_size=1,
        iv_size=8,
        icv_size=icv,
        format_mode_iv=lambda sa, iv, **_: sa.crypt_salt + iv,
    )


for _icv in (8, 12):
    ipsec.CRYPT_ALGOS["AES-GCM-%d" % _icv] = _short_gcm(_icv)

# (name in the crate, ICV bytes, key bytes with salt, integrity key bytes)
GCM = [("gcm", icv, key + 4, 0) for icv in (8, 12, 16) for key in (16, 24, 32)]
CHACHA = [("chacha", 16, 36, 0)]
CBC = [("cbc", icv, key, auth) for icv, auth in ((12, 32), (16, 32), (24, 48), (32, 64)) for key in (16, 24, 32)]
ALGORITHMS = GCM + CHACHA + CBC
HASHES = {32: hashes.SHA256, 48: hashes.SHA384, 64: hashes.SHA512}
# What scapy has under these names itself.
SCAPY_AUTH = {(16, 32): "SHA2-256-128", (24, 48): "SHA2-384-192", (32, 64): "SHA2-512-256"}


class Association:
    """One security association on both sides."""

    def __init__(
        self,
        peer,
        algorithm,
        outbound,
        transport=False,
        nat=False,
        esn=False,
        ends=("192.0.2.1", "192.0.2.2"),
        window=64,
        resume=0,
        spi=SPI,
    ):
        name, icv, key_len, auth_len = algorithm
        key, auth = os.urandom(key_len), os.urandom(auth_len)
        self.sa = peer.ask(
            op="add",
            outbound=outbound,
            spi=spi,
            source=ends[0],
            destination=ends[1],
            algorithm=name,
            icv=icv,
            key=key.hex(),
            auth=auth.hex(),
            esn=esn,
            window=window,
            transport=transport,
            nat=nat,
            resume=resume,
        )
        header = IPv6 if ":" in ends[0] else IP
        options = {"gcm": "AES-GCM" if icv == 16 else "AES-GCM-%d" % icv, "chacha": "CHACHA20-POLY1305", "cbc": "AES-CBC"}
        self.scapy = ipsec.SecurityAssociation(
            ipsec.ESP,
            spi=spi,
            crypt_algo=options[name],
            crypt_key=key,
            crypt_icv_size=icv if name == "gcm" else None,
            auth_algo=SCAPY_AUTH.get((icv, auth_len)) if name == "cbc" else None,
            auth_key=auth if name == "cbc" else None,
            tunnel_header=None if transport else header(src=ends[0], dst=ends[1]),
            nat_t_header=UDP(sport=4500, dport=4500) if nat else None,
            esn_en=esn,
        )
        if name == "cbc" and (esn or icv == 12):
            self.scapy.auth_algo = EsnHmac("ours", HMAC, HASHES[auth_len], icv)
            self.scapy.auth_key = auth
        self.esn = esn
        self.header = header

    def high(self, number):
        """Tells scapy the upper half of a number, which is the caller's there."""
        if isinstance(self.scapy.auth_algo, EsnHmac):
            self.scapy.auth_algo.esn = number >> 32 if self.esn else None
        # `esn or self.esn`: 0 as an argument would be taken for none.
        self.scapy.esn = number >> 32

    def seal(self, packet, number):
        self.high(number)
        self.scapy.seq_num = number & 0xFFFFFFFF
        sent = self.scapy.encrypt(packet)
        if UDP in sent and self.scapy.nat_t_header:
            # scapy 2.5 leaves the length of an empty datagram there.
            sent[UDP].len = len(bytes(sent[UDP]))
        return sent

    def open(self, data, number):
        self.high(number)
        packet = self.header(data)
        if self.scapy.nat_t_header:
            self.check_udp(packet)
            if self.header is IPv6 and not self.scapy.tunnel_header:
                # scapy 2.5 leaves the UDP header in such a packet when it decrypts: without it from the start.
                packet = IPv6(src=packet.src, dst=packet.dst, tc=packet.tc, nh=50) / ipsec.ESP(bytes(packet[UDP].payload))
                packet = IPv6(bytes(packet))
        return self.scapy.decrypt(packet)

    def check_udp(self, packet):
        """Ports and length are right, and so is the checksum where there has to be one."""
        datagram = packet[UDP]
        assert (datagram.sport, datagram.dport, datagram.len) == (4500, 4500, len(bytes(datagram)))
        if self.header is IP:
            assert datagram.chksum == 0
        else:
            again = self.header(bytes(packet))
            del again[UDP].chksum
            assert IPv6(bytes(again))[UDP].chksum == datagram.chksum != 0
