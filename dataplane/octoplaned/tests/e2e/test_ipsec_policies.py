"""Security associations and policies of one's own, with scapy as the peer."""

import hashlib
import json
import stat
import subprocess
import time

import grpc
import pytest
from scapy.layers.inet import IP, UDP

from api import Api
from conftest import Pings
from ipsec_peer import NET, OURS, POD, THEIRS, Peer, add_policies, add_sa, allow_policies, key, pings, reach, wait

REMOTE = "10.9.0.5"


@pytest.fixture
def make(make_lab):
    peers = []

    def it(more="", **kwargs):
        lab = make_lab()
        allow_policies(lab, more)
        lab.start()
        lab.apply()
        for pod in ("pod1", "pod2"):
            reach(lab, pod, "192.0.2.254")
        peer = Peer(lab, **kwargs)
        peers.append(peer)
        return lab, peer

    yield it
    for peer in peers:
        peer.close()


def told(lab, peer):
    return (peer.errors, lab.drops(), lab.json("ipsec", "counters"), lab.json("ipsec", "sa", "list"))


def test_tunnel_both_ways(make):
    lab, peer = make()
    # Nothing is programmed: everything goes as it is.
    lab.ping("pod1", REMOTE, 1)
    wait(lambda: peer.clear)
    add_sa(lab, "outbound", 0x1001)
    add_sa(lab, "inbound", 0x2001)
    add_policies(lab)
    peer.decrypts(0x1001)
    peer.encrypts(0x2001)
    before = len(peer.clear)
    assert pings(lab, "pod1", REMOTE, 5) == 5, told(lab, peer)
    assert peer.spis() == [0x1001] * 5 and not [it for it in peer.clear[before:] if it.dst == REMOTE]
    outer, inner = peer.opened[0]
    assert (outer.src, outer.dst, inner.src, inner.dst) == (OURS, THEIRS, POD, REMOTE)
    # Others are not in the policy.
    lab.ping("pod2", REMOTE, 1)
    assert wait(lambda: [it for it in peer.clear[before:] if it.src == "10.200.0.2"])

    # In the clear, what should have come in ESP is dropped; what no policy is about comes through.
    dropped = lab.drops().get(195, 0)
    peer.send_clear(IP(src=REMOTE, dst=POD) / UDP(sport=1, dport=2) / b"x")
    wait(lambda: lab.drops().get(195, 0) == dropped + 1)
    # A packet that was there already, and one that was changed.
    again = peer.send(IP(src=REMOTE, dst=POD) / UDP(sport=1, dport=2) / b"x")
    peer.send_clear(again)
    changed = bytearray(bytes(again))
    changed[-1] ^= 1
    peer.send_clear(IP(bytes(changed)))
    wait(lambda: sum(lab.json("ipsec", "counters")["inbound"].values()) == 2)

    sas = {sa["spi"]: sa for sa in lab.json("ipsec", "sa", "list")}
    # The pings, and what pod 1 may have said by now to a port that is closed.
    assert sas[0x1001]["packets"] in (5, 6) and sas[0x2001]["packets"] == 6
    assert sas[0x1001]["config"]["reqid"] == 1 and sas[0x1001]["config"]["mode"] == "tunnel"
    policies = lab.json("ipsec", "policy", "list")
    assert [(it["id"], it["direction"], it["action"], it["spi"]) for it in policies] == [
        (1, "outbound", "protect", 0x1001), (2, "inbound", "protect", 0)]
    assert "0x1001" in lab.octoctl("ipsec", "policy", "list").stdout and "live" in lab.octoctl("ipsec", "sa", "list").stdout
    # Keys are nowhere to be seen.
    for secret in (key(0x1001), key(0x2001)):
        for text in (json.dumps(list(sas.values())), lab.log(), lab.octoctl("ipsec", "sa", "list").stdout):
            assert secret[:8].hex() not in text

    lab.octoctl("ipsec", "policy", "del", 1, 2)
    assert lab.json("ipsec", "policy", "list") == []
    before = len(peer.clear)
    lab.ping("pod1", REMOTE, 1)
    wait(lambda: len(peer.clear) > before)
    lab.octoctl("ipsec", "sa", "del", "outbound", "--spi", "0x1001", "--src", OURS, "--dst", THEIRS)
    lab.octoctl("ipsec", "sa", "del", "inbound", "--spi", "0x2001", "--src", THEIRS, "--dst", OURS)
    assert lab.json("ipsec", "sa", "list") == []
    assert lab.stop() == 0


