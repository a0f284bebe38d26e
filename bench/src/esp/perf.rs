//! The yardstick for devices: `dpdk-test-crypto-perf` on the same driver and size.

use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use super::setup::{ICV, Setup};
use crate::cli::MemoryKind;
use crate::sample::Sample;

const PROGRAM: &str = "dpdk-test-crypto-perf";
/// Operations of a run that only finds out how many there should be.
pub(super) const TRIAL: u64 = 200_000;

/// Whether the program is installed.
pub(super) fn installed() -> bool {
    Command::new(PROGRAM)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .and_then(|mut child| child.wait())
        .is_ok()
}

fn arguments(setup: &Setup, device: &str, operations: u64) -> anyhow::Result<Vec<String>> {
    let worker = setup.workers.first().context("no worker")?;
    let mut args = vec![
        format!("--lcores=0@{},1@{worker}", setup.control),
        "--no-telemetry".to_owned(),
        "--log-level=error".to_owned(),
    ];
    if device.contains(':') {
        args.push(format!("--allow={device}"));
    } else {
        args.extend(["--no-pci".to_owned(), format!("--vdev={device}")]);
    }
    match setup.memory {
        MemoryKind::Hugepages => args.push("--in-memory".to_owned()),
        MemoryKind::None => args.extend([
            "--no-huge".to_owned(),
            "--no-shconf".to_owned(),
            format!("-m{}", setup.megabytes()),
        ]),
    }
    args.extend([
        "--".to_owned(),
        "--silent".to_owned(),
        "--csv-friendly".to_owned(),
        "--ptest=throughput".to_owned(),
        format!("--devtype={}", devtype(device)),
        "--optype=aead".to_owned(),
        "--aead-algo=aes-gcm".to_owned(),
        format!("--aead-op={}", setup.operation.name()),
        "--aead-key-sz=16".to_owned(),
        "--aead-iv-sz=12".to_owned(),
        // SPI and sequence number with ESN.
        "--aead-aad-sz=12".to_owned(),
        format!("--digest-sz={ICV}"),
        format!("--buffer-sz={}", setup.size),
        format!("--burst-sz={}", setup.burst),
        "--desc-nb=1024".to_owned(),
        format!("--total-ops={operations}"),
    ]);
    Ok(args)
}

/// The driver's name: what a virtual device's name begins with.
fn devtype(device: &str) -> &str {
    if device.contains(':') {
        // The only hardware that this knows.
        return "crypto_cn10k";
    }
    let name = device.split(',').next().unwrap_or(device);
    name.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// Measures it once.
pub(super) fn run(setup: &Setup, device: &str, operations: u64) -> anyhow::Result<Sample> {
    let output = Command::new(PROGRAM)
        .args(arguments(setup, device, operations)?)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("{PROGRAM} does not start"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!(
            "{PROGRAM}: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    parse(&text)
}

/// Its line: lcore, buffer size, burst size, enqueued, dequeued, enqueues and dequeues that did nothing, million operations
/// a second, gigabits a second, cycles an operation. When decrypting it does not notice that the tags are wrong: the work is
/// the same.
fn parse(text: &str) -> anyhow::Result<Sample> {
    let fields = text
        .lines()
        .map(|line| line.split([',', ';']).map(str::trim).collect::<Vec<_>>())
        .find(|fields| fields.len() == 10 && fields.iter().all(|it| it.parse::<f64>().is_ok()))
        .with_context(|| format!("{PROGRAM} printed no figures:\n{text}"))?;
    let [.., dequeued, _, _, mops, _, cycles] = fields[..] else {
        bail!("{PROGRAM} printed something else:\n{text}");
    };
    let (packets, mpps): (u64, f64) = (dequeued.parse()?, mops.parse()?);
    ensure!(mpps > 0.0, "{PROGRAM} did nothing:\n{text}");
    Ok(Sample {
        mpps,
        packets,
        seconds: packets as f64 / mpps / 1e6,
        cycles_per_packet: Some(cycles.parse()?),
        ..Sample::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_line() {
        let text = "# lcore id, Buffer Size(B), Burst Size,Enqueued\n\n\
                    1,64,32,500000,400000,7,3,2.212,1.132,1107.772\n";
        let sample = parse(text).unwrap();
        assert_eq!((sample.mpps, sample.packets), (2.212, 400_000));
        assert_eq!(sample.cycles_per_packet, Some(1107.772));
        assert!(parse("1,64\n").is_err());
        assert!(parse("1,64,32,500000,0,0,0,0.000,0,0\n").is_err());
    }

    #[test]
    fn drivers_of_devices() {
        assert_eq!(devtype("crypto_aesni_gcm"), "crypto_aesni_gcm");
        assert_eq!(devtype("crypto_openssl12,max_nb_queue_pairs=2"), "crypto_openssl");
        assert_eq!(devtype("0002:20:00.1"), "crypto_cn10k");
    }
}
