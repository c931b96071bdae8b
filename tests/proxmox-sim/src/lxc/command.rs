//! LXC's command socket: `\0<lxcpath>/<name>/command`. Whoever listens there is the monitor of a running container, whoever started it.
//!
//! A request is two integers and a pointer, which means nothing here, and then its data; so is an answer (`struct lxc_cmd_req` and
//! `struct lxc_cmd_rsp` in LXC's `commands.h`).

use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use camino::Utf8Path;

/// How long a monitor may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Longest data of an answer.
const MAX_DATA: usize = 64 << 10;

const GET_STATE: i32 = 3;
const GET_INIT_PID: i32 = 4;
const GET_CGROUP: i32 = 6;
const GET_LIMIT_CGROUP: i32 = 19;

/// What a container is doing. In between are states that last for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is gone, or nearly.
    Stopped,
    /// It is being started.
    Starting,
    /// It runs.
    Running,
    /// Anything else, as LXC numbers it.
    Other(i64),
}

/// Asks a container's monitor. `Ok(None)` is: nobody listens, so it does not run.
fn ask(lxc_path: &Utf8Path, name: &str, command: i32, data: &[u8]) -> io::Result<Option<Answer>> {
    let address = SocketAddr::from_abstract_name(format!("{lxc_path}/{name}/command"))?;
    let mut socket = match UnixStream::connect_addr(&address) {
        Ok(socket) => socket,
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(e) => return Err(e),
    };
    // Else the kernel does not always tell the monitor who asks.
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    socket.write_all(&request(command, data))?;
    socket.write_all(data)?;
    let mut head = [0; 16];
    socket.read_exact(&mut head)?;
    let (result, length, pointer) = response(&head);
    let length = usize::try_from(length).unwrap_or(0);
    if length > MAX_DATA {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut data = vec![0; length];
    socket.read_exact(&mut data)?;
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    Ok(Some(Answer { pointer, data }))
}

struct Answer {
    /// Small answers are in the pointer itself.
    pointer: i64,
    data: Vec<u8>,
}

fn request(command: i32, data: &[u8]) -> [u8; 16] {
    let mut head = [0; 16];
    head[..4].copy_from_slice(&command.to_ne_bytes());
    let length = i32::try_from(data.len()).unwrap_or(i32::MAX);
    head[4..8].copy_from_slice(&length.to_ne_bytes());
    head
}

fn response(head: &[u8; 16]) -> (i32, i32, i64) {
    let [a, b, c, d, e, f, g, h, pointer @ ..] = *head;
    let result = i32::from_ne_bytes([a, b, c, d]);
    let length = i32::from_ne_bytes([e, f, g, h]);
    (result, length, i64::from_ne_bytes(pointer))
}

/// What a container is doing.
///
/// # Errors
///
/// Its monitor does not answer.
pub fn state(lxc_path: &Utf8Path, vmid: u32) -> io::Result<State> {
    let answer = ask(lxc_path, &vmid.to_string(), GET_STATE, &[])?;
    Ok(match answer.map(|answer| answer.pointer) {
        None | Some(0) => State::Stopped,
        Some(1) => State::Starting,
        Some(2) => State::Running,
        Some(other) => State::Other(other),
    })
}

/// The container's first process; `None` if it does not run.
///
/// # Errors
///
/// Its monitor does not answer.
pub fn init_pid(lxc_path: &Utf8Path, vmid: u32) -> io::Result<Option<u32>> {
    let answer = ask(lxc_path, &vmid.to_string(), GET_INIT_PID, &[])?;
    let pid = answer.and_then(|answer| u32::try_from(answer.pointer).ok());
    Ok(pid.filter(|pid| *pid > 0))
}

/// The container's cgroup for a controller, below the root of its hierarchy: the one that limits are set on.
///
/// # Errors
///
/// Its monitor does not answer.
pub fn limiting_cgroup(
    lxc_path: &Utf8Path,
    vmid: u32,
    controller: &str,
) -> io::Result<Option<String>> {
    let name = vmid.to_string();
    let controller = format!("{controller}\0");
    let answer = match ask(lxc_path, &name, GET_LIMIT_CGROUP, controller.as_bytes()) {
        Ok(answer) => answer,
        // A monitor of an older LXC does not know the question.
        Err(_) => ask(lxc_path, &name, GET_CGROUP, controller.as_bytes())?,
    };
    let Some(answer) = answer else {
        return Ok(None);
    };
    let path = answer.data.split(|b| *b == 0).next().unwrap_or_default();
    let path = String::from_utf8_lossy(path).trim_matches('/').to_owned();
    if path.split('/').any(|part| part == "..") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(path))
}

