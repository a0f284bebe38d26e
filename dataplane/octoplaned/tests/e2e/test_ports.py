"""Ports that come and go over the API while others have traffic."""

import json
import os
import subprocess
import time

import pytest

from conftest import Pings, af_xdp

CPUS = sorted(os.sched_getaffinity(0))
MAC = "02:00:00:00:00:03"


def port_add(lab, name="pod3", device="net_af_packet7,iface=pod3", *more, **kwargs):
    return lab.octoctl("port", "add", name, "--role", "pod", "--device", device, *more, **kwargs)


def refused(result, *texts):
    assert result.returncode == 1 and result.stdout == "", result.stdout + result.stderr
    for text in texts:
        assert text in result.stderr, result.stderr


def ports(lab):
    return [port["name"] for port in lab.json("port", "list")]


def stats(lab):
    return {port["name"]: port for port in lab.json("port", "stats")}


def endpoint_add(lab):
    lab.octoctl("endpoint", "add", "3", "--name", "test/pod3", "--port", "pod3", "--mac", MAC, "--identity", "1003",
                "--address", "10.200.0.3", "--address", "fd00:200::3")


def buffers(lab):
    """Packet buffers in use, once that is steady: those of packets under way come and go."""
    seen = []
    while len(seen) < 50:
        seen.append(lab.json("status")["mbufs_in_use"])
        if len(seen) >= 3 and len(set(seen[-3:])) == 1:
            break
        time.sleep(0.1)
    return seen[-1]


def come_and_go(lab, driver, times):
    lab.pod(3)
    before = buffers(lab)
    pings = Pings(lab, "pod1", "10.200.0.2")
    pings.more()
    for number in range(times):
        out = port_add(lab, "pod3", f"{driver}7,iface=pod3").stdout
        assert out.startswith("+ port pod3 mtu 1500"), out
        again = port_add(lab, "pod3", f"{driver}7,iface=pod3").stdout
        assert "is there already" in again, again
        assert ports(lab) == ["pod1", "pod2", "router", "pod3"]
        # Its number is that of the port before it, its counters are not.
        assert stats(lab)["pod3"]["tx_packets"] <= 2
        endpoint_add(lab)
        assert lab.ping("pod3", "10.200.0.1") == 3
        assert lab.ping("pod2", "10.200.0.3") == 3
        assert lab.ping("pod3", "fd00:200::2") == 3
        assert lab.ping("pod3", "192.0.2.254") == 3
        assert stats(lab)["pod3"]["rx_packets"] >= 9
        refused(lab.octoctl("port", "del", "pod3", check=False),
                "port pod3 is in use by endpoint 3 (test/pod3): remove these first")
        lab.octoctl("endpoint", "del", "3")
        assert lab.octoctl("port", "del", "pod3").stdout.startswith("- port pod3")
        assert ports(lab) == ["pod1", "pod2", "router"] and "pod3" not in stats(lab)
    count, missing = pings.stop()
    print(f"{driver}: {count} pings, lost: {missing}")
    assert count > 100 and missing == []
    refused(lab.octoctl("port", "del", "pod3", check=False), 'there is no port "pod3"')
    return before, buffers(lab)


def test_a_port_comes_and_goes_without_a_lost_ping(lab):
    before, after = come_and_go(lab, "net_af_packet", 5)
    assert after <= before + 4, (before, after)
    assert lab.stop() == 0, lab.log()


@pytest.mark.skipif(len(CPUS) < 2, reason="two workers need two CPUs")
def test_with_two_workers(make_lab):
    lab = make_lab(cores=CPUS[:2])
    lab.start()
    lab.apply()
    before, after = come_and_go(lab, "net_af_packet", 5)
    assert after <= before + 4, (before, after)
    assert lab.stop() == 0, lab.log()


@pytest.mark.skipif(not af_xdp(), reason="no AF_XDP here")
def test_af_xdp_lets_go_of_nothing_and_says_so(lab):
    lab.pod(3)
    port_add(lab, "pod3", "net_af_xdp7,iface=pod3")
    endpoint_add(lab)
    assert lab.ping("pod3", "10.200.0.1") == 3
    lab.octoctl("endpoint", "del", "3")
    lab.octoctl("port", "del", "pod3")
    kept = buffers(lab)
    refused(port_add(lab, "pod3", "net_af_xdp7,iface=pod3", check=False),
            "port pod3: device: interface pod3 was an AF_XDP port before", "use net_af_packet")
    assert buffers(lab) <= kept + 4
    # A new pod comes with a new interface, even if it is called the same.
    lab.inside("dp", "ip", "link", "del", "pod3")
    lab.recable("pod3", MAC)
    port_add(lab, "pod3", "net_af_xdp7,iface=pod3")
    assert ports(lab) == ["pod1", "pod2", "router", "pod3"]


