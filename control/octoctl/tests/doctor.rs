//! `octoctl doctor` on machines that are directories: a DPU that is ready, and everything that may be missing.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const OCTEON: &str = include_str!("../../../config/octoplaned-octeon.toml");

/// A machine in a directory.
struct Machine(TempDir);

impl Machine {
    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.0.path().join(path);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(Path::new("/").join(target), path).unwrap();
    }

    fn driver(&self, address: &str, driver: &str) {
        let path = format!("sys/bus/pci/devices/{address}/driver");
        self.link(&path, &format!("sys/bus/pci/drivers/{driver}"));
    }

    fn pci(&self, address: &str, device: &str, driver: &str, group: u32) {
        let directory = format!("sys/bus/pci/devices/{address}");
        self.write(&format!("{directory}/vendor"), "0x177d\n");
        self.write(&format!("{directory}/device"), &format!("0x{device}\n"));
        self.write(&format!("{directory}/numa_node"), "-1\n");
        self.driver(address, driver);
        // Links of sysfs lead within it; so does this one, from the directory that stands for the root.
        let groups = self
            .0
            .path()
            .join(format!("sys/kernel/iommu_groups/{group}/devices"));
        fs::create_dir_all(&groups).unwrap();
        fs::write(groups.join(address), "").unwrap();
        let _ = fs::remove_file(self.0.path().join(format!("{directory}/iommu_group")));
        symlink(
            groups.parent().unwrap(),
            self.0.path().join(format!("{directory}/iommu_group")),
        )
        .unwrap();
        self.write(&format!("dev/vfio/{group}"), "");
    }

    /// A DPU with everything that the sample configuration asks for.
    fn octeon() -> Self {
        let machine = Self(TempDir::new().unwrap());
        machine.write("etc/octoplane/octoplaned.toml", OCTEON);
        machine.write("etc/group", "root:x:0:\noctoplane:x:990:\n");
        machine.write("sys/devices/system/cpu/online", "0-23\n");
        machine.write("sys/devices/system/cpu/isolated", "8-23\n");
        machine.write(
            "proc/cmdline",
            "console=ttyAMA0 isolcpus=8-23 nohz_full=8-23 rcu_nocbs=8-23\n",
        );
        machine.write("proc/meminfo", "MemTotal: 1 kB\nHugepagesize:     524288 kB\n");
        machine.write(
            "proc/self/limits",
            "Max locked memory         unlimited            unlimited            bytes\n",
        );
        machine.write("proc/self/status", "Name:\tdoctor\nUid:\t0\t0\t0\t0\n");
        for (kib, pages) in [(524_288, 8), (32_768, 0)] {
            for file in ["nr_hugepages", "free_hugepages"] {
                machine.write(
                    &format!("sys/kernel/mm/hugepages/hugepages-{kib}kB/{file}"),
                    &format!("{pages}\n"),
                );
            }
        }
        machine.write("sys/class/iommu/smmu3.0x0000000080000000/name", "");
        machine.write("sys/bus/pci/drivers/vfio-pci/bind", "");
        machine.pci("0002:01:00.0", "a065", "rvu_af", 1);
        machine.pci("0002:02:00.0", "a063", "vfio-pci", 2);
        machine.pci("0002:20:00.0", "a0f2", "rvu_cptpf", 3);
        machine.pci("0002:20:00.1", "a0f3", "vfio-pci", 4);
        machine.pci("0002:01:00.1", "a0f7", "rvu_nicvf", 10);
        for function in 2..=5 {
            machine.pci(
                &format!("0002:01:00.{function}"),
                "a0f7",
                "vfio-pci",
                10 + function,
            );
        }
        machine.write("dev/net/tun", "");
        machine.write("usr/lib/aarch64-linux-gnu/librte_eal.so.23.0", "");
        machine
    }

    /// Exit status, standard output and error.
    fn doctor(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_octoctl"))
            .args(["doctor", "--root"])
            .arg(self.0.path())
            .args(arguments)
            .env_remove("OCTOPLANE_SOCKET")
            .env_remove("OCTOPLANE_SERVER")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn findings(&self) -> (i32, Vec<Value>) {
        let (code, out, _) = self.doctor(&["-o", "json"]);
        let report: Value = serde_json::from_str(&out).unwrap();
        let findings = report["findings"].as_array().unwrap().clone();
        let failed = findings.iter().any(|it| it["verdict"] == "failure");
        assert_eq!(code, i32::from(failed), "{out}");
        assert_eq!(report["verdict"] == "failure", failed);
        for finding in &findings {
            // Whoever is told that something is wrong is told what to do.
            let advised = finding["advice"].as_str().is_some_and(|text| !text.is_empty());
            assert_eq!(advised, finding["verdict"] != "ok", "{finding}");
        }
        (code, findings)
    }
}