@pytest.mark.parametrize("nat", [False, True], ids=["ip", "udp"])
def test_transport(make, nat):
    lab, peer = make(transport=True, nat=nat)
    more = ["--mode", "transport"] + (["--nat-traversal", "4500:4500"] if nat else [])
    add_sa(lab, "outbound", 0x1001, *more, src=POD, dst=REMOTE)
    add_sa(lab, "inbound", 0x2001, *more, src=REMOTE, dst=POD)
    add_policies(lab, 1, POD, REMOTE)
    peer.decrypts(0x1001)
    peer.encrypts(0x2001)
    assert pings(lab, "pod1", REMOTE, 3) == 3, told(lab, peer)
    outer, _ = peer.opened[0]
    assert (outer.src, outer.dst, outer.proto) == (POD, REMOTE, 17 if nat else 50)
    # It is for its own ends, and nobody else's.
    lab.octoctl("ipsec", "policy", "add", "1", "outbound", "protect", "--reqid", 1, "--src", "10.200.0.0/16", "--dst", NET)
    lab.ping("pod1", "10.9.0.6", 1)
    assert lab.drops()[1007] >= 1


def test_nat_traversal_in_tunnel_mode(make):
    lab, peer = make(nat=True)
    add_sa(lab, "outbound", 0x1001, "--nat-traversal", "4500:4500", "--esn")
    add_sa(lab, "inbound", 0x2001, "--nat-traversal", "4500:4500", "--esn")
    add_policies(lab)
    peer.decrypts(0x1001, esn_en=True)
    peer.encrypts(0x2001, esn_en=True)
    assert pings(lab, "pod1", REMOTE, 3) == 3, told(lab, peer)
    outer, _ = peer.opened[0]
    assert outer.proto == 17 and (outer[UDP].sport, outer[UDP].dport) == (4500, 4500)
    # IKE, on the same port, is nobody's here.
    before = lab.json("ipsec", "counters")["inbound"]
    peer.send_clear(IP(src=THEIRS, dst=OURS) / UDP(sport=4500, dport=4500) / (b"\0" * 4 + b"ike"))
    time.sleep(0.2)
    assert lab.json("ipsec", "counters")["inbound"] == before


ALGORITHMS = [
    ("aes-192-gcm-16", 28, 0, {"crypt_algo": "AES-GCM"}),
    ("aes-256-gcm-16", 36, 0, {"crypt_algo": "AES-GCM"}),
    ("chacha20-poly1305", 36, 0, {"crypt_algo": "CHACHA20-POLY1305"}),
    ("aes-128-cbc-hmac-sha256-128", 16, 32, {"crypt_algo": "AES-CBC", "auth_algo": "SHA2-256-128"}),
    ("aes-256-cbc-hmac-sha512-256", 32, 64, {"crypt_algo": "AES-CBC", "auth_algo": "SHA2-512-256"}),
]


