"""Real kernels talk through the data plane."""

import os
import signal
import subprocess
import time

import pytest
from conftest import BIN, ROOT, wait


def test_ping_everywhere(lab):
    targets = ["10.200.0.2", "fd00:200::2", "169.254.1.1", "fe80::1%eth0", "192.0.2.254", "2001:db8::fe"]
    for target in targets:
        assert lab.ping("pod1", target) == 3, target
    assert lab.ping("router", "10.200.0.1") == 3
    assert lab.ping("router", "fd00:200::2") == 3
    assert lab.drops().get(134) is None


def test_our_uplink_address_answers_without_a_kernel_port(lab):
    assert lab.ping("router", "192.0.2.1") == 3
    assert lab.ping("router", "2001:db8::1") == 3


def test_neighbours_are_learned_and_forgotten(lab):
    assert lab.ping("pod1", "192.0.2.254", 1) == 1
    learned = {it["address"]: it for it in lab.json("neigh", "list")}
    assert learned["192.0.2.254"]["mac"] == "02:00:00:00:00:fe"
    assert learned["192.0.2.254"]["learned"]
    lab.inside("router", "ip", "link", "set", "eth0", "down")
    wait(lambda: not any(it["address"] == "192.0.2.254" for it in lab.json("neigh", "list")),
         text=lambda: "a silent neighbour is never forgotten")
    # A station that nobody finds: the sender is told, and the packets are counted.
    result = lab.inside("pod1", "ping", "-n", "-c", "1", "-W", "5", "192.0.2.254", check=False)
    assert "Destination Host Unreachable" in result.stdout
    assert lab.drops()[169] >= 1
    assert lab.worker("parked") == 0


def test_a_stranger_on_the_link_is_found(lab):
    lab.inside("router", "ip", "address", "add", "192.0.2.77/24", "dev", "eth0")
    assert lab.ping("pod2", "192.0.2.77", 3) == 3, "also the first packet waits for the neighbour and is sent"


def test_path_mtu(lab):
    lab.octoctl("port", "set", "pod2", "--mtu", "1400")
    result = lab.inside("pod1", "ping", "-n", "-c", "2", "-M", "do", "-s", "1400", "10.200.0.2", check=False)
    assert "mtu = 1400" in result.stdout + result.stderr
    result = lab.inside("pod1", "ping", "-n", "-c", "2", "-M", "do", "-s", "1400", "fd00:200::2", check=False)
    assert "mtu=1400" in (result.stdout + result.stderr).replace(": ", "=").replace("mtu = ", "mtu=")
    # The kernel has learned: TCP goes on with smaller segments.
    with_server(lab, "fd00:200::2")


def test_traceroute(lab):
    result = lab.inside("pod1", "ping", "-n", "-c", "1", "-t", "1", "-W", "2", "10.200.0.2", check=False)
    assert "From 169.254.1.1" in result.stdout and "Time to live exceeded" in result.stdout
    result = lab.inside("pod1", "ping", "-n", "-c", "1", "-t", "1", "-W", "2", "fd00:200::2", check=False)
    assert "Time exceeded: Hop limit" in result.stdout
    assert lab.drops()[196] >= 2


def with_server(lab, address):
    server = lab.spawn("pod2", "iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    lab.listening("pod2", 5201)
    result = lab.inside("pod1", "iperf3", "-c", address, "-t", "1", "-J")
    assert server.wait(60) == 0
    assert '"bits_per_second"' in result.stdout


def test_tcp(lab):
    with_server(lab, "10.200.0.2")
    with_server(lab, "fd00:200::2")


def test_fragments_pass(lab):
    assert lab.ping("pod1", "fd00:200::2", 3, "-s", "4000") == 3


def test_fragments_of_ipv4_pass(make_lab):
    # The AF_PACKET driver has the kernel put IPv4 fragments together (and then cuts the packet off): not with it.
    if subprocess.run([ROOT / "scripts" / "lib" / "has-af-xdp"], capture_output=True).returncode != 0:
        pytest.skip("this kernel or DPDK has no AF_XDP")
    lab = make_lab(driver="net_af_xdp")
    lab.start()
    lab.apply()
    assert lab.ping("pod1", "10.200.0.2", 3, "-s", "4000", "-M", "dont") == 3
    with_server(lab, "10.200.0.2")


def test_the_kernel_gets_what_is_not_ours(make_lab):
    lab = make_lab(host=True)
    lab.start()
    lab.apply()
    # The uplink's address is the kernel's, in both directions through the host port.
    assert lab.ping("kernel", "10.200.0.1") == 3
    assert lab.ping("router", "192.0.2.1") == 3
    assert lab.ping("pod1", "192.0.2.1") == 3
    assert lab.worker("punted") >= 6


def test_kill_and_start_again(lab):
    server = lab.spawn("pod2", "iperf3", "-s", stdout=subprocess.DEVNULL)
    lab.listening("pod2", 5201)
    client = lab.spawn("pod1", "iperf3", "-c", "10.200.0.2", "-t", "6", stdout=subprocess.PIPE)
    time.sleep(1.5)
    daemon = int(lab.inside("dp", "pgrep", "-f", str(lab.config)).stdout.split()[0])
    os.kill(daemon, signal.SIGKILL)
    lab.daemon.wait(10)
    lab.start()
    lab.apply()
    assert client.wait(90) == 0, "the connection outlives the daemon"
    assert lab.ping("pod1", "10.200.0.2") == 3
    server.terminate()


def test_ordered_stop(lab):
    assert lab.ping("pod1", "10.200.0.2") == 3
    assert lab.stop() == 0, lab.log()
    log = lab.log()
    assert "port pod1: received" in log and log.rstrip().endswith("stopped")
    assert not lab.socket.exists()


def test_a_second_daemon_is_refused(lab):
    result = lab.inside("dp", BIN / "octoplaned", "--config", lab.config, check=False)
    assert result.returncode == 1
    assert "another daemon listens there" in result.stderr
    assert lab.ping("pod1", "10.200.0.2") == 3


def test_busy_polling(make_lab):
    lab = make_lab(poll="busy")
    lab.start()
    lab.apply()
    assert lab.ping("pod1", "10.200.0.2") == 3
    assert lab.worker("sleeps") == 0
