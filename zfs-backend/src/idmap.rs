//! Idmapped mounts: `mount_setattr(2)`, which rustix does not offer.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lets the files of a mount that is nowhere yet belong to the ids that `userns` maps theirs to.
///
/// # Errors
///
/// `EINVAL` if the file system cannot be mapped, `EPERM` if the namespace has no mapping yet or
/// is the initial one.
pub(crate) fn set_idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    // A descriptor that is open is not negative.
    let userns_fd = u64::try_from(userns.as_raw_fd()).map_err(io::Error::other)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd,
    };
    // SAFETY: the path is a C string, the structure is a `mount_attr` of the size given, both
    // live until the call returns, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
