"""A thousand pods, fifty at a time.

There are not a thousand kernels here, nor as many ports in the data plane (256). Sixteen of the pods have a namespace with a
kernel and a port of their own; the others share four ports, behind which a program answers for each at its own Ethernet address.
The data plane and the CNI service do not know the difference: an endpoint each, with its own MAC and address.
"""

import json
import statistics
import sys

import pytest
from cni_lab import CLIENTS, LISTEN, PROTOS, endpoints, kept

pytest.importorskip("grpc", reason="python3-grpcio is missing")

PODS, PARALLEL, OWN, SHARED = 1000, 50, 16, 4


@pytest.mark.timeout(1500)
def test_a_thousand_pods_fifty_at_a_time(make_lab):
    own = [f"own{number}" for number in range(OWN)]
    shared = [f"shared{number}" for number in range(SHARED)]
    ports = own + [shared[number % SHARED] for number in range(PODS - OWN + 1)]
    devices = [f'[[ports]]\nname = "{name}"\nrole = "pod"\ndevice = "net_af_packet{20 + number},iface={name}"\n'
               for number, name in enumerate(own + shared)]
    # 1,022 addresses less 22: exactly as many as there are pods.
    cni = (f'listen = "{LISTEN}"\nports = {json.dumps(ports)}\nreuse_delay_s = 0\n'
           'pools = [{ prefix = "10.200.128.0/22", exclude = ["10.200.128.0/28", "10.200.128.16/30", "10.200.128.20/31", '
           '"10.200.128.22"] }]\n' + "".join(devices))
    lab = make_lab(cni=cni)
    macs = {name: f"02:00:00:01:00:{number:02x}" for number, name in enumerate(own)}
    for number, name in enumerate(own + shared):
        lab.cable(name, macs.get(name, f"02:00:00:02:00:{number:02x}"))
    lab.start()
    lab.apply({"routes": lab.state["routes"]})
    assert [pool["size"] for pool in lab.json("attachment", "pools")] == [PODS]
    pods = [{"index": index, "port": port, "mac": macs.get(port, f"02:00:00:03:{index >> 8:02x}:{index & 255:02x}")}
            for index, port in enumerate(ports[:PODS])]
    job = {"protos": str(PROTOS), "address": LISTEN, "parallel": PARALLEL, "shared": shared, "pods": pods, "extra": PODS,
           "namespaces": {name: f"{lab.prefix}-{name}" for name in (*own, *shared, "router")}}
    for round_ in range(2):
        result = lab.inside("dp", sys.executable, CLIENTS / "cni_many.py", input=json.dumps(job), timeout=600)
        found = json.loads(result.stdout)
        added = found["added"]
        for name in own:
            lab.inside(name, "ip", "address", "flush", "dev", "eth0", "scope", "global")
        report(round_, found)
        # Every pod has an address of its own, and answers within a second of its ADD's answer; or, where the machine stood still
        # meanwhile, as ADDs show, within a few times of what the slowest of these took.
        assert len({pod["address"] for pod in added}) == PODS
        limit = max(1, 3 * max(pod["add"] for pod in added))
        late = [pod for pod in added if pod["reachable"] is None or pod["reachable"] > limit]
        assert late == [], late[:5]
        # Nobody got what is another's.
        assert found["misdirected"] == 0
        assert found["most_at_once"] >= PARALLEL / 2
        assert found["extra"] == "RESOURCE_EXHAUSTED"
        # Every address and port is there again, as the next round shows.
        assert endpoints(lab) == {} and kept(lab) == []
        assert [pool["used"] for pool in lab.json("attachment", "pools")] == [0]
    assert lab.stop() == 0, lab.log()


def report(round_, found):
    def figures(name):
        values = sorted(pod[name] * 1000 for pod in found["added"] if pod[name] is not None)
        return f"median {statistics.median(values):.1f} ms, p99 {values[len(values) * 99 // 100 - 1]:.1f} ms, most {values[-1]:.1f} ms"
    print(f"\nround {round_ + 1}: {PODS} pods, {PARALLEL} at a time ({found['most_at_once']} calls at once at most), all added in "
          f"{found['add_seconds']:.1f} s, deleted in {found['del_seconds']:.1f} s\n  ADD: {figures('add')}\n"
          f"  from the answer of ADD to the first ping: {figures('reachable')}")
