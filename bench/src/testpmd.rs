//! The other yardstick: `dpdk-testpmd` in macswap mode on the same source.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::cli::MemoryKind;
use crate::job::Setup;
use crate::sample::Sample;

const PROGRAM: &str = "dpdk-testpmd";
const PROMPT: &str = "testpmd> ";
/// How long it may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the program is installed.
pub(crate) fn installed() -> bool {
    Command::new(PROGRAM)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .and_then(|mut child| child.wait())
        .is_ok()
}

/// Measures it once.
pub(crate) fn run(setup: &Setup) -> anyhow::Result<Sample> {
    let mut testpmd = Testpmd::start(setup)?;
    testpmd.wait_for_prompt()?;
    sleep(setup.warmup());
    let start = Instant::now();
    testpmd.command("show port stats all")?;
    sleep(setup.duration());
    testpmd.command("show port stats all")?;
    let seconds = start.elapsed().as_secs_f64();
    let text = testpmd.quit()?;
    let sample = parse(&text, seconds)?;
    ensure!(sample.packets > 0, "{PROGRAM} forwarded nothing:\n{text}");
    Ok(sample)
}

fn arguments(setup: &Setup) -> Vec<String> {
    let mut lcores = format!("0@{}", setup.control);
    for (index, cpu) in setup.workers.iter().enumerate() {
        lcores.push_str(&format!(",{}@{cpu}", index + 1));
    }
    let mut args = vec![
        format!("--lcores={lcores}"),
        "--no-pci".to_owned(),
        "--no-telemetry".to_owned(),
        "--log-level=error".to_owned(),
    ];
    match setup.memory {
        MemoryKind::Hugepages => args.push("--in-memory".to_owned()),
        MemoryKind::None => args.extend([
            "--no-huge".to_owned(),
            "--no-shconf".to_owned(),
            format!("-m{}", setup.megabytes()),
        ]),
    }
    args.extend(setup.vdevs().iter().map(|vdev| format!("--vdev={vdev}")));
    let queues = setup.workers.len();
    args.extend([
        "--".to_owned(),
        "--interactive".to_owned(),
        "--auto-start".to_owned(),
        // Emptying the queues first would never end.
        "--no-flush-rx".to_owned(),
        "--forward-mode=macswap".to_owned(),
        format!("--burst={}", setup.burst),
        format!("--mbcache={}", setup.mbuf_cache),
        format!("--total-num-mbufs={}", setup.mbufs),
        format!("--nb-cores={queues}"),
        format!("--rxq={queues}"),
        format!("--txq={queues}"),
        "--rxd=1024".to_owned(),
        "--txd=1024".to_owned(),
    ]);
    args
}

/// The running program. Dropping it ends it.
struct Testpmd {
    child: Child,
    stdin: ChildStdin,
    output: Receiver<Vec<u8>>,
    text: Vec<u8>,
}

impl Testpmd {
    fn start(setup: &Setup) -> anyhow::Result<Self> {
        let mut child = Command::new(PROGRAM)
            .args(arguments(setup))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("{PROGRAM} does not start"))?;
        let (Some(stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{PROGRAM} has no pipes");
        };
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut chunk) {
                if sender.send(chunk[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            stdin,
            output,
            text: Vec::new(),
        })
    }

    fn wait_for_prompt(&mut self) -> anyhow::Result<()> {
        while !String::from_utf8_lossy(&self.text).contains(PROMPT) {
            match self.output.recv_timeout(PATIENCE) {
                Ok(chunk) => self.text.extend(chunk),
                Err(_) => bail!(
                    "{PROGRAM} does not come up:\n{}",
                    String::from_utf8_lossy(&self.text)
                ),
            }
        }
        Ok(())
    }

    fn command(&mut self, line: &str) -> anyhow::Result<()> {
        self.stdin.write_all(line.as_bytes())?;
        self.stdin.write_all(b"\n")?;
        Ok(self.stdin.flush()?)
    }

    /// Ends it in order and returns what it printed.
    fn quit(mut self) -> anyhow::Result<String> {
        self.command("stop")?;
        self.command("quit")?;
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(chunk) => self.text.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => break,
                // Dropped, it is killed.
                Err(RecvTimeoutError::Timeout) => bail!("{PROGRAM}: it does not end"),
            }
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "{PROGRAM}: {status}");
        Ok(String::from_utf8_lossy(&self.text).into_owned())
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // It has ended already, or must: neither call can do more about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads two printings of all ports' counters: throughput since the first stands in the second.
fn parse(text: &str, seconds: f64) -> anyhow::Result<Sample> {
    let blocks: Vec<&str> = text.split("NIC statistics for port").skip(1).collect();
    ensure!(
        !blocks.is_empty() && blocks.len().is_multiple_of(2),
        "{PROGRAM} printed no counters:\n{text}"
    );
    let (before, after) = blocks.split_at(blocks.len() / 2);
    let sum = |blocks: &[&str], key: &str| -> u64 {
        blocks.iter().filter_map(|block| number_behind(block, key)).sum()
    };
    let dropped = text
        .rsplit_once("Accumulated forward statistics")
        .and_then(|(_, tail)| number_behind(tail, "TX-dropped:"))
        .unwrap_or(0);
    let mut drops = BTreeMap::new();
    if dropped > 0 {
        drops.insert("TX-dropped".to_owned(), dropped);
    }
    Ok(Sample {
        mpps: sum(after, "Tx-pps:") as f64 / 1e6,
        packets: sum(after, "TX-packets:").saturating_sub(sum(before, "TX-packets:")),
        seconds,
        drops,
        ..Sample::default()
    })
}

fn number_behind(text: &str, key: &str) -> Option<u64> {
    text.split_once(key)?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "
  ######################## NIC statistics for port 0  ########################
  RX-packets: 1000       RX-missed: 0          RX-bytes:  60000
  RX-errors: 0
  RX-nombuf:  0
  TX-packets: 900        TX-errors: 0          TX-bytes:  54000

  Throughput (since last show)
  Rx-pps:      2000000          Rx-bps:            0
  Tx-pps:      1500000          Tx-bps:            0
";

    #[test]
    fn throughput_is_that_of_the_second_printing() {
        let first = BLOCK.replace("1500000", "7").replace("900", "100");
        let tail =
            "Accumulated forward statistics for all ports\n  TX-packets: 900 TX-dropped: 3  TX-total: 903";
        let text = format!("{PROMPT}{first}{first}{PROMPT}{BLOCK}{BLOCK}{tail}");
        let sample = parse(&text, 1.0).unwrap();
        assert_eq!((sample.mpps, sample.packets, sample.dropped()), (3.0, 1600, 3));
        assert!(parse("nothing", 1.0).is_err());
    }
}
