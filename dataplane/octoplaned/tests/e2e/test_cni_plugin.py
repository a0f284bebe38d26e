"""octoplane-cni, called as the specification says a runtime calls it."""

import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cni_runner import BIN, NOTHING, PLUGIN, Failed, Runner, left
from conftest import GATEWAY4, GATEWAY6, ROOT, Pings, run, wait

POOLS = ['{ prefix = "10.200.55.0/24" }', '{ prefix = "fd00:200::5:0/112" }']
CNI = f'pools = [{", ".join(POOLS)}]\nreuse_delay_s = 0'
VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.fixture
def lab(make_lab):
    lab = make_lab(cni=CNI)
    lab.start()
    lab.apply({"routes": lab.state["routes"]})
    for name in ("c1", "c2"):
        lab._namespace(name)
    return lab


def addresses(result):
    return [ip["address"].split("/")[0] for ip in result["ips"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_two_pods_talk_over_both_families(lab, version):
    runner = Runner(lab, version)
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"
    one, two = (runner.add(name, name, args=f"{args}-{name}") for name in ("c1", "c2"))
    assert one["cniVersion"] == version
    assert [ip["address"] for ip in one["ips"]] == ["10.200.55.1/32", "fd00:200::5:1/128"]
    assert [ip["gateway"] for ip in one["ips"]] == [GATEWAY4, GATEWAY6]
    # The forms differ: "version" until 0.4.0, "mtu" since 1.1.0.
    assert [ip.get("version") for ip in one["ips"]] == (["4", "6"] if version < "1.0.0" else [None, None])
    host, pod = one["interfaces"]
    assert ("mtu" in pod) == (version >= "1.1.0")
    assert (pod["name"], pod["sandbox"]) == ("eth0", f"/run/netns/{lab.prefix}-c1") and "sandbox" not in host
    assert one["ips"][0]["interface"] == 1
    assert [route["dst"] for route in one["routes"]] == ["0.0.0.0/0", "::/0"]
    assert {endpoint["name"] for endpoint in lab.json("endpoint", "list")} == {"default/web-c1", "default/web-c2"}
    for target in addresses(two):
        assert lab.ping("c1", target) == 3, target
    for target in (*addresses(one), GATEWAY4, f"{GATEWAY6}%eth0", "192.0.2.254"):
        assert lab.ping("c2", target) == 3, target
    # TCP, which needs the checksums.
    server = lab.spawn("c2", "iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
    lab.listening("c2", 5201)
    lab.inside("c1", "iperf3", "-c", addresses(two)[0], "-n", "1M")
    assert server.wait(60) == 0
    if version >= "0.4.0":
        runner.check("c1", "c1", one)
    else:
        with pytest.raises(Failed) as error:
            runner.check("c1", "c1", one)
        assert error.value.code == 1
    for name in ("c1", "c2", "c2", "c3"):
        runner.delete(name, name if name != "c3" else None)
    assert left(lab) == NOTHING
    assert [pool["used"] for pool in pools(lab)] == [0, 0]
    assert lab.stop() == 0, lab.log()


def pools(lab):
    return lab.json("attachment", "pools")


def test_check_says_what_is_not_as_it_was(lab):
    runner = Runner(lab)
    result = runner.add("c1", "c1")
    runner.check("c1", "c1", result)

    def broken(text, code=102, **more):
        with pytest.raises(Failed) as error:
            runner.check("c1", "c1", result, **more)
        assert error.value.code == code and text in error.value.said["msg"], error.value
    broken("expected 1400", mtu=1400)
    lab.inside("c1", "ip", "route", "del", "default")
    broken(f"no default route via {GATEWAY4}")
    lab.inside("c1", "ip", "address", "del", "10.200.55.1/32", "dev", "eth0")
    broken("interface eth0 does not have 10.200.55.1")
    lab.inside("c1", "ip", "link", "set", "eth0", "down")
    broken("interface eth0 is down")
    endpoint = lab.json("endpoint", "list")[0]["id"]
    lab.octoctl("endpoint", "del", str(endpoint))
    broken(f"endpoint {endpoint} is gone")
    runner.delete("c1", "c1")
    broken("nothing is attached", 3)
    with pytest.raises(Failed) as error:
        runner.call("CHECK", "c1", "c1")
    assert error.value.code == 7 and "prevResult" in error.value.said["msg"]


def test_versions_and_mistakes(lab):
    runner = Runner(lab)
    said = runner.call("VERSION", cniVersion="0.3.1")
    assert said == {"cniVersion": "0.3.1", "supportedVersions": VERSIONS}
    for conf, code in (({"cniVersion": "0.2.0"}, 1), ({"mtu": 1501}, 7), ({"ipMasq": True}, 2), ({"name": ""}, 7),
                       ({"ipam": {"type": "nosuch"}}, 7), ({"socket": "/nosuch"}, 11),
                       ({"runtimeConfig": {"mac": "01:00:00:00:00:01"}}, 7), ({"ipv4": False, "ipv6": False}, 7)):
        with pytest.raises(Failed) as error:
            runner.add("c1", "c1", **conf)
        assert error.value.code == code, (conf, error.value)
    for command, container, namespace in (("ADD", None, None), ("ADD", "c1", "nosuch"), ("ADD", "-", "c1"), ("NO", "c1", "c1")):
        with pytest.raises(Failed) as error:
            runner.call(command, container, namespace)
        assert error.value.code == 4
    assert left(lab) == NOTHING


def test_status_by_the_text_of_the_specification(lab):
    runner = Runner(lab)
    assert runner.call("STATUS") is None
    with pytest.raises(Failed) as error:
        Runner(lab, "1.0.0").call("STATUS")
    assert error.value.code == 1
    # 50: the plugin cannot service ADD.
    lab.stop()
    with pytest.raises(Failed) as error:
        runner.call("STATUS")
    assert error.value.code == 50
    lab.config.write_text(lab.config.read_text().replace(CNI, f'pools = [{POOLS[0].replace("/24", "/30")}]'))
    lab.start()
    assert runner.call("STATUS") is None
    with pytest.raises(Failed) as error:
        runner.call("STATUS", ipv6=True)
    assert error.value.code == 50 and "IPv6" in error.value.said["msg"]
    for name in ("c1", "c2"):
        runner.add(name, name)
    with pytest.raises(Failed) as error:
        runner.call("STATUS")
    assert error.value.code == 50 and "no IPv4 address is free" in error.value.said["msg"]
    # And it is so; nothing of the attempt stays.
    before = left(lab)
    lab._namespace("c3")
    with pytest.raises(Failed) as error:
        runner.add("c3", "c3")
    assert "no IPv4 address is free" in error.value.said["msg"]
    assert left(lab) == before


@pytest.mark.parametrize("step", ["interface", "port", "endpoint", "configuration"])
def test_a_step_that_fails_leaves_nothing(lab, step):
    runner, more = Runner(lab), {}
    if step == "interface":
        lab.inside("c1", "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    elif step == "port":
        # More than there are packet buffers.
        more["descriptors"] = 32768
    elif step == "endpoint":
        # An address that the daemon has itself.
        more["runtimeConfig"] = {"ips": ["192.0.2.1/24"]}
    else:
        # A route that cannot be: the plugin finds out when all the rest is done.
        stub = lab.directory / "bin" / "stub-ipam"
        stub.parent.mkdir()
        stub.write_text("#!/bin/sh\necho \"$CNI_COMMAND\" >> \"$0.log\"\n"
                        '[ "$CNI_COMMAND" = VERSION ] && echo \'{"cniVersion":"1.0.0","supportedVersions":["0.4.0"]}\' && exit 0\n'
                        "[ \"$CNI_COMMAND\" = ADD ] || exit 0\n"
                        'echo \'{"cniVersion":"1.0.0","ips":[{"address":"10.9.9.9/24"}],"routes":[{"dst":"10.1.2.3/8"}]}\'\n')
        stub.chmod(0o755)
        runner = Runner(lab, path=[stub.parent], ipam={"type": "stub-ipam"})
    with pytest.raises(Failed) as error:
        runner.add("c1", "c1", **more)
    print(error.value)
    assert left(lab) == NOTHING, error.value
    assert [pool["used"] for pool in pools(lab)] == [0, 0]
    if step == "configuration":
        assert (stub.parent / "stub-ipam.log").read_text().split() == ["VERSION", "ADD", "DEL"]
    names = {link["ifname"] for link in json.loads(lab.inside("c1", "ip", "-json", "link").stdout)}
    assert names == ({"lo", "eth0", "eth1"} if step == "interface" else {"lo"})


def test_what_the_runtime_asks_for(lab):
    runner = Runner(lab, mtu=1400)
    result = runner.add("c1", "c1", interface="net7", args="MAC=02:00:00:00:07:07;IP=10.77.0.7")
    assert addresses(result) == ["10.77.0.7"]
    link = json.loads(lab.inside("c1", "ip", "-json", "link", "show", "net7").stdout)[0]
    assert (link["address"], link["mtu"]) == ("02:00:00:00:07:07", 1400)
    other = runner.add("c2", "c2")
    assert lab.ping("c1", addresses(other)[0]) == 3
    # Again without DEL in between: refused, and the pod goes on.
    with pytest.raises(Failed) as error:
        runner.add("c2", "c2")
    assert "attached already" in error.value.said["msg"]
    assert lab.ping("c2", "10.77.0.7") == 3
    runner.delete("c1", interface="net7")
    runner.delete("c2", "c2")
    assert left(lab) == NOTHING


def test_a_previous_result_is_passed_on(lab):
    before = {"cniVersion": "1.1.0", "interfaces": [{"name": "dummy0"}], "ips": [{"address": "192.0.2.9/24", "interface": 0}]}
    result = Runner(lab).add("c1", "c1", prevResult=before)
    assert [interface["name"] for interface in result["interfaces"]][::2] == ["dummy0", "eth0"]
    assert [ip["interface"] for ip in result["ips"]] == [0, 2, 2]


def test_gc_removes_what_the_runtime_does_not_know(lab):
    runner, other = Runner(lab), Runner(lab, name="other")
    results = {name: runner.add(name, name) for name in ("c1", "c2")}
    lab._namespace("c3")
    other.add("c3", "c3")
    with pytest.raises(Failed) as error:
        runner.call("GC")
    assert error.value.code == 7 and "valid-attachments" in error.value.said["msg"]
    with pytest.raises(Failed) as error:
        Runner(lab, "1.0.0").collect()
    assert error.value.code == 1
    runner.collect("c1", "c2")
    assert len(left(lab)["ports"]) == 3
    runner.collect("c2")
    assert left(lab)["kept"] == ["c2@eth0.json", "c3@eth0.json"]
    assert lab.ping("c2", GATEWAY4) == 3 and lab.ping("c3", addresses(results["c2"])[0]) == 3
    # A pod whose namespace is gone, and its interfaces with it.
    run("ip", "netns", "del", f"{lab.prefix}-c2")
    lab.namespaces.remove("c2")
    runner.collect()
    other.collect()
    assert left(lab) == NOTHING


def test_a_network_may_be_renamed_while_pods_are_in_it(lab):
    Runner(lab, name="before").add("c1", "c1")
    Runner(lab, name="after").delete("c1", "c1")
    assert left(lab) == NOTHING


@pytest.mark.timeout(900)
def test_an_add_that_is_killed_anywhere_is_collected(lab):
    """SIGKILL at thirty moments between the begin of an ADD and a bit after its end: before, in and after each step."""
    runner = Runner(lab)
    survivor = addresses(runner.add("c1", "c1"))[0]
    lab._namespace("whole")
    seen = set()
    for number in range(30):
        # How long one takes as things are now.
        begin = time.monotonic()
        runner.add("whole", "whole")
        took = time.monotonic() - begin
        runner.delete("whole", "whole")
        name = f"k{number}"
        lab._namespace(name)
        plugin = subprocess.Popen(lab.command("dp", BIN / PLUGIN), env=runner.environment("ADD", name, "eth0", name),
                                  stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        plugin.stdin.write(json.dumps(runner.conf))
        plugin.stdin.close()
        try:
            plugin.wait((number + 1) / 30 * 1.2 * took)
        except subprocess.TimeoutExpired:
            plugin.kill()
        plugin.wait()
        state = left(lab)
        seen.add(tuple(len(state[key]) for key in ("kept", "interfaces", "ports", "endpoints")))
        if number % 3 == 0:
            run("ip", "netns", "del", f"{lab.prefix}-{name}")
            lab.namespaces.remove(name)
        if number % 5 == 4:
            runner.collect("c1")
            assert {key: len(value) for key, value in left(lab).items()} == {key: 1 for key in NOTHING}
    print(f"{len(seen)} states were seen: {sorted(seen)}")
    assert len(seen) > 3
    assert lab.ping("c1", GATEWAY4) == 3
    runner.collect()
    assert left(lab) == NOTHING and survivor
    assert [pool["used"] for pool in pools(lab)] == [0, 0]


def test_a_delegated_ipam_plugin(lab):
    host_local = "/usr/lib/cni/host-local"
    if run("test", "-x", host_local, check=False).returncode:
        pytest.skip("containernetworking-plugins is missing")
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd00:66::/64"}]],
            "dataDir": str(lab.directory / "ipam"), "resolvConf": str(lab.directory / "resolv.conf")}
    (lab.directory / "resolv.conf").write_text("nameserver 10.66.0.10\n")
    runner = Runner(lab, "1.0.0", path=["/usr/lib/cni"], ipam=ipam)
    one, two = (runner.add(name, name) for name in ("c1", "c2"))
    assert one["dns"] == {"nameservers": ["10.66.0.10"]}
    # .1 is the plugin's idea of a gateway; pods use that of the data plane.
    assert addresses(one) == ["10.66.0.2", "fd00:66::2"] and one["ips"][0]["gateway"] == GATEWAY4
    for target in addresses(two):
        assert lab.ping("c1", target) == 3
    runner.check("c1", "c1", one)
    Runner(lab, path=["/usr/lib/cni"], ipam=ipam).collect("c2")
    runner.delete("c2", "c2")
    assert left(lab) == NOTHING
    held = [path.name for path in (lab.directory / "ipam" / "net").iterdir() if path.name[0] in "1f"]
    assert held == []


@pytest.mark.timeout(600)
def test_ports_come_and_go_under_traffic(make_lab):
    """Twenty pods come and go, five at a time, while two others ping each other and move TCP: they do not notice."""
    lab = make_lab(cni=CNI)
    lab.start()
    lab.apply({"routes": lab.state["routes"]})
    runner = Runner(lab)
    names = ["c1", "c2"] + [f"g{number}" for number in range(20)]
    for name in names:
        lab._namespace(name)
    target = addresses(runner.add("c1", "c1"))[0]
    runner.add("c2", "c2")
    pings = Pings(lab, "c2", target)
    lab.spawn("c1", "iperf3", "-s", stdout=subprocess.DEVNULL)
    lab.listening("c1", 5201)
    stream = lab.spawn("c2", "iperf3", "-c", target, "-b", "20M", "-t", "580", stdout=subprocess.DEVNULL)

    def arrived():
        """Bytes of the stream that the other kernel has acknowledged."""
        sockets = lab.inside("c2", "ss", "-tinH", "dport = :5201").stdout
        return sum(map(int, re.findall(r"bytes_acked:(\d+)", sockets)))
    wait(arrived)

    def come_and_go(name):
        result = runner.add(name, name)
        assert lab.ping(name, target) == 3
        runner.check(name, name, result)
        runner.delete(name, name)
        # The stream goes on, as it would not if its port were away.
        before = arrived()
        wait(lambda: arrived() > before + 10_000)
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(come_and_go, names[2:]))
    assert stream.poll() is None, "it is the same connection all the time"
    count, missing = pings.stop()
    print(f"{count} pings, lost: {missing}")
    assert count > 100 and missing == []
    assert len(left(lab)["ports"]) == 2


def test_full_size_packets(lab):
    runner = Runner(lab)
    target = [addresses(runner.add(name, name))[0] for name in ("c1", "c2")][1]
    # 1,500 bytes less the headers of IPv4 and ICMP.
    assert lab.ping("c1", target, 3, "-M", "do", "-s", "1472") == 3
    assert lab.ping("c1", target, 1, "-M", "do", "-s", "1473") == 0


def test_the_sample_configuration(lab):
    """config/octoplane.conflist is what a runtime takes, but for the socket."""
    conf = json.loads((ROOT / "config" / "octoplane.conflist").read_text())
    assert conf["plugins"][0].pop("socket") == "/run/octoplane/octoplane.sock"
    runner = Runner(lab, conf["cniVersion"], conf["name"], **conf["plugins"][0])
    runner.check("c1", "c1", runner.add("c1", "c1"))


def test_pods_outlive_the_daemon(lab):
    """Ports that the plugin added come again with the state, so their pods need nobody."""
    text = lab.config.read_text()
    assert '[state]\ndirectory = ""' in text, "the lab keeps nothing unless it is told to"
    assert lab.stop() == 0
    lab.config.write_text(text.replace('[state]\ndirectory = ""', f'[state]\ndirectory = "{lab.directory}/state"', 1))
    lab.start()
    lab.apply({"routes": lab.state["routes"]})
    runner = Runner(lab)
    results = {name: runner.add(name, name) for name in ("c1", "c2")}
    for _ in range(2):
        lab.daemon.kill()
        lab.daemon.wait()
        lab.start()
        for target in (*addresses(results["c2"]), GATEWAY4, "192.0.2.254"):
            assert lab.ping("c1", target) == 3, target
        for name, result in results.items():
            runner.check(name, name, result)
    lab.daemon.kill()
    lab.daemon.wait()
    lab.start()
    for name in results:
        runner.delete(name, name)
    assert left(lab) == NOTHING
    assert [pool["used"] for pool in pools(lab)] == [0, 0]
    # What was given back does not come again.
    lab.daemon.kill()
    lab.daemon.wait()
    lab.start()
    assert left(lab) == NOTHING
