//! Whether LXC containers can be started on this machine.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use camino::Utf8Path;
use nexcage_command::{Command, Program};
use nexcage_sandbox::{CgroupTree, INIT};
use rustix::fs::{Access, access};

use super::options::LxcOptions;

/// Oldest LXC that was tried: Debian 12 has 5.0.2, Debian 13 has 6.0.4.
const OLDEST: (u32, u32) = (5, 0);

const DEADLINE: Duration = Duration::from_secs(10);

/// `Err` is the reason, with what to do about it.
pub(crate) async fn check(options: &LxcOptions, cgroups: &CgroupTree) -> Result<(), String> {
    if cgroups.host().root().is_none() {
        return Err(nexcage_sandbox::CgroupError::NotMounted.to_string());
    }
    version().await?;
    let options = options.clone();
    let files = tokio::task::spawn_blocking(move || {
        user_namespaces()?;
        directories(&options)
    });
    files.await.map_err(|e| e.to_string())?
}

async fn version() -> Result<(), String> {
    let program = lxc_start().map_err(|e| e.to_string())?;
    let output = Command::new(&program, DEADLINE)
        .arg("--version")
        .run()
        .await;
    let text = output.map_err(|e| e.to_string())?.stdout_text();
    match parse_version(&text) {
        Some(version) if version >= OLDEST => Ok(()),
        Some(_) => Err(format!(
            "LXC {} is too old; {}.{} or newer is needed, as in Debian 12",
            text.trim(),
            OLDEST.0,
            OLDEST.1
        )),
        None => Err(format!("`{program} --version` answers {:?}", text.trim())),
    }
}

/// The program that starts containers.
pub(crate) fn lxc_start() -> Result<Program, nexcage_command::ProgramError> {
    Program::find("lxc-start", "lxc")
}

/// `6.0.4`, `5.0.2~git2209-g5a7b9ce67`, `7.0.0-devel`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().splitn(3, '.');
    let number = |part: &str| {
        let end = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part[..end].parse().ok()
    };
    Some((number(parts.next()?)?, number(parts.next()?)?))
}

fn user_namespaces() -> Result<(), String> {
    let file = "/proc/sys/user/max_user_namespaces";
    let most = std::fs::read_to_string(file)
        .map_err(|e| format!("the kernel has no user namespaces ({file}: {e})"))?;
    match most.trim() {
        "0" => Err(
            "user namespaces are switched off; run: sysctl user.max_user_namespaces=65536"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

fn directories(options: &LxcOptions) -> Result<(), String> {
    let lxc_path = &options.lxc_path;
    std::fs::create_dir_all(lxc_path)
        .and_then(|()| Ok(access(lxc_path.as_std_path(), Access::WRITE_OK)?))
        .map_err(|e| format!("lxc_path {lxc_path} cannot be written: {e}"))?;
    let init = options.rootfs.join(INIT.trim_start_matches('/'));
    if !init.is_file() {
        return Err(format!(
            "{init} is missing; restart nexcage, which makes it from /usr/bin/catatonit"
        ));
    }
    // The sandbox's root is nobody on the host.
    passable(lxc_path)?;
    passable(&options.rootfs)
}

/// Whether everybody may pass through a directory and all above it.
fn passable(path: &Utf8Path) -> Result<(), String> {
    for directory in path.ancestors() {
        let mode = directory
            .metadata()
            .map_err(|e| format!("{directory} cannot be examined: {e}"))?
            .permissions()
            .mode();
        if mode & 0o001 == 0 {
            return Err(format!(
                "the root of a sandbox, who is nobody here, cannot pass through {directory} to {path}; run: chmod o+x {directory}"
            ));
        }
    }
    Ok(())
}

/// Whether the kernel enforces AppArmor profiles.
pub(crate) fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|enabled| enabled.starts_with('Y'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;

    #[test]
    fn versions() {
        assert_eq!(parse_version("5.0.2\n"), Some((5, 0)));
        assert_eq!(parse_version("6.0.4"), Some((6, 0)));
        assert_eq!(parse_version("5.0.2~git2209-g5a7b9ce67"), Some((5, 0)));
        assert_eq!(parse_version("7.0-devel"), Some((7, 0)));
        assert_eq!(parse_version(""), None);
        assert_eq!(parse_version("lxc"), None);
        assert!(parse_version("4.0.12").unwrap() < OLDEST);
    }

    #[test]
    fn closed_directories_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let closed = Utf8PathBuf::try_from(temp.path().join("closed")).unwrap();
        let inside = closed.join("inside");
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o755)).unwrap();
        passable(&inside).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
        assert!(
            passable(&inside)
                .unwrap_err()
                .contains(&format!("chmod o+x {closed}"))
        );
    }
}
