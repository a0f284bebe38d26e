"""Many pods at once: run in the namespace of the daemon. Adds them over CNIAction, each call by a connection of its own as the
host's plugin does it, and pings each from the router from the moment on that its answer is there. Reads what to do from standard
input (one JSON object), and prints what it found (another)."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from cni_action import Action, generate
from netns import Pods, Prober


def main():
    job = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as place:
        module = generate(job["protos"], place)
        pods = {name: Pods(job["namespaces"][name]) for name in job["shared"]}
        prober = Prober(job["namespaces"]["router"])
        for thread in (*pods.values(), prober):
            thread.start()
        print(json.dumps(Many(job, module, pods, prober).run()))


class Many:
    def __init__(self, job, module, pods, prober):
        self.job, self.module, self.pods, self.prober = job, module, pods, prober
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def call(self, method, request):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        # A channel each, which gRPC must not make one of.
        options = [("grpc.use_local_subchannel_pool", 1)]
        try:
            with grpc.insecure_channel(self.job["address"], options=options) as channel:
                return Action(channel, self.module).call(method, request, timeout=60)
        finally:
            with self.lock:
                self.now -= 1

    def request(self, pod):
        return {"podInfo": {"pod_namespace": "many", "pod_name": f"pod-{pod['index']}", "containerId": f"c{pod['index']}"},
                "intfInfo": {"vfid": pod["index"], "num_pfs": 1}}

    def add(self, pod):
        answer, seconds = self.call("cmdAdd", {**self.request(pod), "mac_addr": pod["mac"]})
        address = answer.ipInfo.address
        begin = time.monotonic()
        if pod["port"] in self.pods:
            self.pods[pod["port"]].add(address, pod["mac"])
        else:
            # A pod of its own, with a kernel: what the host's plugin does in it.
            commands = [f"address add {address}/32 dev eth0", f"route replace {answer.ipInfo.gateway} dev eth0 scope link",
                        f"route replace default via {answer.ipInfo.gateway} dev eth0 mtu 1450"]
            subprocess.run(["ip", "-n", self.job["namespaces"][pod["port"]], "-batch", "-"], text=True,
                           input="\n".join(commands), check=True)
        took = self.prober.wait(pod["index"], address, time.monotonic, 60)
        reachable = None if took is None else time.monotonic() - begin
        return {"index": pod["index"], "address": address, "add": seconds, "reachable": reachable}

    def run(self):
        pods = self.job["pods"]
        found = {}
        with ThreadPoolExecutor(self.job["parallel"]) as pool:
            begin = time.monotonic()
            found["added"] = list(pool.map(self.add, pods))
            found["add_seconds"] = time.monotonic() - begin
            found["most_at_once"] = self.most
            list(pool.map(lambda pod: self.call("cmdCheck", self.request(pod)), pods))
            # One more than there are addresses.
            try:
                self.call("cmdAdd", {**self.request({"index": self.job["extra"]}), "mac_addr": "02:00:00:00:77:77"})
                found["extra"] = "OK"
            except grpc.RpcError as error:
                found["extra"] = error.code().name
            begin = time.monotonic()
            list(pool.map(lambda pod: self.call("cmdDel", self.request(pod)), pods))
            found["del_seconds"] = time.monotonic() - begin
        found["misdirected"] = sum(it.misdirected for it in self.pods.values())
        return found


if __name__ == "__main__":
    main()
