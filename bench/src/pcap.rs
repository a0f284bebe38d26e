//! Capture files, as net_pcap reads them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::frames::Frame;

/// Writes frames into a classic capture file of link type Ethernet.
pub(crate) fn write(path: &Path, frames: &[Frame]) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
    // Magic number, version 2.4 as two 16-bit words, time zone, accuracy, longest packet, link type.
    file.write_all(&0xa1b2_c3d4_u32.to_ne_bytes())?;
    file.write_all(&2_u16.to_ne_bytes())?;
    file.write_all(&4_u16.to_ne_bytes())?;
    file.write_all(&words(&[0, 0, 65_535, 1]))?;
    for frame in frames {
        let len = frame.len() as u32;
        file.write_all(&words(&[0, 0, len, len]))?;
        file.write_all(frame.header())?;
        file.write_all(&vec![0; frame.len() - frame.header().len()])?;
    }
    file.flush()
}