#[test]
fn a_dpu_that_is_ready() {
    let (code, findings) = Machine::octeon().findings();
    let bad: Vec<_> = findings.iter().filter(|it| it["verdict"] != "ok").collect();
    // Only the daemon does not run yet.
    assert_eq!((code, bad.len()), (0, 1), "{bad:#?}");
    assert_eq!(bad[0]["check"], "daemon");
    let found = |check: &str| {
        let one = findings.iter().find(|it| it["check"] == check).unwrap();
        one["found"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        found("SDP functions"),
        "0002:01:00.1 for management, 4 for pods, of these 4 are ports"
    );
    assert!(found("device").contains("177d:a063 RPM Ethernet"));
}

/// What is done to a machine that is ready, what is then found, how bad it is, and what is said to be done.
type Case = (
    &'static str,
    fn(&Machine),
    &'static str,
    &'static str,
    &'static str,
);

const CASES: &[Case] = &[
    (
        "configuration",
        |m| m.write("etc/octoplane/octoplaned.toml", "[[ports]]\nname = 'P'"),
        "failure",
        "3 mistakes",
        "octoplaned.toml:1: ports[0].role",
    ),
    (
        "configuration",
        |m| m.remove("etc/octoplane/octoplaned.toml"),
        "failure",
        "cannot be read",
        "--config",
    ),
    (
        "hugepages",
        |m| m.write("sys/kernel/mm/hugepages/hugepages-524288kB/free_hugepages", "0\n"),
        "failure",
        "0 of 4096 MiB free: 8 of 512M",
        "scripts/hugepages set 512M:",
    ),
    (
        "hugepages",
        |m| {
            for file in ["nr_hugepages", "free_hugepages"] {
                m.write(
                    &format!("sys/kernel/mm/hugepages/hugepages-524288kB/{file}"),
                    "0\n",
                );
            }
        },
        "failure",
        "0 of 0 MiB free: none",
        "hugepagesz=512M hugepages=",
    ),
    (
        "locked memory",
        |m| {
            m.write(
                "proc/self/limits",
                "Max locked memory         8388608              8388608              bytes\n",
            );
        },
        "warning",
        "8388608 bytes",
        "LimitMEMLOCK=infinity",
    ),
    (
        "IOMMU",
        |m| m.remove("sys/class/iommu/smmu3.0x0000000080000000"),
        "failure",
        "none in use",
        "SMMU",
    ),
    (
        "vfio-pci",
        |m| m.remove("sys/bus/pci/drivers/vfio-pci"),
        "failure",
        "not there",
        "modprobe vfio-pci",
    ),
    (
        "device",
        |m| m.remove("sys/bus/pci/devices/0002:01:00.4"),
        "failure",
        "there is no PCI function 0002:01:00.4",
        "lspci",
    ),
    (
        "device",
        |m| m.driver("0002:01:00.3", "rvu_nicvf"),
        "failure",
        "0002:01:00.3 (177d:a0f7 SDP, the host's functions), driver rvu_nicvf",
        "scripts/vfio bind 0002:01:00.3",
    ),
    (
        "device",
        |m| m.pci("0002:02:00.1", "a063", "rvu_nicpf", 2),
        "failure",
        "shares IOMMU group 2 with 0002:02:00.1",
        "scripts/vfio bind 0002:02:00.1",
    ),
    (
        "device",
        |m| m.remove("dev/vfio/12"),
        "failure",
        "there is no /dev/vfio/12",
        "/dev/vfio",
    ),
    (
        "device",
        |m| m.pci("0002:02:00.0", "a0f7", "vfio-pci", 2),
        "warning",
        "has the role uplink",
        "role pod",
    ),
    (
        "SDP functions",
        |m| m.driver("0002:01:00.1", "vfio-pci"),
        "failure",
        "is bound to vfio-pci",
        "scripts/vfio unbind 0002:01:00.1",
    ),
    (
        "SDP functions",
        // Then the first of the configured ones is the first of all.
        |m| m.remove("sys/bus/pci/devices/0002:01:00.1"),
        "failure",
        "port vf0 is 0002:01:00.2, the wire over which the DPU is managed",
        "n + 1",
    ),
    (
        "CPT functions",
        |m| m.driver("0002:20:00.1", "rvu_cptvf"),
        "warning",
        "encryption is done in software",
        "scripts/vfio bind 0002:20:00.1",
    ),
    (
        "CPT functions",
        |m| m.remove("sys/bus/pci/devices/0002:20:00.1"),
        "warning",
        "0 (PCI id 177d:a0f3)",
        "/sys/bus/pci/devices/0002:20:00.0/sriov_numvfs",
    ),
    (
        "configuration",
        |m| m.write("sys/devices/system/cpu/online", "0-15\n"),
        "failure",
        "mistakes",
        "workers.cores",
    ),
    (
        "hardware threads",
        |m| {
            m.write(
                "sys/devices/system/cpu/cpu8/topology/thread_siblings_list",
                "8-9\n",
            );
        },
        "warning",
        "CPUs 8-9",
        "workers.cores",
    ),
    (
        "isolation",
        |m| m.write("sys/devices/system/cpu/isolated", "8-20\n"),
        "warning",
        "CPUs 21-23",
        "isolcpus=8-23",
    ),
    (
        "kernel flags",
        |m| m.write("proc/cmdline", "nohz_full=8-23 rcu_nocbs=8\n"),
        "warning",
        "interrupts workers",
        "on its command line: rcu_nocbs=8-23",
    ),
    (
        "frequency",
        |m| {
            m.write(
                "sys/devices/system/cpu/cpu10/cpufreq/scaling_governor",
                "ondemand\n",
            );
        },
        "warning",
        "CPUs 10 ",
        "performance",
    ),
    (
        "NUMA",
        |m| {
            m.write("sys/bus/pci/devices/0002:02:00.0/numa_node", "1\n");
            m.write("sys/devices/system/node/node1/cpulist", "24-47\n");
        },
        "warning",
        "uplink0 (node 1: CPUs 24-47)",
        "workers.cores",
    ),
    (
        "DPDK",
        |m| m.remove("usr/lib/aarch64-linux-gnu/librte_eal.so.23.0"),
        "failure",
        "no librte_eal.so.*",
        "apt-get install dpdk",
    ),
    (
        "DPDK",
        |m| {
            m.remove("usr/lib/aarch64-linux-gnu/librte_eal.so.23.0");
            m.write("usr/local/lib/aarch64-linux-gnu/librte_eal.so.25", "");
        },
        "warning",
        "ABI 25",
        "scripts/test",
    ),
    (
        "tap",
        |m| m.remove("dev/net/tun"),
        "failure",
        "/dev/net/tun",
        "modprobe tun",
    ),
    (
        "groups",
        |m| m.write("etc/group", "root:x:0:\n"),
        "failure",
        "control.socket_group: there is no group octoplane",
        "groupadd --system octoplane",
    ),
    (
        "permissions",
        |m| m.write("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\n"),
        "warning",
        "user 1000",
        "sudo",
    ),
    (
        "daemon",
        |m| m.write("run/octoplane/octoplane.sock", "no socket"),
        "failure",
        "cannot connect",
        "systemctl status octoplaned",
    ),
];

#[test]
fn each_thing_that_is_missing_is_found_and_something_is_to_be_done() {
    for (check, damage, verdict, found, advice) in CASES {
        let machine = Machine::octeon();
        damage(&machine);
        let (_, findings) = machine.findings();
        let matching = findings.iter().find(|it| {
            it["check"] == **check
                && it["verdict"] == **verdict
                && it["found"].as_str().unwrap().contains(found)
                && it["advice"].as_str().is_some_and(|text| text.contains(advice))
        });
        assert!(matching.is_some(), "{check}: {found}: {findings:#?}");
    }
}

#[test]
fn a_machine_for_virtual_devices() {
    let machine = Machine::octeon();
    machine.write(
        "etc/octoplane/octoplaned.toml",
        "[workers]\ncores = [1]\n[[ports]]\nname = 'p'\nrole = 'pod'\ndevice = 'net_af_xdp0,iface=veth0'\nmtu = 1400\n",
    );
    machine.write("sys/class/net/veth0/flags", "0x1003\n");
    machine.write("sys/class/net/veth0/mtu", "1500\n");
    machine.write("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n");
    machine.write(
        "usr/lib/aarch64-linux-gnu/dpdk/pmds-23.0/librte_net_af_xdp.so.23.0",
        "",
    );
    let named = |findings: &[Value], check: &str| findings.iter().find(|it| it["check"] == check).cloned();
    let (code, findings) = machine.findings();
    assert_eq!(code, 0, "{findings:#?}");
    assert_eq!(named(&findings, "AF_XDP").unwrap()["verdict"], "ok");
    assert_eq!(named(&findings, "interface").unwrap()["verdict"], "ok");
    assert_eq!(named(&findings, "hugepages").unwrap()["verdict"], "ok");
    assert!(named(&findings, "IOMMU").is_none(), "nobody needs it");

    machine.write("sys/class/net/veth0/mtu", "1300\n");
    assert_eq!(
        named(&machine.findings().1, "interface").unwrap()["verdict"],
        "warning"
    );
    machine.write("sys/class/net/veth0/flags", "0x1002\n");
    assert!(
        named(&machine.findings().1, "interface").unwrap()["advice"]
            .as_str()
            .unwrap()
            .contains("up")
    );
    machine.remove("sys/class/net/veth0");
    assert_eq!(
        named(&machine.findings().1, "interface").unwrap()["verdict"],
        "failure"
    );
    machine.write("proc/sys/kernel/osrelease", "4.19.0\n");
    assert_eq!(
        named(&machine.findings().1, "AF_XDP").unwrap()["verdict"],
        "failure"
    );
}

#[test]
fn for_people() {
    let machine = Machine::octeon();
    let (code, out, err) = machine.doctor(&[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("ok    IOMMU"), "{out}");
    machine.remove("dev/net/tun");
    let (code, out, err) = machine.doctor(&[]);
    assert_eq!((code, err.as_str()), (1, "octoctl: 1 thing stands in the way\n"));
    assert!(
        out.contains("FAIL  tap") && out.contains("-> modprobe tun"),
        "{out}"
    );
}

/// Whatever a directory holds, there is an answer.
#[test]
fn an_empty_directory() {
    let machine = Machine(TempDir::new().unwrap());
    let (code, findings) = machine.findings();
    assert_eq!(code, 1);
    assert!(findings.iter().any(|it| it["check"] == "configuration"));
}
