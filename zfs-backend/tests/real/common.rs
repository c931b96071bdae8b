//! A pool of its own for each test, and layers to put into it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Output};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_image_store::apply::ApplyLimits;
use nexcage_image_store::{
    ChainId, Digest, LayerStore, LayerStoreError, MountOptions, RootfsId, RootfsOptions,
    SpooledLayer, StoredLayer,
};
use nexcage_zfs::{ZfsOptions, ZfsStore};

/// Begins the names of pools and directories of these tests; the process id and a dash follow.
const PREFIX: &str = "nexcagetest";

#[allow(clippy::disallowed_methods, reason = "a test's own processes")]
fn command(program: &str, args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.args(args);
    command
}

fn output(program: &str, args: &[&str]) -> Output {
    command(program, args).output().unwrap()
}

/// Runs a program that must succeed, and gives what it wrote.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = output(program, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn zfs(args: &[&str]) -> String {
    run("zfs", args)
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(program: &str, args: &[&str]) -> Self {
        Self(command(program, args).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs this program's test `name` with an environment variable; whether it was killed.
pub(crate) fn killed_in(name: &str, env: &[(&str, &str)]) -> bool {
    let me = std::env::current_exe().unwrap();
    let mut command = command(me.to_str().unwrap(), &["--exact", name, "--nocapture"]);
    command.envs(env.iter().copied());
    let output = command.output().unwrap();
    let killed = output.status.signal() == Some(9);
    if !killed {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    killed
}

/// A pool on a file, and directories for a store. All of it goes when dropped, and nothing may hold it.
pub(crate) struct Place {
    pub(crate) dir: Utf8PathBuf,
    pub(crate) pool: String,
    owned: bool,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with_size("2G", "")
    }

    /// A pool of `size` on a file; on a tmpfs of `room` if that is not empty.
    pub(crate) fn with_size(size: &str, room: &str) -> Self {
        sweep();
        let name = format!(
            "{PREFIX}{}-{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let dir = Utf8PathBuf::from(format!("/var/tmp/{name}"));
        std::fs::create_dir_all(dir.join("disk")).unwrap();
        let place = Self {
            dir,
            pool: name,
            owned: true,
        };
        if !room.is_empty() {
            let options = format!("size={room}");
            run(
                "mount",
                &[
                    "-t",
                    "tmpfs",
                    "-o",
                    &options,
                    "disk",
                    place.disk_dir().as_str(),
                ],
            );
        }
        run("truncate", &["-s", size, place.disk().as_str()]);
        run(
            "zpool",
            &[
                "create",
                "-O",
                "mountpoint=none",
                &place.pool,
                place.disk().as_str(),
            ],
        );
        zfs(&["create", &place.dataset("")]);
        place
    }

    /// The place of another process.
    pub(crate) fn of(dir: &str) -> Self {
        let dir = Utf8PathBuf::from(dir);
        Self {
            pool: dir.file_name().unwrap().to_owned(),
            dir,
            owned: false,
        }
    }

    pub(crate) fn disk_dir(&self) -> Utf8PathBuf {
        self.dir.join("disk")
    }

    fn disk(&self) -> Utf8PathBuf {
        self.disk_dir().join("disk")
    }

    /// The store's dataset, or one below it.
    pub(crate) fn dataset(&self, below: &str) -> String {
        format!("{}/nexcage{below}", self.pool)
    }

    pub(crate) fn options(&self) -> ZfsOptions {
        ZfsOptions {
            dataset: self.dataset(""),
            root: self.dir.join("root"),
            run_dir: self.dir.join("run"),
            limits: ApplyLimits::default(),
            properties: [("compression".to_owned(), "off".to_owned())].into(),
            checkpoints: 3,
        }
    }

    pub(crate) async fn open(&self) -> ZfsStore {
        ZfsStore::open(self.options()).await.unwrap()
    }

    /// Datasets and snapshots but for those that are always there, without the store's.
    pub(crate) fn names(&self) -> Vec<String> {
        let all = zfs(&[
            "list",
            "-H",
            "-r",
            "-t",
            "all",
            "-o",
            "name",
            &self.dataset(""),
        ]);
        let always = ["", "/images", "/containers", "/deleted", "/fs"];
        let prefix = self.dataset("");
        (all.lines().map(|name| name.strip_prefix(&prefix).unwrap()))
            .filter(|name| !always.contains(name))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for the chores: these are left.
    pub(crate) async fn settled(&self, names: &[String]) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        while self.names() != names {
            assert!(std::time::Instant::now() < deadline, "{:?}", self.names());
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Mount points below this place.
    pub(crate) fn mounts(&self) -> Vec<String> {
        mounts_below(&self.dir)
    }

    pub(crate) fn sync(&self) {
        run("zpool", &["sync", &self.pool]);
    }
}

fn mounts_below(dir: &Utf8Path) -> Vec<String> {
    let info = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mine = format!("{dir}/");
    (info.lines())
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&mine))
        .map(str::to_owned)
        .collect()
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        for point in mounts_below(&self.dir)
            .iter()
            .rev()
            .filter(|p| !p.ends_with("/disk"))
        {
            output("umount", &["-l", point]);
        }
        // A process of the test may be about to end.
        let gone = (0..50).any(|_| {
            std::thread::park_timeout(std::time::Duration::from_millis(100));
            output("zpool", &["destroy", "-f", &self.pool])
                .status
                .success()
        });
        for point in mounts_below(&self.dir) {
            output("umount", &["-l", &point]);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
        let leak = output("zpool", &["list", &self.pool]).status.success();
        if !std::thread::panicking() {
            assert!(gone && !leak, "the pool {} is still in use", self.pool);
        }
    }
}

/// Removes what killed runs of these tests have left.
fn sweep() {
    let alive = |name: &str| {
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        pid.is_none_or(|pid| Utf8Path::new("/proc").join(pid).exists())
    };
    for pool in run("zpool", &["list", "-H", "-o", "name"]).lines() {
        if pool.starts_with(PREFIX) && !alive(pool) {
            output("zpool", &["destroy", "-f", pool]);
        }
    }
    for entry in Utf8Path::new("/var/tmp").read_dir_utf8().unwrap().flatten() {
        if entry.file_name().starts_with(PREFIX) && !alive(entry.file_name()) {
            for point in mounts_below(entry.path()).iter().rev() {
                output("umount", &["-l", point]);
            }
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

pub(crate) fn id(name: &str) -> RootfsId {
    RootfsId(name.to_owned())
}

/// A layer of files, by name and content; names may be whiteouts, or end with a slash.
pub(crate) fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        let is_dir = path.ends_with('/');
        header.set_entry_type(match is_dir {
            true => tar::EntryType::Directory,
            false => tar::EntryType::Regular,
        });
        header.set_mode(if is_dir { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn three_layers() -> Vec<Vec<u8>> {
    vec![
        tar_of(&[
            ("etc/", ""),
            ("etc/a", "lowest"),
            ("etc/b", "lowest"),
            ("data/", ""),
            ("data/x", ""),
            ("gone/", ""),
            ("gone/x", ""),
        ]),
        tar_of(&[
            ("etc/a", "middle"),
            (".wh.gone", ""),
            ("data/.wh..wh..opq", ""),
            ("data/y", ""),
        ]),
        tar_of(&[("etc/.wh.b", ""), ("gone/", ""), ("gone/z", "")]),
    ]
}

pub(crate) async fn apply(
    store: &ZfsStore,
    place: &Place,
    parent: Option<&ChainId>,
    tar: &[u8],
) -> Result<StoredLayer, LayerStoreError> {
    let diff_id = Digest::of(tar);
    let path = place.dir.join(format!("{}.tar", diff_id.hex()));
    std::fs::write(&path, tar).unwrap();
    let layer = SpooledLayer {
        tar: path,
        diff_id,
        bytes: tar.len() as u64,
    };
    let chain = ChainId::on(parent, &layer.diff_id);
    store.apply(parent, &chain, &layer).await
}

/// Applies layers on each other and gives their chain ids, lowest first.
pub(crate) async fn stack(store: &ZfsStore, place: &Place, layers: &[Vec<u8>]) -> Vec<ChainId> {
    let mut chain: Vec<ChainId> = Vec::new();
    for tar in layers {
        let stored = apply(store, place, chain.last(), tar).await.unwrap();
        assert_eq!(stored.parent.as_ref(), chain.last());
        chain.push(stored.chain);
    }
    chain
}

/// Makes and mounts a root filesystem.
pub(crate) async fn rootfs(store: &ZfsStore, name: &str, top: &ChainId) -> Utf8PathBuf {
    let options = RootfsOptions::default();
    store.create_rootfs(&id(name), top, &options).await.unwrap();
    mount(store, name).await
}

pub(crate) async fn mount(store: &ZfsStore, name: &str) -> Utf8PathBuf {
    store
        .mount_rootfs(&id(name), MountOptions::default())
        .await
        .unwrap()
}

/// Removes everything that the store holds.
pub(crate) async fn remove_all(store: &ZfsStore) {
    for id in store.rootfses().await.unwrap() {
        store.remove_rootfs(&id).await.unwrap();
    }
    loop {
        let layers = store.layers().await.unwrap();
        if layers.is_empty() {
            return;
        }
        let mut removed = Vec::new();
        for layer in layers {
            if store.remove_layer(&layer.chain).await.is_ok() {
                removed.push(layer.chain);
            }
        }
        store.reclaim(&removed).await;
    }
}

/// Removes layers, given lowest first, as an image's are that nothing else needs.
pub(crate) async fn remove_layers(store: &ZfsStore, layers: &[ChainId]) {
    for chain in layers.iter().rev() {
        store.remove_layer(chain).await.unwrap();
    }
    store.reclaim(layers).await;
}

pub(crate) fn text(error: &LayerStoreError) -> String {
    use std::error::Error;
    format!(
        "{error}: {}",
        error.source().map(ToString::to_string).unwrap_or_default()
    )
}
