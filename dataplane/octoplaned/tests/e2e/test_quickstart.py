"""The demonstration of two nodes: it runs, it notices when what it claims is not so, and leaves nothing behind."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import BIN, ROOT, af_xdp


def quickstart(config=ROOT / "config" / "quickstart", driver="net_af_packet", programs=BIN.resolve()):
    name = f"oq{os.getpid()}"
    result = subprocess.run([ROOT / "scripts" / "quickstart"], capture_output=True, text=True, timeout=1200,
                            env={**os.environ, "OCTOPLANE_BIN": str(programs), "OCTOPLANE_DEMO": name,
                                 "OCTOPLANE_DEMO_DRIVER": driver,
                                 "OCTOPLANE_DEMO_CONFIG": str(config)})
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert name not in left and not Path("/run", name).exists()
    return result


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("driver", ["net_af_packet", "net_af_xdp"])
def test_it_shows_what_it_says(driver):
    if driver == "net_af_xdp" and not af_xdp():
        pytest.skip("no AF_XDP here")
    result = quickstart(driver=driver)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Everything worked. Nothing is left behind." in result.stdout


@pytest.mark.timeout(1500)
def test_a_policy_that_lets_everybody_in_is_noticed(tmp_path):
    config = tmp_path / "quickstart"
    shutil.copytree(ROOT / "config" / "quickstart", config)
    for node in ("node1", "node2"):
        text = (config / f"{node}.yaml").read_text()
        assert "enforce_ingress: true" in text
        (config / f"{node}.yaml").write_text(text.replace("enforce_ingress: true", "enforce_ingress: false"))
    result = quickstart(config)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "error: it is not so that xwing may not" in result.stderr


def test_a_daemon_that_says_nothing_leaves_nothing(tmp_path):
    for program, script in ("octoplaned", "exec sleep 1000"), ("octoctl", "exit 1"):
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / program).chmod(0o755)
    result = quickstart(programs=tmp_path)
    assert result.returncode == 1 and "does not answer" in result.stderr, result.stdout + result.stderr
