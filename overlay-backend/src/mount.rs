//! Mounting and unmounting.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
};

/// What `mount(2)` takes as options: a page, with the NUL at its end.
const OPTIONS_MAX: usize = 4095;

/// Options of every mount. No feature that needs a record of file handles or stores names of other
/// layers: layers are written by us, bare, and an upper layer may come under a new stack.
const OPTIONS: [(&str, &str); 3] = [
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "nofollow"),
];

/// What to mount.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// Uppermost first; at least two if there is no upper.
    pub(crate) lowers: &'a [Utf8PathBuf],
    /// Upper and work directory. Without, the mount is read-only.
    pub(crate) upper: Option<(Utf8PathBuf, Utf8PathBuf)>,
}

/// Why an overlay could not be mounted.
#[derive(Debug)]
pub(crate) enum MountError {
    /// The kernel said no, and perhaps in words why.
    Kernel(io::Error, String),
    /// The kernel is too old for so many layers.
    TooManyLayers(usize),
}

impl From<Errno> for MountError {
    fn from(e: Errno) -> Self {
        Self::Kernel(e.into(), String::new())
    }
}

/// Mounts `view` at `target`.
pub(crate) fn mount(view: &View<'_>, target: &Utf8Path) -> Result<(), MountError> {
    match new_mount(view)? {
        Some(mount) => Ok(rustix::mount::move_mount(
            mount,
            "",
            CWD,
            target.as_std_path(),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?),
        None => old_mount(view, target),
    }
}

/// Makes a mount that is nowhere yet. `None` if this kernel (before 6.8) cannot be given layers one by one.
fn new_mount(view: &View<'_>) -> Result<Option<OwnedFd>, MountError> {
    let context = match rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(Errno::NOSYS) => return Ok(None),
        context => context?,
    };
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(&context, key, value)
            .map_err(|e| MountError::Kernel(e.into(), messages(&context)))
    };
    set("source", "overlay")?;
    for (i, lower) in view.lowers.iter().enumerate() {
        match rustix::mount::fsconfig_set_string(&context, "lowerdir+", lower.as_str()) {
            Err(Errno::INVAL) if i == 0 => return Ok(None),
            Err(e) => return Err(MountError::Kernel(e.into(), messages(&context))),
            Ok(()) => {}
        }
    }
    for (key, value) in OPTIONS {
        set(key, value)?;
    }
    let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    if let Some((upper, work)) = &view.upper {
        set("upperdir", upper.as_str())?;
        set("workdir", work.as_str())?;
        attributes = MountAttrFlags::empty();
    }
    rustix::mount::fsconfig_create(&context)
        .map_err(|e| MountError::Kernel(e.into(), messages(&context)))?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(Some(rustix::mount::fsmount(&context, flags, attributes)?))
}

/// What the kernel has to say of a mount that failed: `e overlay: ...` per message.
fn messages(context: &OwnedFd) -> String {
    let Ok(context) = context.try_clone() else {
        return String::new();
    };
    let mut file = std::fs::File::from(context);
    let mut said = String::new();
    let mut buffer = [0_u8; 1024];
    // One message per read, until there are none.
    while let Ok(n @ 1..) = file.read(&mut buffer) {
        let _ = write!(
            said,
            "; {}",
            String::from_utf8_lossy(&buffer[..n]).trim_end()
        );
    }
    said
}

/// Mounts with `mount(2)`, whose options are one string.
fn old_mount(view: &View<'_>, target: &Utf8Path) -> Result<(), MountError> {
    let (mut options, keep) = match options(view, view.lowers.to_vec()) {
        options if options.len() <= OPTIONS_MAX => (options, None),
        // Most of it are copies of one long path: name that by a descriptor.
        _ => {
            let parent = view.lowers.first().and_then(|l| l.parent());
            let dir = parent.ok_or(Errno::INVAL)?;
            let fd = rustix::fs::open(
                dir.as_std_path(),
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?;
            let short = |lower: &Utf8PathBuf| match lower.strip_prefix(dir) {
                Ok(name) => format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()).into(),
                Err(_) => lower.clone(),
            };
            (
                options(view, view.lowers.iter().map(short).collect()),
                Some(fd),
            )
        }
    };
    if options.len() > OPTIONS_MAX {
        return Err(MountError::TooManyLayers(view.lowers.len()));
    }
    let flags = match view.upper {
        Some(_) => MountFlags::empty(),
        None => MountFlags::RDONLY,
    };
    options.push('\0');
    let data = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", target.as_std_path(), "overlay", flags, data)?;
    drop(keep);
    Ok(())
}

fn options(view: &View<'_>, lowers: Vec<Utf8PathBuf>) -> String {
    let lowers: Vec<String> = lowers.into_iter().map(Utf8PathBuf::into_string).collect();
    let mut options = format!("lowerdir={}", lowers.join(":"));
    for (key, value) in OPTIONS {
        let _ = write!(options, ",{key}={value}");
    }
    if let Some((upper, work)) = &view.upper {
        let _ = write!(options, ",upperdir={upper},workdir={work}");
    }
    options
}

/// Whether something is mounted right at `path`.
pub(crate) fn is_mounted(path: &Utf8Path) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, path.as_std_path(), flags, StatxFlags::empty()) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Unmounts whatever is mounted at `path` and removes the mount point. A mount that is in use
/// leaves the tree at once and ends when its last user does.
pub(crate) fn unmount(path: &Utf8Path) -> io::Result<()> {
    while is_mounted(path)? {
        let gone = match rustix::mount::unmount(path.as_std_path(), UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => rustix::mount::unmount(
                path.as_std_path(),
                UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
            ),
            other => other,
        };
        match gone {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_one_string() {
        let lowers = ["/s/l/2".into(), "/s/l/1".into()];
        let view = View {
            lowers: &lowers,
            upper: Some(("/s/c/x/upper".into(), "/s/c/x/work".into())),
        };
        assert_eq!(
            options(&view, lowers.to_vec()),
            "lowerdir=/s/l/2:/s/l/1,index=off,metacopy=off,redirect_dir=nofollow,\
             upperdir=/s/c/x/upper,workdir=/s/c/x/work"
        );
    }

    /// Kernels before 6.8 get this way.
    #[test]
    fn the_old_way_takes_as_many_layers_as_fit_a_page() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let dir = tempfile::Builder::new()
            .prefix("nexcage-overlay-")
            .tempdir()
            .unwrap();
        let root = Utf8PathBuf::try_from(dir.path().to_owned()).unwrap();
        let layers = root.join("a-directory-with-a-rather-long-name");
        for n in 0..=300 {
            std::fs::create_dir_all(layers.join(n.to_string())).unwrap();
            std::fs::write(layers.join(n.to_string()).join(format!("f{n}")), "x").unwrap();
        }
        let target = root.join("target");
        for count in [2_usize, 130, 300] {
            std::fs::create_dir_all(&target).unwrap();
            let lowers: Vec<_> = (1..=count).map(|n| layers.join(n.to_string())).collect();
            let view = View {
                lowers: &lowers,
                upper: None,
            };
            match old_mount(&view, &target) {
                Ok(()) => {
                    assert!(count < 300);
                    assert_eq!(std::fs::read_dir(&target).unwrap().count(), count);
                    unmount(&target).unwrap();
                }
                Err(MountError::TooManyLayers(n)) => assert_eq!((n, count), (300, 300)),
                Err(e) => panic!("{count}: {e:?}"),
            }
        }
    }
}
