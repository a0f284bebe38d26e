"""A Linux kernel as the other node, whose packets are late, lost and out of order (`tc netem`); iperf3 through the tunnel, with new
keys while it runs."""

import json
import threading
import time

from test_ipsec_kernel import BOOT, GLOBAL, HERE, OURS, THEIRS, nodes, policies, pytestmark, sa  # noqa: F401 (a fixture)


def iperf(lab, kernel, seconds, *options):
    """From our pod to theirs, or the other way round. Returns the report."""
    kernel.do("iperf3 --server --one-off --daemon --logfile /run/iperf")
    time.sleep(1)
    result = lab.inside("pod1", "iperf3", "--client", "10.201.0.7", "--time", seconds, "--json", "--connect-timeout", 5000,
                        *options, check=False)
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
    out = lab.inside("pod1", "ping", "-n", "-i", "0.005", "-c", "1000", "-W", "2", "10.201.0.7", check=False).stdout
    received = int(out.split(" received")[0].split()[-1])
    # One direction loses: 2 % of 1,000, five standard deviations.
    assert 955 <= received < 1000, out[-300:]
    # A delay of 4 +- 3 ms at 200 packets a second turns neighbours round only now and then; TCP's bursts all the time.
    for options in ((), ("--reverse",)):
        report = iperf(lab, kernel, 3, *options)
        assert report["end"]["sum_received"]["bytes"] > 100_000, report["end"]
    # Nothing inside the window is refused, and nothing comes twice.
    assert not lab.json("ipsec", "counters")["inbound"], lab.octoctl("ipsec", "counters").stdout
    assert not wrong(kernel), wrong(kernel)


def test_new_keys_under_load(nodes):  # noqa: F811
    lab, kernel, keys = nodes
    for src, dst in ((THEIRS, OURS), (OURS, THEIRS)):
        sa(kernel, "add", 4, src, dst)
    reports = []
    # The kernel has one hand only: what it serves runs beside its commands.
    kernel.do("iperf3 --server --one-off --daemon --logfile /run/iperf")
    time.sleep(1)

    def load():
        result = lab.inside("pod1", "iperf3", "--client", "10.201.0.7", "--time", 12, "--json", "--connect-timeout", 5000,
                            check=False)
        reports.append(json.loads(result.stdout))

    thread = threading.Thread(target=load)
    thread.start()
    time.sleep(1)
    keys.write_text(f"4+ rfc4106(gcm(aes)) {GLOBAL[4].hex()} 128\n")
    deadline = time.monotonic() + 10
    while lab.json("ipsec", "status")["key"] != 4:
        assert time.monotonic() < deadline, lab.log()
        time.sleep(0.1)
    lab.octoctl("ipsec", "node", "add", THEIRS, "--key", "4", "--boot-id", BOOT[THEIRS])
    policies(kernel, 4)
    thread.join()
    report = reports[0]
    assert "error" not in report, report
    # No second in which nothing arrives.
    assert all(second["sum"]["bytes"] > 0 for second in report["intervals"]), report["intervals"]
    counted = {(it["direction"], it["spi"]): it["packets"] for it in lab.json("ipsec", "sa", "list")}
    assert counted[("outbound", 4)] > 50 and counted[("inbound", 4)] > 50, counted
    assert not lab.json("ipsec", "counters")["inbound"], lab.octoctl("ipsec", "counters").stdout
    assert not wrong(kernel), wrong(kernel)
