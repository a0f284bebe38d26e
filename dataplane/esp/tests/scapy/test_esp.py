"""scapy encrypts and the crate decrypts, and the other way round: every algorithm and mode that both have."""

import itertools

import pytest
from conftest import ALGORITHMS, CBC, CHACHA, GCM, Association
from scapy.layers import ipsec
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, PadN
from scapy.packet import Raw

V4 = ("192.0.2.1", "192.0.2.2")
V6 = ("2001:db8::1", "2001:db8::2")


def pods(length=40):
    """Packets of pods, of both families."""
    data = Raw(bytes(index & 0xFF for index in range(length)))
    return [
        IP(bytes(IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB8) / UDP(sport=1, dport=2) / data)),
        IP(bytes(IP(src="10.0.0.1", dst="10.0.0.2", flags="DF") / TCP(sport=1, dport=2) / data)),
        IPv6(bytes(IPv6(src="fd00::1", dst="fd00::2", tc=0x2E) / UDP(sport=1, dport=2) / data)),
        IP(bytes(IP(src="10.0.0.1", dst="10.0.0.2") / ICMP() / data)),
    ]


def between(ends, length=40):
    """Packets of the nodes themselves, for transport mode."""
    header = IPv6 if ":" in ends[0] else IP
    data = Raw(bytes(length))
    return [
        header(bytes(header(src=ends[0], dst=ends[1]) / UDP(sport=1, dport=2) / data)),
        header(bytes(header(src=ends[0], dst=ends[1]) / TCP(sport=1, dport=2) / data)),
    ]


SETUPS = [
    pytest.param(algorithm, ends, transport, nat, esn, id="-".join(
        [algorithm[0], str(algorithm[2] * 8), "icv%d" % algorithm[1], "v6" if ends is V6 else "v4",
         "transport" if transport else "tunnel"] + ["nat"] * nat + ["esn"] * esn))
    for algorithm, ends, transport, nat, esn in itertools.product(
        ALGORITHMS, (V4, V6), (False, True), (False, True), (False, True))
]


@pytest.mark.parametrize("algorithm,ends,transport,nat,esn", SETUPS)
def test_we_encrypt(peer, algorithm, ends, transport, nat, esn):
    association = Association(peer, algorithm, True, transport, nat, esn, ends)
    packets = between(ends) if transport else pods()
    for number, (packet, sent) in enumerate(zip(packets, peer.encrypt(association.sa, packets)), 1):
        assert bytes(association.open(sent, number)) == bytes(packet)


@pytest.mark.parametrize("algorithm,ends,transport,nat,esn", SETUPS)
def test_scapy_encrypts(peer, algorithm, ends, transport, nat, esn):
    association = Association(peer, algorithm, False, transport, nat, esn, ends)
    packets = between(ends) if transport else pods()
    sent = [association.seal(packet, number) for number, packet in enumerate(packets, 1)]
    assert peer.decrypt(sent) == [bytes(packet) for packet in packets]
    assert peer.decrypt(sent) == ["replay_duplicate"] * len(sent)


@pytest.mark.parametrize("algorithm", [GCM[0], GCM[6], GCM[8], CHACHA[0], CBC[0], CBC[11]], ids=str)
def test_every_length_of_padding(peer, algorithm):
    out, inbound = peer, type(peer)()
    ours, theirs = Association(out, algorithm, True), Association(inbound, algorithm, False)
    packets = [pods(length)[length % 4] for length in range(36)]
    for number, (packet, sent) in enumerate(zip(packets, out.encrypt(ours.sa, packets)), 1):
        assert bytes(ours.open(sent, number)) == bytes(packet)
    sent = [theirs.seal(packet, number) for number, packet in enumerate(packets, 1)]
    assert inbound.decrypt(sent) == [bytes(packet) for packet in packets]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
def test_numbers_across_the_turn(peer, algorithm):
    """Numbers of 64 bits, shortly before and after the lower half starts again."""
    start = (7 << 32) - 3
    packets = pods() * 2
    ours = Association(peer, algorithm, True, esn=True, resume=start)
    for number, (packet, sent) in enumerate(zip(packets, peer.encrypt(ours.sa, packets)), start):
        assert bytes(ours.open(sent, number)) == bytes(packet)
        with pytest.raises(ipsec.IPSecIntegrityError):
            ours.open(sent, number + (1 << 32))
    inbound = type(peer)()
    theirs = Association(inbound, algorithm, False, esn=True, resume=start - 1)
    sent = [theirs.seal(packet, number) for number, packet in enumerate(packets, start)]
    # Out of order, to both sides of the turn.
    order = [6, 0, 5, 2, 1, 7, 3, 4]
    assert inbound.decrypt(sent[index] for index in order) == [bytes(packets[index]) for index in order]
    assert inbound.decrypt(sent) == ["replay_duplicate"] * len(sent)


