"""`octoctl doctor` where a daemon runs, and before it does."""

import json

from conftest import BIN


def findings(lab):
    result = lab.inside("dp", BIN / "octoctl", "--socket", lab.socket, "-o", "json", "doctor", "--config", lab.config,
                        check=False)
    report = json.loads(result.stdout)
    return result.returncode, {finding["check"]: finding for finding in report["findings"]}


def test_before_and_after_the_start(make_lab):
    lab = make_lab()
    status, found = findings(lab)
    assert status == 0, found
    assert found["daemon"]["verdict"] == "warning" and "systemctl start octoplaned" in found["daemon"]["advice"]
    assert found["DPDK"]["verdict"] == "ok", found["DPDK"]
    lab.start()
    status, found = findings(lab)
    assert status == 0, found
    assert found["daemon"]["verdict"] == "ok" and "workers, tables at revision" in found["daemon"]["found"]
    assert "as the daemon says" in found["DPDK"]["found"]
    assert found["interface"]["verdict"] == "ok"
    # The cable of a pod is gone.
    lab.inside("dp", "ip", "link", "set", "pod2", "down")
    assert "ip link set pod2 up" in lab.inside("dp", BIN / "octoctl", "--socket", lab.socket, "doctor", "--config",
                                               lab.config, check=False).stdout