def test_algorithms(make):
    """From one to the next as if it were new keys."""
    lab, peer = make()
    bits = lambda name, count: (hashlib.sha512(name.encode()).digest() * 2)[:count]
    for number, (algorithm, cipher, auth, scapy) in enumerate(ALGORITHMS):
        for direction, spi in (("inbound", 0x2000 + number), ("outbound", 0x1000 + number)):
            words = [bits(f"{direction}{algorithm}", cipher), bits(f"{direction}{algorithm}auth", auth)]
            ends = (OURS, THEIRS) if direction == "outbound" else (THEIRS, OURS)
            lab.octoctl("ipsec", "sa", "add", direction, "--spi", spi, "--src", ends[0], "--dst", ends[1], "--reqid", 1,
                        "--algorithm", algorithm, "--key-file", "-", input=" ".join(word.hex() for word in words))
            more = {**scapy, "auth_key": words[1]} if auth else scapy
            know = peer.encrypts if direction == "inbound" else peer.decrypts
            know(spi, words[0], **more)
        if number == 0:
            add_policies(lab)
            reach(lab, "pod1", REMOTE)
        assert pings(lab, "pod1", REMOTE) == 3, (algorithm, told(lab, peer))
        assert peer.spis()[-1] == 0x1000 + number
    assert not lab.json("ipsec", "counters")["inbound"]


def test_rekey_loses_nothing(make):
    lab, peer = make()
    add_sa(lab, "outbound", 0x1001)
    add_sa(lab, "inbound", 0x2001)
    add_policies(lab)
    for spi in (0x1001, 0x1002):
        peer.decrypts(spi)
    peer.encrypts(0x2001)
    # One after the other: the peer is no fast one.
    going = Pings(lab, "pod1", REMOTE, "-A", "-w", "120")
    wait(lambda: len(peer.opened) > 50)
    # The new ones are there before the old ones go: whoever sends with either is understood.
    add_sa(lab, "inbound", 0x2002)
    peer.encrypts(0x2002)
    add_sa(lab, "outbound", 0x1002)
    assert [it["spi"] for it in lab.json("ipsec", "policy", "list")] == [0x1002, 0]
    old = peer.association(0x2001, src=THEIRS, dst=OURS)
    old.seq_num = 10_000
    peer.send(IP(src=REMOTE, dst=POD) / UDP(sport=1, dport=2) / b"x", old)
    wait(lambda: peer.spis()[-1] == 0x1002)
    lab.octoctl("ipsec", "sa", "del", "inbound", "--spi", "0x2001", "--src", THEIRS, "--dst", OURS)
    lab.octoctl("ipsec", "sa", "del", "outbound", "--spi", "0x1001", "--src", OURS, "--dst", THEIRS)
    wait(lambda: peer.spis().count(0x1002) >= 50)
    count, missing = going.stop()
    assert count >= 100 and not missing, (count, missing, told(lab, peer))
    spis = peer.spis()
    assert spis == sorted(spis) and set(spis) == {0x1001, 0x1002}
    # The last one stays as long as a policy wants it.
    result = lab.octoctl("ipsec", "sa", "del", "outbound", "--spi", "0x1002", "--src", OURS, "--dst", THEIRS, check=False)
    assert result.returncode != 0 and "which policy 1 names" in result.stderr


@pytest.mark.timeout(900)
def test_numbers_run_out_before_a_restart(make):
    """RFC 4303, section 3.3.3: a number is not used twice, so there are no more when 32 bits are used up."""
    lab, peer = make()
    add_sa(lab, "outbound", 0x1001)
    add_sa(lab, "inbound", 0x2001)
    add_policies(lab)
    peer.decrypts(0x1001)
    peer.encrypts(0x2001)
    reach(lab, "pod1", REMOTE)
    assert lab.stop() == 0
    # As if it had gone on for a long time.
    used = lab.directory / "ipsec" / "sequence"
    lines = used.read_text().splitlines(keepends=True)
    (mine,) = [line for line in lines if " out " in line]
    used.write_text("".join(lines).replace(mine, mine.rsplit(" ", 1)[0] + f" {2**32 - 2}\n"))
    before = len(peer.opened)
    lab.start()
    lab.apply()
    wait(lambda: pings(lab, "pod1", REMOTE, 1) == 0, text=lambda: told(lab, peer))
    assert peer.numbers(0x1001)[before:] == [2**32 - 2, 2**32 - 1], told(lab, peer)

    # Nothing but that one is missing after another restart, and the peer hears no more of it.
    before = len(peer.opened)
    assert lab.stop() == 0
    lab.start()
    lab.apply()
    sas = {sa["spi"]: sa for sa in lab.json("ipsec", "sa", "list")}
    assert set(sas) == {0x1001, 0x2001} and len(lab.json("ipsec", "policy", "list")) == 2
    dropped = lab.drops().get(1008, 0)
    assert pings(lab, "pod1", REMOTE, 2) == 0
    assert lab.drops()[1008] == dropped + 2 and len(peer.opened) == before, told(lab, peer)
    peer.decrypts(0x1002)
    add_sa(lab, "outbound", 0x1002)
    assert pings(lab, "pod1", REMOTE, 3) == 3, told(lab, peer)
    assert peer.spis()[before:] == [0x1002] * 3