/// Containers of a directory that somebody listens for, by the names of their sockets.
///
/// # Errors
///
/// `/proc/net/unix` cannot be read.
pub fn active(lxc_path: &Utf8Path) -> io::Result<Vec<u32>> {
    let sockets = std::fs::read_to_string("/proc/net/unix")?;
    Ok(active_in(&sockets, lxc_path))
}

fn active_in(sockets: &str, lxc_path: &Utf8Path) -> Vec<u32> {
    let lines = sockets.lines().filter_map(|line| {
        let name = line.split_whitespace().nth(7)?.strip_prefix('@')?;
        let name = name.strip_prefix(lxc_path.as_str())?.strip_prefix('/')?;
        name.strip_suffix("/command")?.parse().ok()
    });
    let mut vmids: Vec<u32> = lines.collect();
    vmids.sort_unstable();
    vmids.dedup();
    vmids
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A monitor that answers one question.
    fn monitor(
        dir: &Utf8Path,
        vmid: u32,
        answer: (i32, i64, &'static [u8]),
    ) -> std::thread::JoinHandle<(i32, Vec<u8>)> {
        let address = SocketAddr::from_abstract_name(format!("{dir}/{vmid}/command")).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut head = [0; 16];
            socket.read_exact(&mut head).unwrap();
            let (command, length, _) = response(&head);
            let mut data = vec![0; usize::try_from(length).unwrap()];
            socket.read_exact(&mut data).unwrap();
            let (result, pointer, extra) = answer;
            let mut reply = request(result, extra);
            reply[8..].copy_from_slice(&pointer.to_ne_bytes());
            socket.write_all(&reply).unwrap();
            socket.write_all(extra).unwrap();
            (command, data)
        })
    }

    fn dir() -> camino::Utf8PathBuf {
        let unique = format!(
            "/nexcage-test/{}/{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        unique.into()
    }

    #[test]
    fn questions_and_answers() {
        let dir = dir();
        let asked = monitor(&dir, 100, (0, 2, b""));
        assert_eq!(state(&dir, 100).unwrap(), State::Running);
        assert_eq!(asked.join().unwrap(), (GET_STATE, vec![]));
        let asked = monitor(&dir, 100, (0, 4242, b""));
        assert_eq!(init_pid(&dir, 100).unwrap(), Some(4242));
        asked.join().unwrap();
        let asked = monitor(&dir, 100, (0, 0, b"/lxc/100\0"));
        let path = limiting_cgroup(&dir, 100, "memory").unwrap();
        assert_eq!(path.as_deref(), Some("lxc/100"));
        assert_eq!(
            asked.join().unwrap(),
            (GET_LIMIT_CGROUP, b"memory\0".to_vec())
        );
        let asked = monitor(&dir, 100, (-libc::ENOSYS, 0, b""));
        assert!(init_pid(&dir, 100).is_err());
        asked.join().unwrap();
    }

    #[test]
    fn nobody_listens() {
        let dir = dir();
        assert_eq!(state(&dir, 1).unwrap(), State::Stopped);
        assert_eq!(init_pid(&dir, 1).unwrap(), None);
        assert_eq!(limiting_cgroup(&dir, 1, "cpu").unwrap(), None);
    }

    #[test]
    fn sockets_are_found() {
        let table = "\
Num       RefCount Protocol Flags    Type St Inode Path\n\
0000000000000000: 00000002 00000000 00010000 0001 01 123 @/var/lib/lxc/100/command\n\
0000000000000000: 00000003 00000000 00000000 0001 03 124 @/var/lib/lxc/100/command\n\
0000000000000000: 00000002 00000000 00010000 0001 01 125 @/var/lib/lxc/nexcage-x/command\n\
0000000000000000: 00000002 00000000 00010000 0001 01 126 @/srv/lxc/101/command\n\
0000000000000000: 00000002 00000000 00010000 0001 01 127 /run/systemd/notify\n\
0000000000000000: 00000002 00000000 00010000 0001 01 128\n";
        assert_eq!(active_in(table, "/var/lib/lxc".into()), [100]);
    }
}
