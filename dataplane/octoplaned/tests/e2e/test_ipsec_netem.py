"""A Linux kernel as the other node, whose packets are late, lost and out of order (`tc netem`); iperf3 through the tunnel, with new
keys while it runs."""

import json
import subprocess
from itertools import groupby

from conftest import Pings, wait
from test_ipsec_kernel import BOOT, GLOBAL, HERE, OURS, THEIRS, nodes, policies, pytestmark, sa  # noqa: F401 (a fixture)


# Port 5201 in hexadecimal, and the state of a socket that listens (Linux, include/net/tcp_states.h).
LISTENS = "grep -q ':1451 [0-9A-F]*:0000 0A ' /proc/net/tcp /proc/net/tcp6"


def server(kernel):
    """Starts iperf3 in the kernel, for one client; the one before it may still be about to end."""
    kernel.do(f"for try in $(seq 300); do {LISTENS} || break; sleep 0.1; done; "
              "iperf3 --server --one-off --daemon --logfile /run/iperf && "
              f"for try in $(seq 300); do {LISTENS} && break; sleep 0.1; done; {LISTENS}")


def iperf(lab, kernel, *how):
    """From our pod to theirs, or the other way round. Returns the report."""
    server(kernel)
    result = lab.inside("pod1", "iperf3", "--client", "10.201.0.7", *how, "--json", "--connect-timeout", 30_000,
                        check=False, timeout=200)
    report = json.loads(result.stdout)
    assert "error" not in report, (report["error"], kernel.do("cat /run/iperf", check=False))
    return report


def wrong(kernel):
    """What the kernel found wrong with packets."""
    lines = kernel.do("cat /proc/net/xfrm_stat").splitlines()
    return {line.split()[0]: int(line.split()[1]) for line in lines if line.split()[1] != "0"}


def test_loss_and_reordering(nodes):  # noqa: F811
    lab, kernel, _ = nodes
    kernel.do(f"/usr/bin/python3 {HERE}/uml/modules.py sch_netem")
    kernel.do("tc qdisc add dev vec0 root netem delay 4ms 3ms loss 2%")
    # One direction loses: 2 % of 1,000, five standard deviations. No faster than that: what comes while the emulated machine does
    # not get its turn waits in a socket with room for some 250, and the loss is to be netem's.
    received = lab.ping("pod1", "10.201.0.7", 1000, "-i", "0.02")
    assert 955 <= received < 1000, (received, lab.octoctl("drops").stdout)
    # Of these none overtakes another; TCP's bursts do all the time.
    for options in ((), ("--reverse",)):
        report = iperf(lab, kernel, "--time", 3, *options)
        assert report["end"]["sum_received"]["bytes"] > 100_000, report["end"]
    # Nothing inside the window is refused, and nothing comes twice.
    assert not lab.json("ipsec", "counters")["inbound"], lab.octoctl("ipsec", "counters").stdout
    assert not wrong(kernel), wrong(kernel)


def test_new_keys_under_load(nodes):  # noqa: F811
    lab, kernel, keys = nodes
    for src, dst in ((THEIRS, OURS), (OURS, THEIRS)):
        sa(kernel, "add", 4, src, dst)
    # The kernel has one hand only: what it serves runs beside its commands.
    server(kernel)
    load = lab.spawn("pod1", "iperf3", "--client", "10.201.0.7", "--time", 280, "--connect-timeout", 30_000,
                     stdout=subprocess.DEVNULL)
    pings = Pings(lab, "pod1", "10.201.0.7", "-i", "0.02")
    packets = lambda direction, spi: sum(it["packets"] for it in lab.json("ipsec", "sa", "list")
                                         if (it["direction"], it["spi"]) == (direction, spi))
    # Much more than there are pings meanwhile: the transfer goes on.
    wait(lambda: packets("outbound", 3) > 1000 + 2 * len(pings.answered()), text=lab.log)
    pings.more()
    keys.write_text(f"4+ rfc4106(gcm(aes)) {GLOBAL[4].hex()} 128\n")
    wait(lambda: lab.json("ipsec", "status")["key"] == 4, text=lab.log)
    lab.octoctl("ipsec", "node", "add", THEIRS, "--key", "4", "--boot-id", BOOT[THEIRS])
    policies(kernel, 4)
    wait(lambda: packets("outbound", 4) > 1000 + 2 * len(pings.answered()) and packets("inbound", 4) > 50, text=lab.log)
    pings.more()
    assert load.poll() is None, "it is the same connection all the time"
    # The load may cost pings; what would be a second in which nothing arrives may not be.
    count, missing = pings.stop()
    runs = [len(list(run)) for _, run in groupby(missing, key=lambda number, at=iter(range(len(missing))): number - next(at))]
    print(f"{count} pings answered, {len(missing)} lost under load, {max(runs, default=0)} in a row at most")
    assert max(runs, default=0) < 50, missing
    load.terminate()
    load.wait(20)
    # And what has an end comes to it. The sender ends when its last bytes are in its buffer, which is therefore a small one.
    report = iperf(lab, kernel, "--bytes", "4M", "--window", "200K")
    assert report["end"]["sum_received"]["bytes"] >= 2 << 20, report["end"]
    counted = {(it["direction"], it["spi"]): it["packets"] for it in lab.json("ipsec", "sa", "list")}
    assert counted[("outbound", 4)] > 50 and counted[("inbound", 4)] > 50, counted
    assert not lab.json("ipsec", "counters")["inbound"], lab.octoctl("ipsec", "counters").stdout
    assert not wrong(kernel), wrong(kernel)
