"""Two workers on devices with one queue each: most packets leave by another worker than they came to."""

import json
import os
import subprocess

import pytest

from conftest import af_xdp

CPUS = sorted(os.sched_getaffinity(0))
pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="two workers need two CPUs")


@pytest.fixture(params=["net_af_packet", "net_af_xdp"])
def two(request, make_lab):
    if request.param == "net_af_xdp" and not af_xdp():
        pytest.skip("no AF_XDP here")
    lab = make_lab(cores=CPUS[:2], driver=request.param)
    lab.start()
    lab.apply()
    return lab


def iperf(lab, *more):
    server = lab.spawn("pod2", "iperf3", "-s", "-1", "--forceflush", stdout=subprocess.PIPE, text=True)
    # It says so when it listens.
    while "listening" not in (line := server.stdout.readline()):
        assert line, "iperf3 did not start"
    result = lab.inside("pod1", "iperf3", "-J", "-t", "2", *more)
    server.communicate(timeout=60)
    return json.loads(result.stdout)["end"]["sum_received"]["bits_per_second"] / 1e6


def test_packets_are_handed_over_and_arrive(two):
    lab = two
    owners = {port["name"]: {queue["tx_owner"] for queue in port["queues"]} for port in lab.json("port", "stats")}
    assert all(len(owner) == 1 for owner in owners.values()), owners
    # The pods' ports have different workers, so that all packets between them are handed over.
    assert owners["pod1"] != owners["pod2"]
    assert lab.ping("pod1", "10.200.0.2", 20) == 20
    assert lab.ping("pod1", "fd00:200::2", 20) == 20
    assert lab.ping("pod1", "192.0.2.254", 20) == 20
    assert lab.ping("pod2", "2001:db8::fe", 20) == 20
    handed = lab.worker("handed_off")
    assert handed >= 80, handed
    for target in ("10.200.0.2", "fd00:200::2"):
        speed = iperf(lab, "-c", target)
        print(f"{lab.driver} {target}: {speed:.0f} Mbit/s")
        assert speed > 10
    workers = lab.json("status")["workers"]
    assert all(worker["handed_off"] > handed / 4 for worker in workers), workers
    assert lab.worker("handed_off") > handed + 1000
    # A full inbox loses packets, as a full queue does; TCP has to do with few of these.
    lost = lab.drops()
    print(f"{lab.driver}: {lab.worker('handed_off')} handed over, drops {lost}")
    assert lab.stop() == 0, lab.log()
