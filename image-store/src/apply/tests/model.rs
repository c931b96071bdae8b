//! Random entries, against a model that is a map from names to what they are.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    File(Vec<usize>, u8),
    Dir(Vec<usize>),
    Symlink(Vec<usize>),
    Link(Vec<usize>, Vec<usize>),
    Whiteout(Vec<usize>),
    Opaque(Vec<usize>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    File(u8),
    Dir,
    Symlink,
}

/// Contents by path; a parent of an entry is an entry.
type Tree = BTreeMap<String, Thing>;

const NAMES: [&str; 2] = ["a", "b"];

fn name(path: &[usize]) -> String {
    let parts: Vec<_> = path.iter().map(|i| NAMES[*i]).collect();
    parts.join("/")
}

fn below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(dir, _)| dir)
}

/// A merged tree, and which of its names the layer being applied wrote.
#[derive(Default)]
struct Model {
    tree: Tree,
    written: Vec<String>,
}

impl Model {
    /// `None` if the entry must be refused. Links are followed nowhere: the model's lead to nothing
    /// that entries use, so a name below one is refused.
    fn put(&mut self, path: &str, thing: Thing) -> Option<()> {
        self.make_parents(path)?;
        let keeps = thing == Thing::Dir && self.tree.get(path) == Some(&Thing::Dir);
        if !keeps {
            self.tree.retain(|p, _| !below(p, path));
        }
        self.tree.insert(path.to_owned(), thing);
        self.written.push(path.to_owned());
        Some(())
    }

    fn make_parents(&mut self, path: &str) -> Option<()> {
        let Some(dir) = parent(path) else {
            return Some(());
        };
        self.make_parents(dir)?;
        match self.tree.get(dir) {
            Some(Thing::Dir) => Some(()),
            None => {
                self.tree.insert(dir.to_owned(), Thing::Dir);
                Some(())
            }
            Some(_) => None,
        }
    }

    /// Whether the directories of `path` are there; `Err` if one is no directory.
    fn reachable(&self, path: &str) -> Result<bool, ()> {
        match parent(path) {
            None => Ok(true),
            Some(dir) if !self.reachable(dir)? => Ok(false),
            Some(dir) => match self.tree.get(dir) {
                Some(Thing::Dir) => Ok(true),
                None => Ok(false),
                Some(_) => Err(()),
            },
        }
    }

    /// Removes what an earlier layer left at and below `path`.
    fn hide(&mut self, hidden: impl Fn(&str) -> bool) {
        let written = self.written.clone();
        let stays = |p: &str| written.iter().any(|w| w == p || below(w, p));
        self.tree.retain(|p, _| !hidden(p) || stays(p));
    }

    fn apply(&mut self, op: &Op) -> Option<()> {
        match op {
            Op::File(path, content) => self.put(&name(path), Thing::File(*content)),
            Op::Dir(path) => self.put(&name(path), Thing::Dir),
            Op::Symlink(path) => self.put(&name(path), Thing::Symlink),
            Op::Link(path, target) => {
                let (path, target) = (name(path), name(target));
                if path == target || !self.reachable(&target).ok()? {
                    return None;
                }
                let thing = self.tree.get(&target)?.clone();
                // A directory that must make room may hold the target.
                if thing == Thing::Dir || below(&target, &path) {
                    return None;
                }
                self.put(&path, thing)
            }
            Op::Whiteout(path) => {
                let path = name(path);
                if self.reachable(&path).ok()? {
                    self.hide(|p| p == path || below(p, &path));
                }
                Some(())
            }
            Op::Opaque(path) => {
                let path = name(path);
                let inner = format!("{path}/x");
                if self.reachable(&inner).ok()? {
                    self.hide(|p| below(p, &path));
                }
                Some(())
            }
        }
    }
}

fn to_tar(ops: &[Op]) -> Tar {
    ops.iter().fold(Tar::new(), |tar, op| match op {
        Op::File(path, content) => tar.raw(b'0', name(path).as_bytes(), b"", &[*content]),
        Op::Dir(path) => tar.dir(&name(path)),
        // Leads to something that is never a directory.
        Op::Symlink(path) => tar.symlink(&name(path), "/blocked"),
        Op::Link(path, target) => tar.link(&name(path), &name(target)),
        Op::Whiteout(path) => {
            let path = name(path);
            match path.rsplit_once('/') {
                Some((dir, last)) => tar.file(&format!("{dir}/.wh.{last}"), ""),
                None => tar.file(&format!(".wh.{path}"), ""),
            }
        }
        Op::Opaque(path) => tar.file(&format!("{}/.wh..wh..opq", name(path)), ""),
    })
}

