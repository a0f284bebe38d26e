//! Capture files: packets in by port and time, packets out by port.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use octoplane_tables::model::PortId;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};

use crate::sim::{BEGIN, Outcome, Sim};

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It is not there, or not for us.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// It is no capture file, or breaks off.
    #[error("{0}: {1}")]
    Format(PathBuf, PcapError),
    /// Its packets are not Ethernet frames.
    #[error("{0}: link type {1:?}, expected ETHERNET")]
    Link(PathBuf, DataLink),
}

/// A frame with its place and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When it was captured.
    pub time: Duration,
    /// The port that receives it.
    pub port: PortId,
    /// All of it that was captured.
    pub frame: Vec<u8>,
}

/// Reads what ports receive, in the order of time; what has the same time is in the order of the files.
///
/// # Errors
/// [`CaptureError`]
pub fn read(files: &[(PortId, PathBuf)]) -> Result<Vec<Arrival>, CaptureError> {
    let mut arrivals = Vec::new();
    for (port, path) in files {
        let file = File::open(path).map_err(|error| CaptureError::Io(path.clone(), error))?;
        let bad = |error| CaptureError::Format(path.clone(), error);
        let mut reader = PcapReader::new(BufReader::new(file)).map_err(bad)?;
        let link = reader.header().datalink;
        if link != DataLink::ETHERNET {
            return Err(CaptureError::Link(path.clone(), link));
        }
        while let Some(packet) = reader.next_packet() {
            let packet = packet.map_err(bad)?;
            arrivals.push(Arrival {
                time: packet.timestamp,
                port: *port,
                frame: packet.data.into_owned(),
            });
        }
    }
    arrivals.sort_by_key(|it| it.time);
    Ok(arrivals)
}

/// Has the ports receive what was captured, each frame at its time, counted from the first. Returns everything that came
/// out; frames with the time they left at.
pub fn replay(sim: &mut Sim, arrivals: &[Arrival]) -> (Vec<Arrival>, Outcome) {
    let first = arrivals.first().map_or(Duration::ZERO, |it| it.time);
    let mut sent = Vec::new();
    let mut all = Outcome::default();
    let mut collect = |sim: &mut Sim| {
        let outcome = sim.take();
        let time = first + Duration::from_nanos(sim.now() - BEGIN);
        sent.extend(outcome.sent.iter().map(|(port, frame)| Arrival {
            time,
            port: *port,
            frame: frame.clone(),
        }));
        for (key, count) in outcome.drops {
            *all.drops.entry(key).or_default() += count;
        }
        all.punted += outcome.punted;
        all.consumed += outcome.consumed;
        all.answered += outcome.answered;
        all.audited += outcome.audited;
        all.neighbours.extend(outcome.neighbours);
    };
    for it in arrivals {
        let due = BEGIN.saturating_add(u64::try_from((it.time - first).as_nanos()).unwrap_or(u64::MAX));
        if due > sim.now() {
            sim.advance(due - sim.now());
            collect(sim);
        }
        sim.inject(it.port, &[&it.frame]);
        collect(sim);
    }
    (sent, all)
}

/// Writes one file for each port of `names` into a directory: `<port>.pcap`, with the frames that left by it.
///
/// # Errors
/// [`CaptureError`]
pub fn write(directory: &Path, names: &[&str], sent: &[Arrival]) -> Result<(), CaptureError> {
    std::fs::create_dir_all(directory).map_err(|error| CaptureError::Io(directory.into(), error))?;
    for (port, name) in names.iter().enumerate() {
        let path = directory.join(format!("{name}.pcap"));
        let file = File::create(&path).map_err(|error| CaptureError::Io(path.clone(), error))?;
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let bad = |error| CaptureError::Format(path.clone(), error);
        let mut writer = PcapWriter::with_header(BufWriter::new(file), header).map_err(bad)?;
        for it in sent.iter().filter(|it| usize::from(it.port) == port) {
            let packet = PcapPacket::new(it.time, it.frame.len() as u32, &it.frame);
            writer.write_packet(&packet).map_err(bad)?;
        }
        // Dropped, it would keep to itself that the disk is full.
        let flushed = writer.into_writer().flush();
        flushed.map_err(|error| CaptureError::Io(path.clone(), error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join("pod1.pcap")).unwrap();
        let one = Arrival {
            time: Duration::from_secs(1),
            port: 0,
            frame: vec![0; 60],
        };
        let error = write(directory.path(), &["pod1"], &[one])
            .unwrap_err()
            .to_string();
        assert!(error.contains("pod1.pcap: No space left on device"), "{error}");
    }
}
