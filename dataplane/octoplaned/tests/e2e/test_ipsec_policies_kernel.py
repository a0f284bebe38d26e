"""A Linux kernel at the other end of security associations and policies of one's own: user-mode-linux with `ip xfrm`."""

import pytest

from conftest import Lab, Pings, answered, ping_command, wait
from ipsec_peer import POD, add_policies, add_sa, allow_policies, key, reach
from test_ipsec_kernel import Kernel, pytestmark  # noqa: F401: the same is needed
from test_services import get, serve

OURS, THEIRS, REMOTE, NET = "192.0.2.1", "192.0.2.254", "10.9.0.5", "10.9.0.0/16"

ENCAP = ("import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
         "s.setsockopt(socket.IPPROTO_UDP, 100, 2); s.bind(('', 4500)); time.sleep(1000)")


@pytest.fixture
def nodes(tmp_path):
    made = []

    def make(more=""):
        lab = Lab.__new__(Lab)
        lab.processes, lab.namespaces = [], []
        made.append((lab, None))
        lab.__init__(tmp_path)
        allow_policies(lab, more)
        lab.patient()
        lab.start()
        kernel = Kernel(lab, "router")
        made[0] = (lab, kernel)
        kernel.do(f"ip link set vec0 address 02:00:00:00:00:fe mtu 1500 up; ip address add {THEIRS}/24 dev vec0; "
                  f"ip link set lo up; ip address add {REMOTE}/32 dev lo; "
                  f"ip route add {POD}/32 via {OURS} dev vec0 src {REMOTE}")
        lab.apply()
        return lab, kernel

    yield make
    for lab, kernel in made:
        if kernel:
            kernel.close()
        lab.close()


def xfrm_sa(kernel, spi, src, dst, more="", algorithm="gcm"):
    crypto = f"aead 'rfc4106(gcm(aes))' 0x{key(spi).hex()} 128"
    kernel.do(f"ip xfrm state add src {src} dst {dst} proto esp spi {spi} reqid 7 mode tunnel replay-window 128 flag esn "
              f"{more} {crypto}")


def xfrm_policies(kernel, out):
    for direction, src, dst, ends, spi in (("out", NET, POD + "/32", (THEIRS, OURS), f"spi {out}"),
                                           ("in", POD + "/32", NET, (OURS, THEIRS), "")):
        kernel.do(f"ip xfrm policy update src {src} dst {dst} dir {direction} "
                  f"tmpl src {ends[0]} dst {ends[1]} proto esp {spi} reqid 7 mode tunnel")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("nat", [False, True], ids=["ip", "udp"])
