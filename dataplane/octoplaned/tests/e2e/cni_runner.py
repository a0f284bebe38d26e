"""The least that a CNI runtime does, by the text of the specification: for what runtimes of Debian do not do (STATUS and GC came
with version 1.1 of the specification), and to call one plugin alone. Plugins run in the namespace of the daemon."""

import json
import os

from conftest import BIN, run

PLUGIN = "octoplane-cni"


class Failed(Exception):
    """What a plugin said when it failed."""

    def __init__(self, said):
        super().__init__(f"{said['code']}: {said['msg']} ({said.get('details')})")
        self.said, self.code = said, said["code"]


class Runner:
    def __init__(self, lab, version="1.1.0", name="net", path=(), **conf):
        self.lab, self.version = lab, version
        self.conf = {"cniVersion": version, "name": name, "type": PLUGIN, "socket": str(lab.socket), **conf}
        self.path = ":".join(map(str, [BIN, *path]))

    def environment(self, command, container=None, interface="eth0", namespace=None, args=""):
        environment = {"CNI_COMMAND": command, "CNI_PATH": self.path, "PATH": os.environ["PATH"]}
        if container:
            environment |= {"CNI_CONTAINERID": container, "CNI_IFNAME": interface, "CNI_ARGS": args}
        if namespace:
            environment["CNI_NETNS"] = f"/run/netns/{self.lab.prefix}-{namespace}"
        return environment

    def call(self, command, container=None, namespace=None, interface="eth0", args="", **more):
        """The answer, or None if there is none to this command."""
        result = run(*self.lab.command("dp", BIN / PLUGIN), check=False, input=json.dumps({**self.conf, **more}),
                     env=self.environment(command, container, interface, namespace, args))
        said = json.loads(result.stdout) if result.stdout else None
        if result.returncode != 0:
            assert said["cniVersion"], said
            raise Failed(said)
        return said

    def add(self, container, namespace, **more):
        return self.call("ADD", container, namespace, **more)

    def delete(self, container, namespace=None, **more):
        assert self.call("DEL", container, namespace, **more) is None

    def check(self, container, namespace, result, **more):
        assert self.call("CHECK", container, namespace, prevResult=result, **more) is None

    def collect(self, *valid):
        attachments = [{"containerID": container, "ifname": "eth0"} for container in valid]
        assert self.call("GC", **{"cni.dev/valid-attachments": attachments}) is None


def left(lab):
    """What could be left of pods: interfaces, ports, endpoints, attachments on disk, addresses in use."""
    links = json.loads(lab.inside("dp", "ip", "-json", "link").stdout)
    directory = lab.directory / "attachments"
    kept = [path.name for path in directory.glob("*.json")] if directory.exists() else []
    return {
        "interfaces": sorted(link["ifname"] for link in links if link["ifname"].startswith("oct")),
        "ports": sorted(port["name"] for port in lab.json("port", "list") if port["name"].startswith("oct")),
        "endpoints": sorted(endpoint["name"] for endpoint in lab.json("endpoint", "list")),
        "kept": sorted(kept),
    }


NOTHING = {"interfaces": [], "ports": [], "endpoints": [], "kept": []}
