//! Namespaces of a pod whose containers live in the host's user namespace.
//!
//! A sandbox has a user namespace of its own, and if it made the pod's network, IPC and UTS namespaces, they would belong to
//! that. A process of the host's root has every capability over namespaces that root's own child user namespaces own
//! (user_namespaces(7), "the owner of the user namespace"), so a container that dropped `NET_ADMIN` could still
//! change the pod's network. These namespaces are therefore made here, in the host's user namespace, and given to the sandbox:
//! then a container's capabilities are what they say.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use camino::Utf8Path;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::netns::{NetnsError, pin_file};

/// The IPC and UTS namespaces of a pod, open. They last as long as this or a process in them.
#[derive(Debug)]
pub struct SharedNamespaces {
    /// Made new.
    pub ipc: OwnedFd,
    /// Made new, with the pod's host name.
    pub uts: OwnedFd,
}

impl SharedNamespaces {
    /// Makes both.
    ///
    /// # Errors
    ///
    /// What the kernel says; nothing is left.
    pub async fn make(hostname: &str) -> io::Result<Self> {
        let hostname = hostname.to_owned();
        on_own_thread(UnshareFlags::NEWIPC | UnshareFlags::NEWUTS, move || {
            rustix::system::sethostname(hostname.as_bytes())?;
            let open = |name| File::open(format!("/proc/thread-self/ns/{name}")).map(OwnedFd::from);
            Ok(Self {
                ipc: open("ipc")?,
                uts: open("uts")?,
            })
        })
        .await
    }
}

/// Makes a network namespace with only `lo` in it, up, and pins it at `path` as
/// [`pin_netns`](crate::pin_netns) does.
///
/// # Errors
///
/// [`NetnsError`]; nothing is pinned then.
pub async fn make_netns(path: &Utf8Path) -> Result<(), NetnsError> {
    let at = path.to_owned();
    let made = on_own_thread(UnshareFlags::NEWNET, move || {
        bring_up_loopback()?;
        pin_file(&File::open("/proc/thread-self/ns/net")?, &at)
    });
    made.await.map_err(|source| NetnsError {
        doing: "make a network namespace at",
        path: path.to_owned(),
        source,
    })
}

/// Switches `lo` on in the network namespace that is pinned at `path`. [`make_netns`] has done it; where the sandbox made the
/// namespace, nobody has.
///
/// # Errors
///
/// [`NetnsError`].
pub async fn enable_loopback(path: &Utf8Path) -> Result<(), NetnsError> {
    let at = path.to_owned();
    let enabled = on_own_thread(UnshareFlags::empty(), move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(File::open(&at)?.as_fd(), network)?;
        bring_up_loopback()
    });
    enabled.await.map_err(|source| NetnsError {
        doing: "switch on the loopback interface in",
        path: path.to_owned(),
        source,
    })
}

/// Switches `lo` on in the network namespace of the calling thread, and with it 127.0.0.1 and, where the kernel has IPv6, ::1
/// (netdevice(7)). Other runtimes have a CNI plugin do it, which is a process for two system calls.
fn bring_up_loopback() -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    // SAFETY: zeros are a name of no bytes, followed by zeros; the union holds plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from.cast_signed();
    }
    for number in [libc::SIOCGIFFLAGS, libc::SIOCSIFFLAGS] {
        // SAFETY: both calls take this structure, the first one fills in the flags, and it lives until they return.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), number, &raw mut request) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: after the first call the union holds the flags, which is what is changed for the second one.
        #[allow(clippy::cast_possible_truncation, reason = "IFF_UP is 1")]
        unsafe {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        }
    }
    Ok(())
}

/// Runs `work` on a thread that has left the daemon's namespaces and so must never go back to a pool: it ends.
async fn on_own_thread<T: Send + 'static>(
    leave: UnshareFlags,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("namespaces".to_owned())
        .spawn(move || {
            // SAFETY: unsafe for the sake of CLONE_FILES, which is not among the flags: a thread that gets
            // other namespaces shares all its memory and files as before.
            let left = unsafe { unshare_unsafe(leave) };
            let _ = answer.send(left.map_err(io::Error::from).and_then(|()| work()));
        })?;
    answered.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[tokio::test]
    async fn a_loopback_that_is_up_has_addresses() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making network namespaces needs root");
            return;
        }
        let to_itself = |address: &str| {
            let socket = UdpSocket::bind((address, 0))?;
            socket.send_to(b"hello", socket.local_addr()?)
        };
        let made = on_own_thread(UnshareFlags::NEWNET, move || {
            // Nothing else switches it on.
            assert!(to_itself("127.0.0.1").is_err());
            bring_up_loopback()?;
            to_itself("127.0.0.1")?;
            if std::path::Path::new("/proc/net/if_inet6").exists() {
                to_itself("::1")?;
            }
            Ok(())
        });
        made.await.unwrap();
    }
}
