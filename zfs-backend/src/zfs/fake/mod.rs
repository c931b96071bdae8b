//! OpenZFS in memory, with directories for what is in the datasets.
//!
//! It refuses what OpenZFS refuses, for the same reasons. It can stop for ever before or after any call, as if
//! the daemon had been killed there, or refuse any call.

mod calls;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use camino::{Utf8Path, Utf8PathBuf};
use tokio::sync::Notify;

use super::{Entry, Properties, Refusal, Result, Value, ZfsError};

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It never gets there.
    KilledBefore,
    /// It is done, and nobody hears of it.
    KilledAfter,
    /// It is refused.
    Refused(Refusal),
    /// It is done, but said to have failed.
    DoneButFailed,
}

#[derive(Clone, Debug)]
struct Snapshot {
    id: u64,
    name: String,
    txg: u64,
    local: Properties,
    deferred: bool,
}

#[derive(Clone, Debug, Default)]
struct Dataset {
    id: u64,
    local: Properties,
    /// The snapshot it was cloned from.
    origin: Option<u64>,
    /// The oldest first.
    snapshots: Vec<Snapshot>,
}

#[derive(Debug, Default)]
struct State {
    datasets: BTreeMap<String, Dataset>,
    /// Dataset or snapshot names in use by somebody else, by number.
    busy: BTreeSet<u64>,
    mounts: HashMap<Utf8PathBuf, String>,
    last: u64,
    pool: Option<String>,
    /// As ZFS tells what a dataset has left.
    room: String,
    calls: Vec<String>,
    mishap: Option<(usize, Mishap)>,
}

/// The fake.
#[derive(Debug)]
pub(crate) struct Fake {
    dir: tempfile::TempDir,
    state: Mutex<State>,
    /// Told when it has stopped for ever.
    pub(crate) killed: Notify,
}

fn no(refusal: Refusal, name: &str) -> ZfsError {
    ZfsError::Fake(refusal, name.to_owned())
}

