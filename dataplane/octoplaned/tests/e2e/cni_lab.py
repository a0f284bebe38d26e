"""What the tests of CNI share: a lab whose pods come over the wire, and clients in its namespace."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import GATEWAY4, ROOT

PROTOS = ROOT / "control" / "cni" / "proto"
CLIENTS = Path(__file__).parent / "clients"
LISTEN = "127.0.0.1:8000"


class Client:
    """Calls CNIAction from inside the daemon's namespace."""

    def __init__(self, lab, address=LISTEN, *more):
        self.process = lab.spawn("dp", sys.executable, CLIENTS / "cni_action.py", PROTOS, address, *more,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, method, request):
        self.process.stdin.write(json.dumps({"method": method, "request": request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client is gone"
        return json.loads(line)

    def add(self, container, vfid, mac, name=None, **more):
        return self.call("cmdAdd", {**pod(container, vfid, name), "mac_addr": mac,
                                    "ipamAllocatedbyHost": {"ipamAllocatedbyHost": False},
                                    "offloadFlags": {"CheckSumOffload": False}, **more})

    def delete(self, container, vfid=0):
        return self.call("cmdDel", pod(container, vfid))

    def check(self, container, vfid=0, **more):
        return self.call("cmdCheck", {**pod(container, vfid), **more})


def pod(container, vfid, name=None):
    """What the shipped plugin says of a pod: no name of an interface, PF 0 of 1."""
    return {"podInfo": {"pod_namespace": "default", "pod_name": name or f"pod-{container}", "containerId": container},
            "intfInfo": {"vfid": vfid, "pfid": 0, "num_pfs": 1}}


def configure(lab, namespace, address):
    """What the shipped plugin does in the pod with the answer (specification of the systems, section 1.5)."""
    lab.inside(namespace, "ip", "address", "flush", "dev", "eth0", "scope", "global")
    lab.inside(namespace, "ip", "address", "add", f"{address}/32", "dev", "eth0")
    lab.inside(namespace, "ip", "route", "replace", f"{GATEWAY4}/32", "dev", "eth0", "scope", "link")
    lab.inside(namespace, "ip", "route", "replace", "default", "via", GATEWAY4, "dev", "eth0", "mtu", "1450")


def endpoints(lab):
    return {endpoint["name"]: endpoint for endpoint in lab.json("endpoint", "list")}


def kept(lab):
    """Names of what is kept on disk."""
    directory = lab.directory / "attachments"
    return sorted(path.name for path in directory.iterdir() if path.suffix == ".json") if directory.exists() else []