def test_explanations_ask_policies(make):
    lab, peer = make()

    def explain(*more, start=POD, to=REMOTE):
        it = lab.json("explain", "--from", start, "--to", to, "--protocol", "icmp", *more)
        return it["answer"], [step["text"] for step in it["steps"] if step["stage"] == "encryption"]

    answer, said = explain()
    assert (answer["outcome"], answer.get("encrypted", False), said) == ("sent", False, [])
    add_sa(lab, "outbound", 0x1001)
    add_sa(lab, "inbound", 0x2001)
    add_policies(lab)
    peer.decrypts(0x1001)
    peer.encrypts(0x2001)
    answer, said = explain()
    assert (answer["outcome"], answer["encrypted"], answer["node"]) == ("sent", True, THEIRS), answer
    assert len(said) == 1 and "policy 1" in said[0] and "0x1001" in said[0], said
    assert pings(lab, "pod1", REMOTE, 1) == 1 and peer.spis() == [0x1001]
    # Others are not in the policy; what comes in has to come by the other security association.
    answer, said = explain(start="10.200.0.2")
    assert (answer["outcome"], answer.get("encrypted", False), said) == ("sent", False, [])
    answer, said = explain(start=REMOTE, to=POD)
    assert answer["outcome"] == "delivered" and len(said) == 1 and "policy 2" in said[0], (answer, said)

    # What transport mode is not for (only its own ends), and not at all: as the data plane does it.
    add_sa(lab, "outbound", 0x1003, "--mode", "transport", src=POD, dst=REMOTE, reqid=7)
    for action, code in [(("protect", "--reqid", 7), 1007), (("discard",), 1010)]:
        lab.octoctl("ipsec", "policy", "add", "1", "outbound", *action, "--src", POD, "--dst", NET)
        answer, said = explain(to="10.9.0.6")
        assert (answer["outcome"], answer["code"]) == ("dropped", code) and len(said) == 1, (answer, said)
        before = lab.drops().get(code, 0)
        lab.ping("pod1", "10.9.0.6", 1)
        wait(lambda: lab.drops().get(code, 0) == before + 1, text=lambda: told(lab, peer))
    lab.octoctl("ipsec", "policy", "add", "2", "inbound", "discard", "--src", NET, "--dst", POD)
    answer, said = explain(start=REMOTE, to=POD)
    assert (answer["outcome"], answer["code"]) == ("dropped", 1010) and "policy 2" in said[0], (answer, said)


