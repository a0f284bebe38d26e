"""CNIAction as the host's plugin speaks it: a client generated from the protos by another language's toolchain."""

import random
import threading

import pytest
from cni_lab import Client, configure, endpoints, kept
from conftest import BIN, GATEWAY4, run, wait

pytest.importorskip("grpc", reason="python3-grpcio is missing")

MAC = [f"02:00:00:00:00:0{number}" for number in (1, 2)]
CNI = '''listen = "127.0.0.1:8000"
ports = ["pod1", "pod2"]
pools = [{ prefix = "10.44.0.0/29", exclude = ["10.44.0.1"] }]
reuse_delay_s = 2
identities = [{ namespace = "kube-*", identity = 77, labels = ["tier=system"] }]
'''


@pytest.fixture
def lab(make_lab):
    lab = make_lab(cni=CNI)
    lab.start()
    lab.apply({"routes": lab.state["routes"]})
    return lab


def test_two_pods_come_talk_and_go(lab):
    client = Client(lab)
    addresses = []
    for index in (0, 1):
        said = client.add(f"c{index}", index, MAC[index])
        assert said["code"] == "OK", said
        info = said["answer"]["ipInfo"]
        # Bare addresses, version "4", nothing else (specification of the systems, section 1.3).
        assert info == {"version": "4", "address": f"10.44.0.{index + 2}", "gateway": GATEWAY4}
        assert said["has"] == ["ipInfo"]
        addresses.append(info["address"])
        configure(lab, f"pod{index + 1}", info["address"])
    endpoint = endpoints(lab)["default/pod-c0"]
    assert (endpoint["port"], endpoint["mac"], endpoint["addresses"]) == ("pod1", MAC[0], [addresses[0]])
    # Nobody has decided about it: reserved identity "init".
    assert endpoint["identity"] == 5
    assert lab.ping("pod1", addresses[1]) == 3
    assert lab.ping("pod2", addresses[0]) == 3
    assert lab.ping("pod1", GATEWAY4) == 3
    assert kept(lab) == ["c0@eth0.json", "c1@eth0.json"]
    # A wrong VF is only a hint.
    assert client.check("c0", 1)["code"] == "OK"
    assert client.check("c0", 99, ipInfo={"address": addresses[0]})["code"] == "OK"
    assert client.check("c0", 0, ipInfo={"address": "10.44.0.6"})["code"] == "FAILED_PRECONDITION"
    assert client.check("nobody")["code"] == "NOT_FOUND"
    # By container, whatever the VF says; and again; and one that was never there.
    for container in ("c0", "c0", "nobody"):
        said = client.delete(container, 1)
        assert said["code"] == "OK", said
    assert list(endpoints(lab)) == ["default/pod-c1"]
    assert lab.ping("pod2", addresses[0], 1) == 0
    assert client.check("c0")["code"] == "NOT_FOUND"
    assert client.delete("c1")["code"] == "OK"
    assert endpoints(lab) == {} and kept(lab) == []
    assert lab.stop() == 0, lab.log()


def test_an_add_that_is_repeated_answers_the_same(lab):
    client = Client(lab)
    first = client.add("c0", 0, MAC[0])
    # The agent decides meanwhile; that stays.
    endpoint = endpoints(lab)["default/pod-c0"]
    lab.octoctl("endpoint", "add", str(endpoint["id"]), "--name", endpoint["name"], "--port", "pod1", "--mac", MAC[0],
                "--identity", "4711", "--address", endpoint["addresses"][0])
    again = client.add("c0", 0, MAC[0])
    assert again["answer"] == first["answer"]
    assert endpoints(lab)["default/pod-c0"]["identity"] == 4711
    # Which attachments there are, and by what they are known.
    listed = lab.json("attachment", "list")
    assert [(it["container"], it["interface"], it["network"], it["function"]) for it in listed] == [
        ("c0", "eth0", "CNIAction", 0)]
    assert (listed[0]["endpoint"], listed[0]["identity"]) == (endpoint["id"], 4711)
    assert listed[0]["labels"] == ["k8s:io.kubernetes.pod.namespace=default"]
    # Rules decide about others at once.
    request = {"podInfo": {"pod_namespace": "kube-system", "pod_name": "dns", "containerId": "c1"}}
    assert client.add("c1", 1, MAC[1], **request)["code"] == "OK"
    assert endpoints(lab)["kube-system/dns"]["identity"] == 77
    assert lab.json("attachment", "list", "--network", "CNIAction")[1]["labels"][1] == "tier=system"
    assert lab.json("attachment", "list", "--network", "other") == []


