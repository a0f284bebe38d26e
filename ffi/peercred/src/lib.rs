//! The supplementary groups of the process at the other end of a Unix socket.
#![allow(unsafe_code, reason = "see the folder's README")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Ids of the supplementary groups that the process at the other end had when it connected, `SO_PEERGROUPS` of
/// unix(7)'s socket options: the kernel's word, not what a user database says now. Its first group, which `SO_PEERCRED`
/// tells, need not be among them.
///
/// # Errors
/// Those of getsockopt(2); `ENODATA` where the other end is not known, `ENOTSOCK`, `EOPNOTSUPP` where it is no Unix socket.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    const _: () = assert!(size_of::<libc::gid_t>() == size_of::<u32>());
    let mut groups = vec![0_u32; 32];
    loop {
        let mut bytes = libc::socklen_t::try_from(groups.len() * size_of::<libc::gid_t>())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the socket is open, `groups` has room for `bytes` bytes, and both places may be written to.
        let ret = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let needed = bytes as usize / size_of::<libc::gid_t>();
        if ret == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Too small: the kernel said how much it takes.
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What the kernel says of this process elsewhere.
    fn own() -> BTreeSet<u32> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Groups:"))
            .unwrap();
        line.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    #[test]
    fn they_are_those_of_the_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let groups: BTreeSet<u32> = peer_groups(one.as_fd()).unwrap().into_iter().collect();
        assert_eq!(groups, own());
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(
            peer_groups(file.as_fd()).unwrap_err().raw_os_error(),
            Some(libc::ENOTSOCK)
        );
    }
}