def test_tunnel_with_a_kernel(nodes, nat):
    lab, kernel = nodes()
    more = ["--esn"] + (["--nat-traversal", "4500:4500"] if nat else [])
    encap = "encap espinudp 4500 4500 0.0.0.0" if nat else ""
    if nat:
        kernel.do(f'/usr/bin/python3 -c "{ENCAP}" >/dev/null 2>&1 &')
        kernel.do("for try in $(seq 50); do grep -q :1194 /proc/net/udp && break; sleep 0.1; done; "
                  "grep -q :1194 /proc/net/udp")
    add_sa(lab, "outbound", 0x1001, *more, dst=THEIRS)
    add_sa(lab, "inbound", 0x2001, *more, src=THEIRS)
    add_policies(lab, 1, POD, NET)
    xfrm_sa(kernel, 0x1001, OURS, THEIRS, encap)
    xfrm_sa(kernel, 0x2001, THEIRS, OURS, encap)
    xfrm_policies(kernel, 0x2001)
    context = lambda: kernel.do("ip -s xfrm state; cat /proc/net/xfrm_stat", check=False) + lab.octoctl(
        "ipsec", "counters").stdout + lab.octoctl("drops").stdout
    try:
        reach(lab, "pod1", REMOTE)
    except AssertionError as error:
        raise AssertionError(context()) from error
    assert lab.ping("pod1", REMOTE, 5) == 5, context()
    said = kernel.do(" ".join(ping_command(POD, 5, "-I", REMOTE)), check=False)
    assert answered(said) >= set(range(1, 6)), said + context()
    # TCP with full segments, both ways: whoever sends too much is told.
    serve(lab, "pod1", 8000, "x" * 100_000)
    body = kernel.do(f"curl -s -m 50 --interface {REMOTE} http://{POD}:8000/ | wc -c", check=False)
    assert int(body.split()[0]) > 100_000, body + context()
    kernel.do("(cd /usr/bin; exec /usr/bin/python3 -m http.server 8001 >/dev/null 2>&1) &")
    kernel.do(f"for try in $(seq 50); do curl -s -o /dev/null http://{REMOTE}:8001/ && break; sleep 0.2; done")
    answer = get(lab, "pod1", f"http://{REMOTE}:8001/", 50)
    assert answer and len(answer) > 10_000, context()

    # New keys under load: the new inbound one first, on both sides, then the outbound ones, then the old ones go.
    pings = Pings(lab, "pod1", REMOTE, "-i", "0.02")
    pings.more()
    add_sa(lab, "inbound", 0x2002, *more, src=THEIRS)
    xfrm_sa(kernel, 0x1002, OURS, THEIRS, encap)
    add_sa(lab, "outbound", 0x1002, *more, dst=THEIRS)
    xfrm_sa(kernel, 0x2002, THEIRS, OURS, encap)
    xfrm_policies(kernel, 0x2002)
    packets = lambda: {sa["spi"]: sa["packets"] for sa in lab.json("ipsec", "sa", "list")}

    def moved():
        """Nothing uses the old ones any more, while there is traffic: neither has anything under way."""
        before = packets()
        pings.more()
        now = packets()
        return all(now[spi] == before[spi] for spi in (0x1001, 0x2001)) and all(
            now[spi] > before[spi] for spi in (0x1002, 0x2002))

    wait(moved, text=context)
    lab.octoctl("ipsec", "sa", "del", "inbound", "--spi", "0x2001", "--src", THEIRS, "--dst", OURS)
    lab.octoctl("ipsec", "sa", "del", "outbound", "--spi", "0x1001", "--src", OURS, "--dst", THEIRS)
    pings.more(100)
    count, missing = pings.stop()
    assert count >= 200 and not missing, f"{missing} of {count}\n" + context()
    counted = packets()
    assert set(counted) == {0x1002, 0x2002} and min(counted.values()) > 50, counted
    assert not lab.json("ipsec", "counters")["inbound"], context()
    wrong = [line.split() for line in kernel.do("cat /proc/net/xfrm_stat").splitlines() if not line.endswith("\t0")]
    # Its neighbour may have to be found while a packet waits in the tunnel.
    assert all(count == "0" for name, count in wrong if not name.startswith("XfrmOut")), wrong

    # What the kernel sends in the clear is refused.
    kernel.do("ip xfrm policy flush")
    assert "0 received" in kernel.do(f"ping -n -c 2 -i 0.05 -W 1 -I {REMOTE} {POD}", check=False)
    assert lab.drops()[195] >= 2


def test_the_kernel_puts_fragments_together(nodes):
    lab, kernel = nodes('too_big = "fragment"')
    add_sa(lab, "outbound", 0x1001, "--esn", dst=THEIRS)
    add_sa(lab, "inbound", 0x2001, "--esn", src=THEIRS)
    add_policies(lab, 1, POD, NET)
    xfrm_sa(kernel, 0x1001, OURS, THEIRS)
    xfrm_sa(kernel, 0x2001, THEIRS, OURS)
    xfrm_policies(kernel, 0x2001)
    reach(lab, "pod1", REMOTE)
    assert lab.ping("pod1", REMOTE, 3, "-M", "dont", "-s", 1472) == 3
    assert not lab.json("ipsec", "counters")["outbound"]