fn on_disk(root: &Path) -> Tree {
    fn walk(dir: &Path, prefix: &str, tree: &mut Tree) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            let thing = if kind.is_dir() {
                walk(&entry.path(), &format!("{path}/"), tree);
                Thing::Dir
            } else if kind.is_symlink() {
                Thing::Symlink
            } else {
                Thing::File(std::fs::read(entry.path()).unwrap()[0])
            };
            tree.insert(path, thing);
        }
    }
    let mut tree = Tree::new();
    walk(root, "", &mut tree);
    tree.remove("blocked");
    tree
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let path = || proptest::collection::vec(0..NAMES.len(), 1..4);
    let op = prop_oneof![
        4 => (path(), 1..=255_u8).prop_map(|(p, c)| Op::File(p, c)),
        3 => path().prop_map(Op::Dir),
        1 => path().prop_map(Op::Symlink),
        1 => (path(), path()).prop_map(|(p, t)| Op::Link(p, t)),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Opaque),
    ];
    proptest::collection::vec(op, 0..12)
}

/// The entries up to the first that the model refuses, and whether it refused one.
fn accepted(model: &mut Model, ops: &[Op]) -> (usize, bool) {
    model.written.clear();
    for (i, op) in ops.iter().enumerate() {
        if model.apply(op).is_none() {
            return (i, true);
        }
    }
    (ops.len(), false)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_merged_tree_is_what_the_model_says(layers in proptest::collection::vec(ops(), 1..4)) {
        let s = Scratch::new();
        s.apply(Tar::new().raw(b'0', b"blocked", b"", b"x")).unwrap();
        let mut model = Model::default();
        for ops in &layers {
            let (n, refused) = accepted(&mut model, ops);
            let applied = s.apply(to_tar(&ops[..n]));
            prop_assert!(applied.is_ok(), "{applied:?}");
            prop_assert_eq!(&on_disk(&s.root()), &model.tree);
            if refused {
                prop_assert!(s.apply(to_tar(&ops[n..=n])).is_err(), "{:?}", ops[n]);
                return Ok(());
            }
        }
    }
}

/// The same, through real overlay mounts.
#[test]
fn a_mounted_stack_is_what_the_model_says() {
    if !is_root() {
        return;
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    runner
        .run(&proptest::collection::vec(ops(), 1..4), |layers| {
            let mut s = Scratch::new();
            s.layer(Tar::new().raw(b'0', b"blocked", b"", b"x"))
                .unwrap();
            let mut model = Model::default();
            for ops in &layers {
                let (n, refused) = accepted(&mut model, ops);
                let applied = s.layer(to_tar(&ops[..n]));
                prop_assert!(applied.is_ok(), "{applied:?}");
                let view = Mounted::new(&s);
                prop_assert_eq!(&on_disk(&view.0), &model.tree);
                drop(view);
                if refused {
                    return Ok(());
                }
            }
            Ok(())
        })
        .unwrap();
}

/// A read-only overlay of the layers so far.
struct Mounted(PathBuf);

impl Mounted {
    fn new(s: &Scratch) -> Self {
        use rustix::mount::{MountFlags, mount};
        let target = s.dir.path().join("outside");
        let lowers: Vec<_> = (0..s.count)
            .rev()
            .map(|n| s.path(&n.to_string()).display().to_string())
            .collect();
        // overlayfs wants two at least.
        let empty = s.path("empty");
        std::fs::create_dir_all(&empty).unwrap();
        let options = format!("lowerdir={}:{}\0", lowers.join(":"), empty.display());
        let options = std::ffi::CString::from_vec_with_nul(options.into_bytes()).unwrap();
        mount(
            "overlay",
            &target,
            "overlay",
            MountFlags::RDONLY,
            options.as_c_str(),
        )
        .unwrap();
        Self(target)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