def test_a_function_that_is_given_to_another_pod(lab):
    """The shipped plugin ignores what becomes of a DEL, so the next pod may come to a VF that still has one here."""
    client = Client(lab)
    old = client.add("c0", 0, MAC[0])["answer"]["ipInfo"]["address"]
    said = client.add("c1", 0, MAC[0])
    assert said["code"] == "OK", said
    assert list(endpoints(lab)) == ["default/pod-c1"]
    assert kept(lab) == ["c1@eth0.json"]
    # The late DEL of the old one does not take the new one's network away.
    assert client.delete("c0", 0)["code"] == "OK"
    assert list(endpoints(lab)) == ["default/pod-c1"]
    assert said["answer"]["ipInfo"]["address"] != old


def test_what_is_wrong_is_named_and_leaves_nothing(lab):
    client = Client(lab)
    good = {"podInfo": {"containerId": "c0", "pod_name": "p", "pod_namespace": "n"},
            "intfInfo": {"vfid": 0, "num_pfs": 1}, "mac_addr": MAC[0]}
    before = lab.json("status")["revision"]
    mistakes = [
        ("cmdAdd", {}, "INVALID_ARGUMENT", "podInfo: is missing"),
        ("cmdAdd", {**good, "podInfo": None}, "INVALID_ARGUMENT", "podInfo: is missing"),
        ("cmdAdd", {**good, "podInfo": {}}, "INVALID_ARGUMENT", "podInfo.containerId: is missing"),
        ("cmdAdd", {**good, "podInfo": {"containerId": "../x"}}, "INVALID_ARGUMENT", 'podInfo.containerId: "../x"'),
        ("cmdAdd", {**good, "podInfo": {"containerId": "c0", "pod_name": "x" * 254}}, "INVALID_ARGUMENT",
         "podInfo.pod_name: is 254 bytes long, expected at most 253"),
        ("cmdAdd", {**good, "intfInfo": None}, "INVALID_ARGUMENT", "intfInfo: is missing"),
        ("cmdAdd", {**good, "intfInfo": {}}, "INVALID_ARGUMENT", "intfInfo.num_pfs: is 0 or missing"),
        ("cmdAdd", {**good, "intfInfo": {"num_pfs": 1, "pfid": 1}}, "INVALID_ARGUMENT", "intfInfo.pfid: 1"),
        ("cmdAdd", {**good, "intfInfo": {"num_pfs": 1, "vfid": 2}}, "OUT_OF_RANGE", "cni.ports"),
        ("cmdAdd", {**good, "mac_addr": ""}, "INVALID_ARGUMENT", "mac_addr: is missing"),
        ("cmdAdd", {**good, "mac_addr": "zz"}, "INVALID_ARGUMENT", 'mac_addr: "zz"'),
        ("cmdAdd", {**good, "mac_addr": "01:00:00:00:00:01"}, "INVALID_ARGUMENT", "mac_addr: 01:00:00:00:00:01"),
        ("cmdAdd", {**good, "vlan": "5"}, "UNIMPLEMENTED", "vlan:"),
        ("cmdAdd", {**good, "offloadFlags": {"CheckSumOffload": True}}, "UNIMPLEMENTED", "offloadFlags.CheckSumOffload:"),
        ("cmdAdd", {**good, "ipamAllocatedbyHost": {"ipamAllocatedbyHost": True}}, "INVALID_ARGUMENT",
         "ipInfo: is missing"),
        ("cmdAdd", {**good, "ipamAllocatedbyHost": {"ipamAllocatedbyHost": True}, "ipInfo": {"address": "ten"}},
         "INVALID_ARGUMENT", 'ipInfo.address: "ten"'),
        ("cmdAdd", {**good, "ipamAllocatedbyHost": {"ipamAllocatedbyHost": True}, "ipInfo": {"address": "192.0.2.1"}},
         "INVALID_ARGUMENT", "192.0.2.1 cannot be a pod's"),
        ("cmdDel", {"podInfo": {"containerId": "c0"}}, "INVALID_ARGUMENT", "intfInfo: is missing"),
        ("cmdDel", {"intfInfo": {}}, "INVALID_ARGUMENT", "podInfo: is missing"),
        ("cmdCheck", {"podInfo": {"containerId": "c0"}}, "INVALID_ARGUMENT", "intfInfo: is missing"),
        ("cmdCheck", {"intfInfo": {}}, "INVALID_ARGUMENT", "podInfo: is missing"),
    ]
    for method, request, code, text in mistakes:
        request = {key: value for key, value in request.items() if value is not None}
        said = client.call(method, request)
        assert (said["code"], text in said["text"]) == (code, True), (method, request, said)
    assert endpoints(lab) == {} and kept(lab) == []
    assert lab.json("status")["revision"] == before