def test_limits_are_told_and_kept(make):
    lab, peer = make()
    add_sa(lab, "outbound", 0x1001, "--soft-packets", 5, "--hard-packets", 8)
    add_sa(lab, "inbound", 0x2001, "--soft-seconds", 1)
    add_policies(lab)
    peer.decrypts(0x1001)
    peer.encrypts(0x2001)
    events = lab.octoctl_spawn("-o", "json", "ipsec", "events", stdout=subprocess.PIPE, text=True)
    assert pings(lab, "pod1", REMOTE, 6) == 6
    found = [json.loads(events.stdout.readline()) for _ in range(2)]
    assert {(it["kind"], it["limit"], it["sa"]["spi"], it["reqid"]) for it in found} == {
        ("soft", "packets", 0x1001, 1), ("soft", "time", 0x2001, 1)}
    states = {sa["spi"]: sa["state"] for sa in lab.json("ipsec", "sa", "list")}
    assert states == {0x1001: "rekey", 0x2001: "rekey"}
    # Exactly as many as may be.
    assert pings(lab, "pod1", REMOTE, 4) == 2
    it = json.loads(events.stdout.readline())
    assert (it["kind"], it["limit"], it["sa"]["spi"]) == ("hard", "packets", 0x1001)
    assert len(peer.opened) == 8 and lab.drops()[1008] == 2
    assert {sa["spi"]: sa["state"] for sa in lab.json("ipsec", "sa", "list")}[0x1001] == "expired"
    # Who asks later hears it, too, and from where on they like.
    client = Api(lab.socket)
    later = next(iter(client.call_StreamIpsecEvents(client.StreamIpsecEventsRequest(after=2), timeout=5)))
    assert [(event.number, event.kind) for event in later.events] == [(3, "hard")]
    client.close()
    # A new one helps.
    peer.decrypts(0x1002)
    add_sa(lab, "outbound", 0x1002)
    assert pings(lab, "pod1", REMOTE) == 3
    # The stream does not hold up the end.
    assert lab.stop() == 0
    events.wait(5)


@pytest.mark.parametrize("too_big", ["icmp", "fragment"])
def test_what_is_too_large(make, too_big):
    lab, peer = make(f'too_big = "{too_big}"')
    add_sa(lab, "outbound", 0x1001)
    add_sa(lab, "inbound", 0x2001)
    add_policies(lab)
    peer.decrypts(0x1001)
    peer.encrypts(0x2001)
    reach(lab, "pod1", REMOTE)
    # 1500 less 20 of IPv4, 8 of ESP, 8 of IV, 16 of ICV, down to a multiple of 4, less 2 of trailer.
    room = (1500 - 20 - 8 - 8 - 16) // 4 * 4 - 2
    assert lab.ping("pod1", REMOTE, 1, "-M", "do", "-s", room - 28) == 1, told(lab, peer)
    assert max(len(bytes(outer)) for outer, _ in peer.opened) == 1500
    # With "don't fragment", the sender is told.
    result = lab.inside("pod1", "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", room - 27, REMOTE, check=False)
    said = result.stdout + result.stderr
    assert f"mtu = {room}" in said or f"mtu={room}" in said, (said, told(lab, peer))
    lab.inside("pod1", "ip", "route", "flush", "cache")
    lab.inside("pod1", "sysctl", "-qw", "net.ipv4.ip_no_pmtu_disc=1")
    # Without, it depends.
    del peer.opened[:]
    result = lab.inside("pod1", "ping", "-n", "-c", "1", "-W", "1", "-M", "dont", "-s", 1472, REMOTE, check=False)
    if too_big == "icmp":
        assert not peer.opened and "too long" in result.stdout + result.stderr or "mtu" in result.stdout + result.stderr
        return
    pieces = [inner for _, inner in peer.opened]
    assert len(pieces) == 2 and pieces[0].flags.MF and not pieces[1].flags.MF
    assert all(len(bytes(it)) <= room for it in pieces) and pieces[0].frag == 0
    assert sum(it.len - 20 for it in pieces) == 1480
    assert b"".join(bytes(it)[20:] for it in pieces)[8 + 16:] == bytes(n & 0xFF for n in range(16, 1472))


def test_what_is_too_large_of_ipv6(make):
    lab, peer = make('too_big = "fragment"')
    add_sa(lab, "outbound", 0x1001)
    add_sa(lab, "inbound", 0x2001)
    add_policies(lab, 1, "fd00:200::1/128", "fd00:9::/64")
    peer.decrypts(0x1001)
    peer.encrypts(0x2001)
    reach(lab, "pod1", "fd00:9::5")
    room = (1500 - 20 - 8 - 8 - 16) // 4 * 4 - 2
    result = lab.inside("pod1", "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", room - 47, "fd00:9::5", check=False)
    said = result.stdout + result.stderr
    # Routers do not fragment.
    assert f"mtu = {room}" in said or f"mtu={room}" in said, (said, told(lab, peer))
    assert lab.ping("pod1", "fd00:9::5", 1, "-M", "do", "-s", room - 48) == 1


