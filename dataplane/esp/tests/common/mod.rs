//! What several tests need.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "helpers of tests")]

pub mod lab;

use std::sync::Arc;

use octoplane_esp::{Job, JobStatus, Operation, Provider, Session, SessionId, SessionLookup, Span};
use octoplane_packet::{HeapBuf, PacketBuf};

/// Bytes of hexadecimal digits; blanks do not count.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    assert_eq!(digits.len() % 2, 0, "{text}");
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// One session and its name.
pub struct OneSession(pub Arc<Session>);

impl SessionLookup for OneSession {
    fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        (self.0.id() == id).then_some(&self.0)
    }
}

/// A job over `packet`, in which `text` bytes stand behind `head`, and room for the ICV behind those.
pub fn job(
    session: &Session,
    packet: &[u8],
    head: usize,
    text: usize,
    nonce: &[u8],
    aad: &[u8],
) -> Job<HeapBuf> {
    let mut fixed_nonce = [0; 16];
    fixed_nonce[..nonce.len()].copy_from_slice(nonce);
    let mut fixed_aad = [0; 12];
    fixed_aad[..aad.len()].copy_from_slice(aad);
    Job {
        buf: HeapBuf::new(packet),
        session: session.id(),
        operation: session.operation(),
        status: JobStatus::Pending,
        esp: 0,
        cipher: Span {
            offset: head as u16,
            len: text as u16,
        },
        nonce: fixed_nonce,
        aad: fixed_aad,
        esn_high: None,
        sequence: 0,
        esp_state: 0,
        cookie: [1, 2, 3],
    }
}

/// Submits one job and takes it back.
pub fn run(
    provider: &mut dyn Provider<HeapBuf>,
    sessions: &dyn SessionLookup,
    job: Job<HeapBuf>,
) -> (JobStatus, Vec<u8>) {
    let mut jobs = vec![job];
    assert_eq!(provider.submit(sessions, &mut jobs), 1);
    let mut done = Vec::with_capacity(1);
    assert_eq!(provider.poll(&mut done, usize::MAX), 1);
    let job = done.pop().unwrap();
    assert_eq!(job.cookie, [1, 2, 3]);
    (job.status, job.buf.data().to_vec())
}

/// The two sessions with these keys.
pub fn pair(
    algorithm: octoplane_esp::Algorithm,
    esn: bool,
    keys: &octoplane_esp::KeyMaterial,
) -> (OneSession, OneSession) {
    let session = |operation, index| {
        let id = SessionId { index, generation: 7 };
        OneSession(Arc::new(
            Session::new(id, operation, algorithm, esn, keys.clone()).unwrap(),
        ))
    };
    (session(Operation::Encrypt, 0), session(Operation::Decrypt, 1))
}