impl Fake {
    /// A pool `tank` with a dataset `tank/n`.
    pub(crate) fn new() -> Self {
        let fake = Self {
            dir: crate::tests::scratch(),
            state: Mutex::default(),
            killed: Notify::new(),
        };
        fake.state().pool = Some("ONLINE".into());
        fake.set_room("1073741824");
        for name in ["tank", "tank/n"] {
            fake.make(name, None, &Properties::new()).unwrap();
        }
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn content(&self, id: u64) -> Utf8PathBuf {
        Utf8PathBuf::try_from(self.dir.path().join(id.to_string())).unwrap()
    }

    /// The directory with what is in a dataset or snapshot.
    pub(crate) fn path(&self, name: &str) -> Option<Utf8PathBuf> {
        self.state().id(name).map(|id| self.content(id))
    }

    /// Names of all datasets and snapshots below `tank/n`.
    pub(crate) fn names(&self) -> Vec<String> {
        let state = self.state();
        let mut names = Vec::new();
        for (name, dataset) in &state.datasets {
            names.push(name.clone());
            names.extend(
                dataset
                    .snapshots
                    .iter()
                    .map(|s| format!("{name}@{}", s.name)),
            );
        }
        names.retain(|name| name.starts_with("tank/n/"));
        names
    }

    /// Somebody uses a dataset or snapshot, or does not any more.
    pub(crate) fn set_busy(&self, name: &str, busy: bool) {
        let mut state = self.state();
        let id = state.id(name).unwrap();
        match busy {
            true => state.busy.insert(id),
            false => state.busy.remove(&id),
        };
    }

    pub(crate) fn nothing_busy(&self) {
        self.state().busy.clear();
    }

    /// Takes effect at the `n`th call from now on, counted from 0.
    pub(crate) fn mishap(&self, mishap: Option<(usize, Mishap)>) {
        let mut state = self.state();
        state.calls.clear();
        state.mishap = mishap;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    pub(crate) fn set_pool(&self, pool: Option<&str>) {
        self.state().pool = pool.map(str::to_owned);
    }

    pub(crate) fn set_room(&self, room: &str) {
        room.clone_into(&mut self.state().room);
    }

    pub(crate) fn mounts(&self) -> Vec<String> {
        self.state().mounts.values().cloned().collect()
    }

    fn make(&self, name: &str, from: Option<&str>, properties: &Properties) -> Result<()> {
        let mut state = self.state();
        if state.datasets.contains_key(name) {
            return Err(no(Refusal::Exists, name));
        }
        let parent = name.rsplit_once('/').map(|(parent, _)| parent);
        if parent.is_some_and(|parent| !state.datasets.contains_key(parent)) {
            return Err(no(Refusal::NotFound, name));
        }
        check(properties)?;
        let origin = match from {
            None => None,
            Some(from) => Some(state.id(from).ok_or_else(|| no(Refusal::NotFound, from))?),
        };
        let id = state.next();
        match origin {
            None => std::fs::create_dir(self.content(id)).unwrap(),
            Some(origin) => copy(&self.content(origin), &self.content(id)),
        }
        let dataset = Dataset {
            id,
            local: properties.clone(),
            origin,
            snapshots: Vec::new(),
        };
        state.datasets.insert(name.to_owned(), dataset);
        Ok(())
    }

    /// Runs one call, or what is to happen instead.
    async fn call<T>(&self, line: String, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let mishap = {
            let mut state = self.state();
            let n = state.calls.len();
            state.calls.push(line.clone());
            state
                .mishap
                .filter(|(at, _)| *at == n)
                .map(|(_, mishap)| mishap)
        };
        match mishap {
            None => work(),
            Some(Mishap::Refused(refusal)) => Err(no(refusal, &line)),
            Some(Mishap::DoneButFailed) => {
                let _ = work();
                Err(no(Refusal::Deadline, &line))
            }
            Some(Mishap::KilledBefore) => self.end().await,
            Some(Mishap::KilledAfter) => {
                let _ = work();
                self.end().await
            }
        }
    }

    async fn end<T>(&self) -> T {
        self.killed.notify_one();
        std::future::pending().await
    }

    fn destroy_now(&self, name: &str, later: bool) -> Result<()> {
        let mut state = self.state();
        let id = state.id(name).ok_or_else(|| no(Refusal::NotFound, name))?;
        if let Some((dataset, short)) = name.split_once('@') {
            if state.has_clones(id) || state.busy.contains(&id) {
                let refusal = if state.has_clones(id) {
                    Refusal::Clones
                } else {
                    Refusal::Busy
                };
                let snapshot = state.snapshot_mut(dataset, short).unwrap();
                snapshot.deferred |= later;
                return if later {
                    Ok(())
                } else {
                    Err(no(refusal, name))
                };
            }
            let snapshots = &mut state.datasets.get_mut(dataset).unwrap().snapshots;
            snapshots.retain(|s| s.id != id);
        } else {
            state.can_go(name, id)?;
            state.mounts.retain(|_, mounted| mounted != name);
            let gone = state.datasets.remove(name).unwrap();
            self.reap(&mut state, gone.origin);
        }
        std::fs::remove_dir_all(self.content(id)).unwrap();
        Ok(())
    }

    /// Destroys a snapshot that was only waiting for its last clone.
    fn reap(&self, state: &mut State, origin: Option<u64>) {
        let Some(origin) = origin else { return };
        if state.has_clones(origin) {
            return;
        }
        for dataset in state.datasets.values_mut() {
            let before = dataset.snapshots.len();
            dataset.snapshots.retain(|s| s.id != origin || !s.deferred);
            if dataset.snapshots.len() < before {
                std::fs::remove_dir_all(self.content(origin)).unwrap();
            }
        }
    }

    fn promote_now(&self, name: &str) -> Result<()> {
        let mut state = self.state();
        let clone = state
            .datasets
            .get(name)
            .cloned()
            .ok_or_else(|| no(Refusal::NotFound, name))?;
        let origin = clone.origin.ok_or_else(|| no(Refusal::Other, name))?;
        let (parent, txg) = state.owner(origin);
        let moved: Vec<Snapshot> = (state.datasets[&parent].snapshots.iter())
            .filter(|s| s.txg <= txg)
            .cloned()
            .collect();
        let clash = |s: &Snapshot| clone.snapshots.iter().any(|mine| mine.name == s.name);
        if moved.iter().any(clash) {
            return Err(no(Refusal::Exists, name));
        }
        let parent = state.datasets.get_mut(&parent).unwrap();
        parent.snapshots.retain(|s| s.txg > txg);
        let grandparent = parent.origin.replace(origin);
        let clone = state.datasets.get_mut(name).unwrap();
        clone.origin = grandparent;
        clone.snapshots = moved.into_iter().chain(clone.snapshots.drain(..)).collect();
        Ok(())
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn id(&self, name: &str) -> Option<u64> {
        match name.split_once('@') {
            None => self.datasets.get(name).map(|d| d.id),
            Some((dataset, short)) => {
                let snapshots = &self.datasets.get(dataset)?.snapshots;
                snapshots.iter().find(|s| s.name == short).map(|s| s.id)
            }
        }
    }

    fn snapshot_mut(&mut self, dataset: &str, short: &str) -> Option<&mut Snapshot> {
        let snapshots = &mut self.datasets.get_mut(dataset)?.snapshots;
        snapshots.iter_mut().find(|s| s.name == short)
    }

    fn has_clones(&self, snapshot: u64) -> bool {
        self.datasets.values().any(|d| d.origin == Some(snapshot))
    }

    /// The dataset of a snapshot, and when that was taken.
    fn owner(&self, snapshot: u64) -> (String, u64) {
        let found = self.datasets.iter().find_map(|(name, dataset)| {
            let snapshot = dataset.snapshots.iter().find(|s| s.id == snapshot)?;
            Some((name.clone(), snapshot.txg))
        });
        found.unwrap()
    }

    fn can_go(&self, name: &str, id: u64) -> Result<()> {
        let dataset = &self.datasets[name];
        if dataset.snapshots.iter().any(|s| self.has_clones(s.id)) {
            return Err(no(Refusal::Clones, name));
        }
        let below = format!("{name}/");
        if !dataset.snapshots.is_empty() || self.datasets.keys().any(|n| n.starts_with(&below)) {
            return Err(no(Refusal::Children, name));
        }
        match self.busy.contains(&id) {
            true => Err(no(Refusal::Busy, name)),
            false => Ok(()),
        }
    }

    /// A property's value on a dataset or snapshot.
    fn value(&self, fake: &Fake, name: &str, property: &str) -> Value {
        let (dataset, short) = name
            .split_once('@')
            .map_or((name, None), |(d, s)| (d, Some(s)));
        let found = &self.datasets[dataset];
        let snapshot = short.and_then(|short| found.snapshots.iter().find(|s| s.name == short));
        let local = snapshot.map_or(&found.local, |s| &s.local);
        if let Some(value) = local.get(property) {
            return Value {
                value: value.clone(),
                local: true,
            };
        }
        let id = snapshot.map_or(found.id, |s| s.id);
        let bytes = || size(&fake.content(id)).to_string();
        let origin = found.origin.filter(|_| snapshot.is_none());
        let value = match property {
            "name" => name.to_owned(),
            "type" => if short.is_some() {
                "snapshot"
            } else {
                "filesystem"
            }
            .to_owned(),
            "createtxg" => snapshot.map_or(0, |s| s.txg).to_string(),
            "creation" => "1700000000".to_owned(),
            "defer_destroy" if snapshot.is_some_and(|s| s.deferred) => "on".to_owned(),
            "defer_destroy" if snapshot.is_some() => "off".to_owned(),
            "available" => self.room.clone(),
            "used" | "usedbydataset" | "referenced" | "written" => bytes(),
            "origin" => origin.map_or("-".to_owned(), |origin| {
                let (owner, _) = self.owner(origin);
                let snapshots = &self.datasets[&owner].snapshots;
                let short = &snapshots.iter().find(|s| s.id == origin).unwrap().name;
                format!("{owner}@{short}")
            }),
            _ => self.inherited(dataset, snapshot.is_some(), property),
        };
        Value {
            value,
            local: false,
        }
    }

    fn inherited(&self, dataset: &str, from_itself: bool, property: &str) -> String {
        let mut name = dataset;
        if from_itself && let Some(value) = self.datasets[name].local.get(property) {
            return value.clone();
        }
        while let Some((parent, _)) = name.rsplit_once('/') {
            name = parent;
            if let Some(value) = self.datasets[name].local.get(property) {
                return value.clone();
            }
        }
        "-".to_owned()
    }

    fn entry(&self, fake: &Fake, name: &str, properties: &[&str]) -> Entry {
        Entry {
            name: name.to_owned(),
            properties: (properties.iter())
                .map(|p| ((*p).to_owned(), self.value(fake, name, p)))
                .collect(),
        }
    }
}

/// The values that OpenZFS takes, of the properties that tests set.
fn check(properties: &Properties) -> Result<()> {
    for (name, value) in properties {
        let good = match name.as_str() {
            "recordsize" => ["8K", "16K", "128K", "1M"].contains(&value.as_str()),
            "compression" => ["on", "off", "lz4", "zstd"].contains(&value.as_str()),
            "sync" => ["standard", "always", "disabled"].contains(&value.as_str()),
            "refquota" => value.parse::<u64>().is_ok(),
            "atime" | "xattr" | "acltype" | "mountpoint" | "canmount" | "snapdir" => true,
            other => other.contains(':'),
        };
        if !good {
            return Err(no(Refusal::Property, &format!("{name}={value}")));
        }
    }
    Ok(())
}

fn copy(from: &Utf8Path, to: &Utf8Path) {
    std::fs::create_dir(to).unwrap();
    for entry in from.read_dir_utf8().unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), &to).unwrap()),
        }
    }
}

fn size(dir: &Utf8Path) -> u64 {
    let entries = dir.read_dir_utf8().unwrap().map(|e| e.unwrap());
    entries
        .map(|e| match e.file_type().unwrap().is_dir() {
            true => size(e.path()),
            false => e.metadata().unwrap().len(),
        })
        .sum()
}

/// Files and directories below an open directory, itself included.
fn count(dir: &OwnedFd) -> u64 {
    fn below(dir: &Path) -> u64 {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
        1 + entries
            .map(|e| match e.file_type().unwrap().is_dir() {
                true => below(&e.path()),
                false => 1,
            })
            .sum::<u64>()
    }
    use std::os::fd::AsRawFd;
    below(Path::new(&format!(
        "/proc/self/fd/{}",
        dir.as_fd().as_raw_fd()
    )))
}
