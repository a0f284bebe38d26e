"""A daemon whose ports lead nowhere, for tests of what is programmed."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import grpc
import pytest

from api import Api
from conftest import BIN

CONFIG = """
log_level = "warn"
[eal]
file_prefix = "ob-{unique}"
[memory]
hugepages = false
mbufs = 2047
[workers]
count = 1
[control]
socket = "{directory}/control.sock"
[state]
directory = "{directory}/state"
connections = "{connections}"
[capacity]
connections = 1000
[[ports]]
name = "uplink"
role = "uplink"
device = "net_null0"
rx_descriptors = 64
tx_descriptors = 64
addresses = ["192.0.2.1/24"]
[[ports]]
name = "pod"
role = "pod"
device = "net_null1"
rx_descriptors = 64
tx_descriptors = 64
"""


class Daemon:
    def __init__(self, directory, connections=""):
        self.directory = Path(directory)
        self.socket = self.directory / "control.sock"
        self.config = self.directory / "octoplaned.toml"
        self.config.write_text(CONFIG.format(directory=directory, unique=f"{os.getpid()}-{self.directory.name[-8:]}",
                                             connections=connections))
        self.process = None

    def spawn(self):
        log = open(self.directory / "daemon.log", "a")
        self.process = subprocess.Popen([BIN / "octoplaned", "--config", self.config], stdout=log, stderr=log)

    def client(self):
        """A client of the daemon that has just been started, once it answers."""
        client = Api(self.socket)
        deadline = time.monotonic() + 60
        while True:
            try:
                client.call_GetStatus(client.GetStatusRequest(), timeout=5)
                return client
            except grpc.RpcError as error:
                assert self.process.poll() is None, self.log()
                assert time.monotonic() < deadline, (error, self.log())
                # A channel that was refused waits before it tries again; a new one does not.
                client.close()
                time.sleep(0.005)
                client = Api(self.socket)

    def stop(self):
        """An ordered stop; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def log(self):
        return (self.directory / "daemon.log").read_text()


@pytest.fixture
def daemon():
    with tempfile.TemporaryDirectory(prefix="octoplane-bare-") as directory:
        daemon = Daemon(directory)
        try:
            yield daemon
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.kill()