def test_everything_is_there_after_a_restart(make):
    lab, peer = make()
    add_sa(lab, "outbound", 0x1001, "--hard-packets", 20)
    add_sa(lab, "inbound", 0x2001)
    add_policies(lab)
    peer.decrypts(0x1001)
    peer.encrypts(0x2001)
    reach(lab, "pod1", REMOTE)
    programmed = lab.directory / "ipsec" / "programmed"
    assert stat.S_IMODE(programmed.stat().st_mode) == 0o600
    assert stat.S_IMODE(programmed.parent.stat().st_mode) == 0o700
    policies = lab.json("ipsec", "policy", "list")
    prints = {sa["spi"]: sa["fingerprint"] for sa in lab.json("ipsec", "sa", "list")}
    replayed = peer.send(IP(src=REMOTE, dst=POD) / UDP(sport=1, dport=2) / b"x")
    for ordered in (True, False):
        used = {sa["spi"]: sa["packets"] for sa in lab.json("ipsec", "sa", "list")}
        if ordered:
            assert lab.stop() == 0
        else:
            lab.daemon.kill()
            lab.daemon.wait(10)
        lab.start()
        lab.apply()
        assert lab.json("ipsec", "policy", "list") == policies
        sas = lab.json("ipsec", "sa", "list")
        assert {sa["spi"]: sa["fingerprint"] for sa in sas} == prints
        # What was used before an orderly end counts.
        if ordered:
            assert next(sa["packets"] for sa in sas if sa["spi"] == 0x1001) >= used[0x1001] > 0, (used, sas)
        reach(lab, "pod1", REMOTE)
        assert pings(lab, "pod1", REMOTE, 2) == 2, told(lab, peer)
        if ordered:
            # What was accepted before is not accepted again.
            peer.send_clear(replayed)
            wait(lambda: [it for it in lab.json("ipsec", "counters")["inbound"] if it.startswith("replay")],
                 text=lambda: told(lab, peer))
    # No number was used twice, whichever way the daemon ended.
    numbers = peer.numbers(0x1001)
    assert len(numbers) == len(set(numbers)) and numbers == sorted(numbers), numbers
    # The one with the same keys would use numbers again under another name: refused.
    result = add_sa(lab, "outbound", 0x1005, secret=key(0x1001), check=False)
    assert result.returncode != 0 and "nonces would be used twice" in result.stderr, result.stderr


def test_strict_prefixes(make):
    lab, peer = make('strict_cidrs = ["10.0.0.0/8"]')
    # In the clear, nothing goes from one to the other; what has another end may.
    before = lab.drops().get(195, 0)
    assert pings(lab, "pod1", REMOTE, 2) == 0
    assert lab.drops()[195] == before + 2 and not [it for it in peer.clear if it.dst == REMOTE]
    lab.ping("pod1", "198.51.100.77", 1)
    wait(lambda: [it for it in peer.clear if it.dst == "198.51.100.77"])
    # Encrypted it goes.
    add_sa(lab, "outbound", 0x1001)
    add_sa(lab, "inbound", 0x2001)
    add_policies(lab)
    peer.decrypts(0x1001)
    peer.encrypts(0x2001)
    assert pings(lab, "pod1", REMOTE) == 3, told(lab, peer)
    assert not [it for it in peer.clear if it.dst == REMOTE]
    # Other nodes do not without being asked for.
    node = [{"prefix": "10.9.1.0/24", "identity": 6}]
    lab.apply({**lab.state, "ipcache": node})
    assert lab.ping("pod2", "10.9.1.1", 1) == 0 and not [it for it in peer.clear if it.dst == "10.9.1.1"]