def test_addresses_that_the_host_gave_out(lab):
    client = Client(lab)
    by_host = {"ipamAllocatedbyHost": {"ipamAllocatedbyHost": True}}
    said = client.add("c0", 0, MAC[0], **by_host, ipInfo={"version": "4", "address": "10.44.0.2/32"})
    assert said["answer"]["ipInfo"]["address"] == "10.44.0.2", said
    taken = client.add("c1", 1, MAC[1], **by_host, ipInfo={"address": "10.44.0.2"})
    assert taken["code"] == "ALREADY_EXISTS" and "belongs to container c0" in taken["text"], taken
    # The pool leaves it out.
    assert client.add("c1", 1, MAC[1])["answer"]["ipInfo"]["address"] == "10.44.0.3"
    configure(lab, "pod1", "10.44.0.2")
    configure(lab, "pod2", "10.44.0.3")
    assert lab.ping("pod1", "10.44.0.3") == 3


def test_a_pool_that_runs_out_and_addresses_that_rest(make_lab):
    lab = make_lab(cni=CNI.replace("reuse_delay_s = 2", "reuse_delay_s = 20"))
    lab.start()
    client = Client(lab)
    # 10.44.0.2 to .6, one after the other, as no address is used again at once.
    for index in range(5):
        assert client.add(f"c{index}", 0, MAC[0])["answer"]["ipInfo"]["address"] == f"10.44.0.{index + 2}"
    full = client.add("c5", 0, MAC[0])
    assert full["code"] == "RESOURCE_EXHAUSTED" and "1 are in use and 4 rest" in full["text"] or \
        "0 are in use and 5 rest" in full["text"], full
    wait(lambda: client.add("c6", 0, MAC[0])["code"] == "OK")


def test_what_is_attached_survives_a_killed_daemon(lab):
    client = Client(lab)
    address = client.add("c0", 0, MAC[0])["answer"]["ipInfo"]["address"]
    configure(lab, "pod1", address)
    endpoint = endpoints(lab)["default/pod-c0"]
    lab.daemon.kill()
    lab.daemon.wait()
    lab.start()
    assert endpoints(lab)["default/pod-c0"] == endpoint
    assert lab.ping("pod1", GATEWAY4) == 3
    client = Client(lab)
    assert client.check("c0")["code"] == "OK"
    assert client.add("c0", 0, MAC[0])["answer"]["ipInfo"]["address"] == address
    assert client.add("c1", 1, MAC[1])["answer"]["ipInfo"]["address"] != address


def authority(place, name):
    """A certificate authority, and a certificate that it signed for 127.0.0.1."""
    where = {kind: place / f"{name}.{kind}" for kind in ("ca.crt", "ca.key", "crt", "key", "csr")}
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    run("openssl", "req", "-x509", *key, "-subj", f"/CN={name} authority", "-keyout", where["ca.key"], "-out", where["ca.crt"])
    run("openssl", "req", *key[:-2], "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", where["key"],
        "-out", where["csr"])
    run("openssl", "x509", "-req", "-in", where["csr"], "-CA", where["ca.crt"], "-CAkey", where["ca.key"], "-CAcreateserial",
        "-copy_extensions", "copy", "-days", "1", "-out", where["crt"])
    return where