def test_what_cannot_be_added_leaves_nothing(lab):
    lab.pod(3)
    before = lab.json("status")
    refused(port_add(lab, device="net_af_packet7,iface=nosuch", check=False),
            'port pod3: device: there is no network interface "nosuch"')
    refused(port_add(lab, device="net_nosuch0", check=False), "port pod3: device:", "net_nosuch0", "cannot be added")
    refused(port_add(lab, device="net_af_packet7,iface=pod3,nosuch=1", check=False), "net_af_packet7")
    refused(port_add(lab, device="eth0", check=False), 'device: "eth0" is invalid, expected a PCI address')
    refused(port_add(lab, "pod1", check=False), "there is a port of this name already", "net_af_packet0,iface=pod1")
    refused(port_add(lab, device="net_af_packet0,iface=pod3", check=False), "is the device of port pod1 already")
    refused(port_add(lab, "pod3", "net_af_packet7,iface=pod3", "--mtu", "9000", check=False),
            "mtu: 9000 does not fit", "memory.data_room")
    refused(port_add(lab, "pod3", "net_af_packet7,iface=pod3", "--rx-queues", "2", check=False),
            "rx_queues: 2 is more than the device has, expected at most 1")
    refused(port_add(lab, "pod3", "net_af_packet7,iface=pod3", "--rx-descriptors", "32768", check=False),
            "rx_descriptors:", "memory.mbufs")
    refused(port_add(lab, "Pod3", "eth0", "--mtu", "1000", "--address", "10.0.0.1/24", check=False),
            "name: \"Pod3\" is invalid", "mtu: 1000 is out of range, expected 1280 to 9600",
            "addresses: stands on a pod port", "device: \"eth0\"")
    after = lab.json("status")
    assert ports(lab) == ["pod1", "pod2", "router"]
    assert after["mbufs_in_use"] <= before["mbufs_in_use"] + 4
    # None of it is in the way.
    port_add(lab)
    endpoint_add(lab)
    assert lab.ping("pod3", "10.200.0.1") == 3


def test_an_uplink_comes_and_goes(lab):
    """Its addresses and its link come and go with it, and what was learned on it."""
    lab.cable("router2", "02:00:00:00:00:fd")
    lab.inside("router2", "ip", "address", "add", "198.51.100.254/24", "dev", "eth0")
    lab.inside("router2", "ip", "route", "add", "10.200.0.0/16", "via", "198.51.100.1")
    for _ in range(2):
        lab.octoctl("port", "add", "router2", "--role", "uplink", "--device", "net_af_packet8,iface=router2",
                    "--address", "198.51.100.1/24", "--mtu", "1400")
        assert lab.ping("pod1", "198.51.100.254") == 3
        assert any(it["address"] == "198.51.100.254" and it["learned"] for it in lab.json("neigh", "list"))
        lab.octoctl("route", "add", "203.0.113.0/24", "--via", "198.51.100.254", "--port", "router2")
        refused(lab.octoctl("port", "del", "router2", check=False), "in use by route 203.0.113.0/24")
        lab.octoctl("route", "del", "203.0.113.0/24")
        lab.octoctl("port", "del", "router2")
        assert not [it for it in lab.json("neigh", "list") if it["address"] == "198.51.100.254"]
        # By the default route again, where nobody knows it.
        assert lab.ping("pod1", "198.51.100.254", 1) == 0
    assert lab.ping("pod1", "192.0.2.254") == 3


def test_a_watch_sees_ports_by_name(lab):
    lab.pod(3)
    watch = lab.octoctl_spawn("-o", "json", "watch", "--initial", "--kind", "port", "--kind", "endpoint",
                              stdout=subprocess.PIPE, text=True)
    # What there is comes first, and its end is told: from now on it is heard what changes.
    there = []
    while not there or not there[-1].get("initial_state_end"):
        there.append(json.loads(watch.stdout.readline()))
    assert sorted(event["port"]["name"] for event in there if "port" in event) == ["pod1", "pod2", "router"], there
    port_add(lab)
    endpoint_add(lab)
    lab.octoctl("endpoint", "del", "3")
    lab.octoctl("port", "del", "pod3")
    events = [json.loads(watch.stdout.readline()) for _ in range(4)]
    assert [(event["removed"], "port" in event) for event in events] == [
        (False, True), (False, False), (True, False), (True, True)]
    assert events[0]["port"]["name"] == events[3]["port"]["name"] == "pod3"
    assert events[1]["endpoint"]["port"] == events[2]["endpoint"]["port"] == "pod3"


def test_a_configured_port_can_go_and_come_back(lab):
    state = {**lab.state, "endpoints": lab.state["endpoints"][:1]}
    lab.apply(state)
    lab.octoctl("port", "del", "pod2")
    assert lab.ping("pod1", "10.200.0.2", 1) == 0
    lab.octoctl("port", "add", "pod2", "--role", "pod", "--device", "net_af_packet1,iface=pod2")
    assert ports(lab) == ["pod1", "pod2", "router"]
    lab.apply()
    assert lab.ping("pod1", "10.200.0.2") == 3