@pytest.mark.parametrize("algorithm", [GCM[8], CHACHA[0], CBC[5]], ids=str)
@pytest.mark.parametrize("esn", [False, True])
def test_replay_window(peer, algorithm, esn):
    association = Association(peer, algorithm, False, esn=esn, window=32)
    packet = pods()[0]

    def arrives(number):
        [result] = peer.decrypt([association.seal(packet, number)])
        return "ok" if result == bytes(packet) else result

    assert arrives(100) == "ok"
    assert arrives(100) == "replay_duplicate"
    assert arrives(69) == "ok"
    # Behind the window. With ESN it is taken for a number of the next round, and the ICV is wrong.
    behind = "auth" if esn else "replay_old"
    assert arrives(68) == behind
    assert arrives(200) == "ok"
    assert arrives(169) == "ok"
    assert arrives(168) == behind
    assert peer.counters()["replay_duplicate"] == 1


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
def test_wrong_icv(peer, algorithm):
    association = Association(peer, algorithm, False)
    packet = pods()[0]
    good = bytes(association.seal(packet, 1))
    for at in (27, 30, 50, len(good) - algorithm[1], len(good) - 1):
        wrong = bytearray(good)
        wrong[at] ^= 0x40
        assert peer.decrypt([wrong]) == ["auth"]
    assert peer.counters()["auth"] == 5
    assert peer.decrypt([good]) == [bytes(packet)]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
def test_scapy_finds_our_wrong_icv(peer, algorithm):
    association = Association(peer, algorithm, True)
    [sent] = peer.encrypt(association.sa, pods()[:1])
    association.open(sent, 1)
    wrong = bytearray(sent)
    wrong[-1] ^= 1
    with pytest.raises(ipsec.IPSecIntegrityError):
        association.open(bytes(wrong), 1)


def test_wrong_spi_and_ends(peer):
    association = Association(peer, GCM[6], False)
    other = Association(type(peer)(), GCM[6], False, spi=0x1234ABCE)
    packet = pods()[0]
    assert peer.decrypt([other.seal(packet, 1)]) == ["unknown_spi"]
    good = association.seal(packet, 1)
    for field, value in (("src", "192.0.2.3"), ("dst", "192.0.2.3")):
        wrong = good.copy()
        setattr(wrong, field, value)
        del wrong.chksum
        assert peer.decrypt([IP(bytes(wrong))]) == ["unknown_spi"]
    assert peer.decrypt([good]) == [bytes(packet)]
    assert peer.counters()["unknown_spi"] == 3


@pytest.mark.parametrize("algorithm", [GCM[0], GCM[8], CHACHA[0], CBC[11]], ids=str)
def test_truncated(peer, algorithm):
    association = Association(peer, algorithm, False)
    packet = pods()[0]
    good = association.seal(packet, 1)
    data = bytes(good)
    for length in range(20, len(data)):
        cut = IP(data[:length])
        cut.len = length
        del cut.chksum
        [cause] = peer.decrypt([bytes(cut)])
        assert cause in ("too_short", "malformed", "auth"), length
    assert peer.decrypt([data]) == [bytes(packet)]


def test_extension_headers_in_transport_mode(peer):
    """Hop-by-hop options stay outside on both sides. Where destination options go, implementations differ: read either."""
    ours = Association(peer, GCM[6], True, transport=True, ends=V6)
    base = IPv6(src=V6[0], dst=V6[1])
    packet = IPv6(bytes(base / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / UDP(sport=1, dport=2) / Raw(b"x" * 9)))
    [sent] = peer.encrypt(ours.sa, [packet])
    assert bytes(ours.open(sent, 1)) == bytes(packet)
    inbound = type(peer)()
    theirs = Association(inbound, GCM[6], False, transport=True, ends=V6)
    options = IPv6(bytes(base / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]) / UDP(sport=1, dport=2) / Raw(b"x" * 9)))
    assert inbound.decrypt([theirs.seal(packet, 1), theirs.seal(options, 2)]) == [bytes(packet), bytes(options)]


def test_jumbo_and_tiny(peer):
    ours = Association(peer, GCM[6], True)
    packets = [IP(bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=253) / Raw(bytes(length)))) for length in (0, 1, 1404, 8900)]
    for number, (packet, sent) in enumerate(zip(packets, peer.encrypt(ours.sa, packets)), 1):
        assert bytes(ours.open(sent, number)) == bytes(packet)
