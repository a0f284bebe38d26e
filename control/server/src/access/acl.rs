//! A second group for a file: an access control list, since the mode has room for one.

use std::io;
use std::path::Path;

use nix::unistd::Gid;
use rustix::fs::{XattrFlags, setxattr};

/// Version and tags of the extended attribute, as in Linux's `include/uapi/linux/posix_acl_xattr.h` and `posix_acl.h`.
const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// For tags that concern no particular user or group.
const UNDEFINED: u32 = u32::MAX;

const READ_WRITE: u16 = 6;

/// Lets owner, group and another group read and write a file, and nobody else.
pub(crate) fn let_group_in(path: &Path, group: Gid) -> io::Result<()> {
    setxattr(
        path,
        "system.posix_acl_access",
        &list(group.as_raw()),
        XattrFlags::empty(),
    )?;
    Ok(())
}

/// In the order in which the kernel wants them.
fn list(group: u32) -> Vec<u8> {
    let entries = [
        (USER_OBJ, READ_WRITE, UNDEFINED),
        (GROUP_OBJ, READ_WRITE, UNDEFINED),
        (GROUP, READ_WRITE, group),
        (MASK, READ_WRITE, UNDEFINED),
        (OTHER, 0, UNDEFINED),
    ];
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_keeps_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let_group_in(file.path(), Gid::from_raw(4711)).unwrap();
        let mut bytes = [0; 128];
        let size = rustix::fs::getxattr(file.path(), "system.posix_acl_access", &mut bytes[..]).unwrap();
        assert_eq!(&bytes[..size], list(4711));
    }
}