MISTAKES = [
    ({"spi": 5}, "sas[0].spi: 5 is reserved, expected 256 to 4294967295"),
    ({"direction": "up"}, 'sas[0].direction: "up", expected "outbound", "inbound"'),
    ({"source": ""}, 'sas[0].source: "" is no unicast address'),
    ({"destination": "224.0.0.1"}, 'sas[0].destination: "224.0.0.1" is no unicast address'),
    ({"destination": "2001:db8::9"}, "sas[0].source: 192.0.2.1 is of another family than the destination, 2001:db8::9"),
    ({"mode": "beet"}, 'sas[0].mode: "beet", expected "tunnel", "transport"'),
    ({"algorithm": "rot13"}, 'sas[0].algorithm: "rot13", expected one of aes-128-gcm-8'),
    ({"key": b"x" * 19}, "sas[0].key: 19 bytes, expected 20 for aes-128-gcm-16: 16 of the key and 4 of the salt"),
    ({"algorithm": "aes-128-cbc-hmac-sha256-128", "key": b"x" * 16, "auth_key": b"x"},
     "sas[0].auth_key: 1 bytes, expected 32 for aes-128-cbc-hmac-sha256-128"),
    ({"replay_window": 4097}, "sas[0].replay_window: 4097, expected 0 to 4096"),
    ({"nat_traversal": {"source_port": 4500}}, "sas[0].nat_traversal.destination_port: 0, expected 1 to 65535"),
    ({"outer": {"dscp": 64}}, "sas[0].outer.dscp: 64, expected 0 to 63"),
    ({"outer": {"hop_limit": 1}}, "sas[0].outer.hop_limit: 1, expected 2 to 255"),
    ({"outer": {"dont_fragment": "maybe"}}, 'sas[0].outer.dont_fragment: "maybe", expected "copy", "set", "clear"'),
    ({"lifetime": {"soft_bytes": 2, "hard_bytes": 1}}, "sas[0].lifetime.soft_bytes: 2 is above hard_bytes, 1"),
    ({"inner": [{"source": "10.0.0.0/8", "destination": "::/0"}]},
     "sas[0].inner[0].destination: ::/0 is of another family than the source, 10.0.0.0/8"),
    ({"reqid": 0}, "sas[0].reqid: 0, expected 1 to 262143"),
    ({"mark": {"value": 2, "mask": 1}}, "sas[0].mark.value: 0x2 has bits outside of the mask 0x1"),
]
POLICY_MISTAKES = [
    ({"source": "", "destination": ""}, "policies[0].source: missing, as is the destination"),
    ({"source": "10.0.0.1/8"}, 'policies[0].source: "10.0.0.1/8": '),
    ({"source": "::/0"}, "policies[0].destination: 10.9.0.0/16 is of another family than the source, ::/0"),
    ({"protocol": 256}, "policies[0].protocol: 256, expected 0 to 255"),
    ({"source_ports": {"first": 2, "last": 1}, "protocol": 6}, "policies[0].source_ports.first: 2, expected 0 to 1"),
    ({"source_ports": {"first": 1, "last": 1}}, "policies[0].source_ports: ports without a protocol that has some"),
    ({"action": "allow"}, 'policies[0].action: "allow", expected "bypass", "discard", "protect"'),
    ({"action": "bypass"}, "policies[0].reqid: 1, but the policy does not protect"),
    ({"reqid": 7}, "policies[0].reqid: 7 is that of no outbound security association"),
    ({"direction": "inbound"}, "policies[0].reqid: 1 is that of no inbound security association"),
]