def test_clients_with_a_certificate(make_lab, tmp_path):
    good, other = authority(tmp_path, "good"), authority(tmp_path, "other")
    # Both listeners at once; the plain one at an address that nobody has yet, in either family.
    lab = make_lab(cni=f'''listen = "192.168.1.1:8000"
ports = ["pod1", "pod2"]
pools = [{{ prefix = "10.44.0.0/29" }}]
tls = {{ listen = "127.0.0.1:8443", certificate = "{good["crt"]}", key = "{good["key"]}", client_ca = "{good["ca.crt"]}" }}
''')
    lab.start()

    def client(certificate):
        more = ("--certificate", certificate["crt"], "--key", certificate["key"]) if certificate else ()
        return Client(lab, "127.0.0.1:8443", "--ca", good["ca.crt"], *more)
    for stranger in (client(None), client(other), Client(lab, "127.0.0.1:8443")):
        assert stranger.add("c0", 0, MAC[0])["code"] == "UNAVAILABLE"
    assert endpoints(lab) == {}
    assert client(good).add("c0", 0, MAC[0])["code"] == "OK"
    # The management wire comes up.
    assert Client(lab, "192.168.1.1:8000").check("c0")["code"] != "OK"
    lab.inside("dp", "ip", "address", "add", "192.168.1.1/24", "dev", "lo")
    assert Client(lab, "192.168.1.1:8000").check("c0")["code"] == "OK"
    assert lab.stop() == 0, lab.log()


def test_listeners_that_cannot_be_are_named(make_lab, tmp_path):
    good = authority(tmp_path, "good")
    tls = 'tls = {{ listen = "[::1]:8443", certificate = "{}", key = "{}", client_ca = "{}" }}'
    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN CERTIFICATE-----")
    for cni, text in ((tls.format(good["crt"], "/nosuch", good["ca.crt"]), "cni.tls.key: /nosuch: No such file"),
                      (tls.format(good["crt"], good["crt"], good["ca.crt"]), "cni:"),
                      (tls.format(good["crt"], good["key"], broken), "cni:")):
        lab = make_lab(cni=cni)
        daemon = lab.inside("dp", BIN / "octoplaned", "--config", lab.config, check=False)
        assert daemon.returncode == 1 and text in daemon.stderr, daemon.stderr


def test_kept_attachments_that_cannot_be_read_are_named(make_lab):
    lab = make_lab(cni=CNI)
    directory = lab.directory / "attachments"
    directory.mkdir()
    (directory / "c0@eth0.json").write_text("{")
    daemon = lab.inside("dp", BIN / "octoplaned", "--config", lab.config, check=False)
    assert daemon.returncode == 1 and "c0@eth0.json: cannot be read" in daemon.stderr, daemon.stderr


def test_a_daemon_that_is_killed_while_pods_come(make_lab):
    """What was answered is there afterwards; what was not is there whole or not at all, and can be repeated."""
    lab = make_lab(cni=CNI.replace("10.44.0.0/29", "10.44.0.0/16").replace("reuse_delay_s = 2", "reuse_delay_s = 0"))
    lab.start()
    client = Client(lab)
    # Of each VF, which container has it, as far as the host was told.
    holder, addresses = {}, {}
    for round_ in range(10):
        killer = threading.Timer(random.uniform(0.005, 0.06), lab.daemon.kill)
        killer.start()
        for number in range(10_000):
            # Each takes the VF from the one before the last.
            vf, container = number % 2, f"r{round_}n{number}"
            said = client.add(container, vf, MAC[vf])
            if said["code"] != "OK":
                break
            holder[vf], addresses[container] = container, said["answer"]["ipInfo"]["address"]
        killer.join()
        lab.daemon.wait()
        assert said["code"] != "OK"
        lab.start()
        client = Client(lab)
        there = {name.split("@")[0] for name in kept(lab)}
        # An endpoint for each attachment, and no other.
        assert {f"default/pod-{name}" for name in there} == set(endpoints(lab))
        # The call that was not answered may have come to its end, or only so far that the old one was gone.
        others = {name for other, name in holder.items() if other != vf}
        assert there - others in ({holder.get(vf)}, {container}, set()), (there, holder, container)
        assert others <= there
        for name in there & set(addresses):
            assert client.check(name, ipInfo={"address": addresses[name]})["code"] == "OK"
        said = client.add(container, vf, MAC[vf])
        assert said["code"] == "OK", said
        holder[vf], addresses[container] = container, said["answer"]["ipInfo"]["address"]
    for name in kept(lab):
        assert client.delete(name.split("@")[0])["code"] == "OK"
    assert endpoints(lab) == {} and lab.json("attachment", "pools")[0]["used"] == 0
