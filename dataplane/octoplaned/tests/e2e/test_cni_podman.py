"""A real CNI runtime drives octoplane-cni: podman with its CNI backend (libcni), which Debian has. Containers have a root file
system made of busybox, so no image is needed. What podman's libcni does not know (GC) is called as the specification says."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cni_runner import BIN, NOTHING, Runner, left
from conftest import GATEWAY4, run

NEEDED = ["podman", "runc", "busybox", "nsenter"]
missing = [program for program in NEEDED if not shutil.which(program)]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

CNI = 'pools = [{ prefix = "10.200.66.0/24" }, { prefix = "fd00:200::6:0/112" }]\nreuse_delay_s = 0'


class Podman:
    """Podman with all its files in one place, its containers' cables in the daemon's namespace. It lives in a mount and a process
    namespace of its own, which end with their first process: nothing is left of containers whose runtime was killed."""

    def __init__(self, lab, version):
        self.lab, self.place = lab, lab.directory / "podman"
        self.network = f"{lab.prefix}net"
        self.root = self.place / "rootfs"
        for directory in ("bin", "proc", "sys", "dev", "etc", "tmp"):
            (self.root / directory).mkdir(parents=True)
        shutil.copy(shutil.which("busybox"), self.root / "bin" / "busybox")
        for applet in ("sh", "ip", "ping", "sleep"):
            (self.root / "bin" / applet).symlink_to("busybox")
        (self.place / "net.d").mkdir()
        plugin = {"type": "octoplane-cni", "socket": str(lab.socket), "capabilities": {"mac": True}}
        (self.place / "net.d" / "octoplane.conflist").write_text(
            json.dumps({"cniVersion": version, "name": self.network, "plugins": [plugin]}))
        # Not by "ip netns exec", which hides the control groups.
        holder = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
             "mkdir -p /var/lib/cni && mount -t tmpfs tmpfs /var/lib/cni && mount -t tmpfs tmpfs /run/netns && echo ready && exec sleep 3600"], stdout=subprocess.PIPE, text=True)
        lab.processes.append(holder)
        assert holder.stdout.readline() == "ready\n"
        # The child of unshare is the first process inside.
        self.first = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()[0])
        (self.place / "containers.conf").write_text(f"""
            [network]
            network_backend = "cni"
            network_config_dir = "{self.place}/net.d"
            cni_plugin_dirs = ["{BIN.resolve()}"]
            [engine]
            cgroup_manager = "cgroupfs"
            runtime = "runc"
            events_logger = "none"
            [containers]
            default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
            log_driver = "none"
            """)

    def command(self, *arguments):
        return self.inside("podman", "--root", f"{self.place}/store", "--runroot", f"{self.place}/run",
                           "--tmpdir", f"{self.place}/tmp", "--storage-driver", "vfs", *map(str, arguments))

    def inside(self, *command):
        """A command where podman lives."""
        return ["nsenter", "--target", str(self.first), "--mount", "--pid", f"--net=/run/netns/{self.lab.prefix}-dp", *command]

    @property
    def environment(self):
        return {**os.environ, "CONTAINERS_CONF": f"{self.place}/containers.conf"}

    def __call__(self, *arguments, **kwargs):
        return run(*self.command(*arguments), env=self.environment, **kwargs)

    def start(self, name, *more):
        self("run", "--detach", *self.container(name), *more, "--rootfs", self.root, "sleep", "600")

    def container(self, name):
        return ["--name", name, "--network", self.network, "--cgroup-parent", f"/{self.lab.prefix}"]

    def inspect(self, name):
        return json.loads(self("inspect", name).stdout)[0]

    def network_of(self, name):
        return self.inspect(name)["NetworkSettings"]["Networks"][self.network]

    def ping(self, name, target):
        result = self("exec", name, "ping", "-c", "1", "-W", "5", target, check=False)
        assert "1 packets received" in result.stdout, result.stdout + result.stderr


@pytest.fixture
def lab(make_lab):
    lab = make_lab(cni=CNI)
    lab.start()
    lab.apply({"routes": lab.state["routes"]})
    return lab


@pytest.fixture(params=["0.4.0", "1.0.0"])
def podman(lab, request):
    podman = Podman(lab, request.param)
    yield podman
    podman("rm", "--all", "--force", "--time", "0", check=False)
    os.kill(podman.first, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (places := list(Path("/sys/fs/cgroup").glob(f"*/{lab.prefix}"))) and time.monotonic() < deadline:
        # As long as something in them is still dying, they stay.
        for place in places:
            run("find", place, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";", check=False)


def test_two_containers_talk_over_both_families(lab, podman):
    podman.start("one", "--mac-address", "02:00:00:00:06:01")
    podman.start("two")
    one, two = podman.network_of("one"), podman.network_of("two")
    assert (one["IPAddress"], one["IPPrefixLen"], one["Gateway"]) == ("10.200.66.1", 32, GATEWAY4)
    assert one["MacAddress"] == "02:00:00:00:06:01"
    for target in (two["IPAddress"], two["GlobalIPv6Address"], "192.0.2.254", "2001:db8::fe"):
        podman.ping("one", target)
    for target in (one["IPAddress"], one["GlobalIPv6Address"]):
        podman.ping("two", target)
    assert len(left(lab)["ports"]) == 2
    podman("rm", "--force", "--time", "0", "one")
    assert len(left(lab)["ports"]) == 1
    podman.ping("two", GATEWAY4)
    podman("rm", "--force", "--time", "0", "two")
    assert left(lab) == NOTHING


@pytest.mark.timeout(1500)
def test_gc_after_the_runtime_was_killed(lab, podman):
    podman.start("survivor")
    # In the middle of ADD, at different times; then a whole container with all that looks after it.
    for number in range(4):
        runtime = subprocess.Popen(podman.command("run", *podman.container(f"killed{number}"), "--rootfs", podman.root,
                                                  "sleep", "600"),
                                   env=podman.environment, start_new_session=True, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(left(lab)["kept"]) < number + 2 and time.monotonic() < deadline:
            pass
        time.sleep(0.02 * number)
        os.killpg(runtime.pid, signal.SIGKILL)
        runtime.wait()
    podman.start("whole")
    state = podman.inspect("whole")["State"]
    for pid in (state["ConmonPid"], state["Pid"]):
        run(*podman.inside("kill", "-9", str(pid)))
    before = left(lab)
    print({key: len(value) for key, value in before.items()})
    # A container that was running already may have been removed in order by the process that looks after it.
    assert len(before["kept"]) >= 4 and len(before["interfaces"]) >= 2
    survivor = podman.inspect("survivor")["Id"]
    Runner(lab, name=podman.network).collect(survivor)
    after = left(lab)
    assert {key: len(value) for key, value in after.items()} == {key: 1 for key in NOTHING}, after
    assert after["kept"] == [f"{survivor}@eth0.json"]
    assert [pool["used"] for pool in lab.json("attachment", "pools")] == [1, 1]
    podman.ping("survivor", GATEWAY4)
    podman("rm", "--force", "--time", "0", "survivor")
    assert left(lab) == NOTHING