def test_mistakes_and_transactions(make_lab):
    lab = make_lab()
    allow_policies(lab)
    lab.start()
    client = Api(lab.socket)
    good = {"direction": "outbound", "spi": 0x1001, "source": OURS, "destination": THEIRS, "algorithm": "aes-128-gcm-16",
            "key": key(0x1001), "reqid": 1}
    policy = {"id": 1, "direction": "outbound", "destination": NET, "action": "protect", "reqid": 1}

    def program(**kwargs):
        return client.call_ProgramIpsec(client.ProgramIpsecRequest(**kwargs), timeout=10)

    def refused(code=grpc.StatusCode.INVALID_ARGUMENT, **kwargs):
        with pytest.raises(grpc.RpcError) as error:
            program(**kwargs)
        assert error.value.code() == code, error.value
        return error.value.details()

    for change, text in MISTAKES:
        said = refused(sas=[{**good, **change}], policies=[policy])
        assert said.startswith(text), (said, text)
    for change, text in POLICY_MISTAKES:
        said = refused(sas=[good], policies=[{**policy, **change}])
        assert said.startswith(text), (said, text)
    said = refused(sas=[good, good])
    assert said.startswith("sas[1]: ") and said.endswith("is in sas[0], too"), said
    said = refused(sas=[good], policies=[policy, policy])
    assert said == "policies[1].id: 1 is that of policies[0], too", said
    said = refused(sas=[good, {**good, "spi": 0x1002}])
    assert said.startswith("sas[1]: ") and "nonces would be used twice" in said, said
    # Nothing of any of this is there.
    assert lab.json("ipsec", "sa", "list") == [] and lab.json("ipsec", "policy", "list") == []

    first = program(sas=[good], policies=[policy]).revision
    # All of it or nothing: the first part would be right.
    name = {key: good[key] for key in ("direction", "spi", "source", "destination")}
    said = refused(policies=[{**policy, "id": 2, "action": "bypass", "reqid": 0}], remove_sas=[name])
    assert said.startswith("remove_sas[0]: ") and "which policy 1 names" in said, said
    assert [it["id"] for it in lab.json("ipsec", "policy", "list")] == [1]
    # Once more the same: nothing happens to sequence numbers. Then everything goes that is not named.
    program(sas=[good], policies=[policy])
    second = {**good, "spi": 0x1002, "key": key(0x1002), "reqid": 2}
    assert program(sas=[second], policies=[{**policy, "reqid": 2}], replace_all=True).revision > first
    assert [(sa["spi"], sa["sequence"]) for sa in lab.json("ipsec", "sa", "list")] == [(0x1002, 1)]
    program(replace_all=True)
    assert lab.json("ipsec", "sa", "list") == [] and lab.json("ipsec", "policy", "list") == []
    client.close()
    # Neither lists nor logs have what was sent.
    assert good["key"][:8].hex() not in lab.log() and repr(good["key"])[2:20] not in lab.log()


def test_without_leave(lab):
    # The service is not there at all.
    result = add_sa(lab, "outbound", 0x1001, check=False)
    assert result.returncode != 0


def test_many_policies_cost_what_one_does(make):
    """10,000 security associations and policies: each packet finds its own."""
    lab, peer = make()
    client = Api(lab.socket)
    many = range(10_000)
    ends = lambda n: f"10.{100 + n // 65536}.{n // 256 % 256}.{n % 256}"
    secret = lambda n: n.to_bytes(4, "big") + bytes(16)
    client.call_ProgramIpsec(client.ProgramIpsecRequest(
        sas=[{"direction": "outbound", "spi": 0x10000 + n, "source": OURS, "destination": THEIRS, "reqid": 1 + n,
              "algorithm": "aes-128-gcm-16", "key": secret(n)} for n in many],
        policies=[{"id": n, "direction": "outbound", "destination": ends(n) + "/32", "action": "protect", "reqid": 1 + n}
                  for n in many]), timeout=120)
    client.close()
    for n in (0, 4711, 9999):
        peer.decrypts(0x10000 + n, secret(n))
        lab.ping("pod1", ends(n), 1, "-W", "1")
        wait(lambda: peer.spis()[-1:] == [0x10000 + n], text=lambda: told(lab, peer)[:2])
