//! The fake's side of both seams.

use std::io;
use std::os::fd::BorrowedFd;

use async_trait::async_trait;
use camino::Utf8Path;
use rustix::fs::{CWD, Mode, OFlags};

use super::{Fake, Snapshot, check, copy, count, no};
use crate::kernel::{Kernel, Tree};
use crate::zfs::{Entry, Kind, Properties, Refusal, Result, Zfs};

#[async_trait]
impl Zfs for Fake {
    async fn get(&self, name: &str, properties: &[&str]) -> Result<Entry> {
        self.call(format!("get {name}"), || {
            let state = self.state();
            state.id(name).ok_or_else(|| no(Refusal::NotFound, name))?;
            Ok(state.entry(self, name, properties))
        })
        .await
    }

    async fn tree(&self, dataset: &str, properties: &[&str]) -> Result<Vec<Entry>> {
        self.call(format!("tree {dataset}"), || {
            let names = self.names();
            let state = self.state();
            let mut entries = vec![state.entry(self, dataset, properties)];
            entries.extend(names.iter().map(|name| state.entry(self, name, properties)));
            Ok(entries)
        })
        .await
    }

    async fn stack(&self, dataset: &str, properties: &[&str]) -> Result<Vec<Entry>> {
        self.call(format!("stack {dataset}"), || {
            let state = self.state();
            let found = state
                .datasets
                .get(dataset)
                .ok_or_else(|| no(Refusal::NotFound, dataset))?;
            let snapshots = found.snapshots.iter();
            let names = snapshots.map(|snapshot| format!("{dataset}@{}", snapshot.name));
            Ok(std::iter::once(dataset.to_owned())
                .chain(names)
                .map(|name| state.entry(self, &name, properties))
                .collect())
        })
        .await
    }

    async fn local(&self, names: &[String]) -> Result<Vec<Entry>> {
        self.call(format!("local {}", names.join(" ")), || {
            let state = self.state();
            names
                .iter()
                .map(|name| {
                    let dataset = state
                        .datasets
                        .get(name)
                        .ok_or_else(|| no(Refusal::NotFound, name))?;
                    let properties: Vec<_> = dataset.local.keys().map(String::as_str).collect();
                    Ok(state.entry(self, name, &properties))
                })
                .collect()
        })
        .await
    }

    async fn list(
        &self,
        names: &[String],
        kind: Kind,
        columns: &[&str],
    ) -> Result<Vec<Vec<String>>> {
        self.call(format!("list {}", names.join(" ")), || {
            let state = self.state();
            let mut rows = Vec::new();
            for name in names {
                let dataset = state
                    .datasets
                    .get(name)
                    .ok_or_else(|| no(Refusal::NotFound, name))?;
                let below: Vec<String> = match kind {
                    Kind::Snapshots => (dataset.snapshots.iter())
                        .map(|s| format!("{name}@{}", s.name))
                        .collect(),
                    Kind::Filesystems => (state.datasets.keys())
                        .filter(|n| {
                            *n == name || n.rsplit_once('/').is_some_and(|(p, _)| p == name)
                        })
                        .cloned()
                        .collect(),
                };
                rows.extend(below.iter().map(|name| {
                    columns
                        .iter()
                        .map(|c| state.value(self, name, c).value)
                        .collect()
                }));
            }
            Ok(rows)
        })
        .await
    }

    async fn create(&self, name: &str, properties: &Properties) -> Result<()> {
        self.call(format!("create {name}"), || {
            self.make(name, None, properties)
        })
        .await
    }

    async fn clone_of(&self, snapshot: &str, name: &str, properties: &Properties) -> Result<()> {
        self.call(format!("clone {snapshot} {name}"), || {
            self.make(name, Some(snapshot), properties)
        })
        .await
    }

    async fn snapshot(&self, name: &str, properties: &Properties) -> Result<()> {
        self.call(format!("snapshot {name}"), || {
            let (dataset, short) = name.split_once('@').unwrap();
            let mut state = self.state();
            if state.id(name).is_some() {
                return Err(no(Refusal::Exists, name));
            }
            let from = state
                .id(dataset)
                .ok_or_else(|| no(Refusal::NotFound, name))?;
            let id = state.next();
            copy(&self.content(from), &self.content(id));
            state
                .datasets
                .get_mut(dataset)
                .unwrap()
                .snapshots
                .push(Snapshot {
                    id,
                    name: short.to_owned(),
                    txg: id,
                    local: properties.clone(),
                    deferred: false,
                });
            Ok(())
        })
        .await
    }

    async fn rollback(&self, snapshot: &str) -> Result<()> {
        self.call(format!("rollback {snapshot}"), || {
            let state = self.state();
            let id = state
                .id(snapshot)
                .ok_or_else(|| no(Refusal::NotFound, snapshot))?;
            let (dataset, _) = snapshot.split_once('@').unwrap();
            let dataset = &state.datasets[dataset];
            if dataset.snapshots.last().is_some_and(|s| s.id != id) {
                return Err(no(Refusal::Newer, snapshot));
            }
            std::fs::remove_dir_all(self.content(dataset.id)).unwrap();
            copy(&self.content(id), &self.content(dataset.id));
            Ok(())
        })
        .await
    }

    async fn destroy(&self, name: &str) -> Result<()> {
        self.call(format!("destroy {name}"), || self.destroy_now(name, false))
            .await
    }

    async fn destroy_all(&self, dataset: &str, snapshots: &[String]) -> Result<()> {
        self.call(format!("destroy {dataset}@{}", snapshots.len()), || {
            let state = self.state();
            let there: Vec<u64> = snapshots.iter().filter_map(|name| state.id(name)).collect();
            if there.is_empty() {
                return Err(no(Refusal::NotFound, dataset));
            }
            if let Some(id) = there.iter().find(|id| state.has_clones(**id)) {
                return Err(no(Refusal::Clones, &format!("{dataset}@{id}")));
            }
            if there.iter().any(|id| state.busy.contains(id)) {
                return Err(no(Refusal::Busy, dataset));
            }
            drop(state);
            for name in snapshots {
                match self.destroy_now(name, false) {
                    Err(e) if !e.is(Refusal::NotFound) => return Err(e),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    async fn destroy_later(&self, snapshot: &str) -> Result<()> {
        self.call(format!("destroy -d {snapshot}"), || {
            self.destroy_now(snapshot, true)
        })
        .await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.call(format!("rename {from} {to}"), || {
            let mut state = self.state();
            if state.datasets.contains_key(to) {
                return Err(no(Refusal::Exists, to));
            }
            let dataset = state
                .datasets
                .remove(from)
                .ok_or_else(|| no(Refusal::NotFound, from))?;
            state.datasets.insert(to.to_owned(), dataset);
            for mounted in state.mounts.values_mut().filter(|mounted| *mounted == from) {
                to.clone_into(mounted);
            }
            Ok(())
        })
        .await
    }

    async fn promote(&self, name: &str) -> Result<()> {
        self.call(format!("promote {name}"), || self.promote_now(name))
            .await
    }

    async fn set(&self, name: &str, properties: &Properties) -> Result<()> {
        self.call(format!("set {name}"), || {
            check(properties)?;
            let mut state = self.state();
            let dataset = state
                .datasets
                .get_mut(name)
                .ok_or_else(|| no(Refusal::NotFound, name))?;
            dataset.local.extend(properties.clone());
            Ok(())
        })
        .await
    }

    async fn inherit(&self, name: &str, property: &str) -> Result<()> {
        self.call(format!("inherit {property} {name}"), || {
            let mut state = self.state();
            let dataset = state
                .datasets
                .get_mut(name)
                .ok_or_else(|| no(Refusal::NotFound, name))?;
            dataset.local.remove(property);
            Ok(())
        })
        .await
    }
}

impl Kernel for Fake {
    fn open(&self, name: &str) -> io::Result<Tree> {
        let path = self.path(name).ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path.as_std_path(), flags, Mode::empty())?;
        Ok(Tree::of(dir, count))
    }

    fn mount(&self, name: &str, target: &Utf8Path, _: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.path(name).ok_or(io::ErrorKind::NotFound)?;
        self.state()
            .mounts
            .insert(target.to_owned(), name.to_owned());
        Ok(())
    }

    fn is_mounted(&self, path: &Utf8Path) -> io::Result<bool> {
        Ok(self.state().mounts.contains_key(path))
    }

    fn mounted(&self, path: &Utf8Path) -> io::Result<Option<String>> {
        Ok(self.state().mounts.get(path).cloned())
    }

    fn unmount(&self, path: &Utf8Path) -> io::Result<()> {
        self.state().mounts.remove(path);
        match std::fs::remove_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn pool_state(&self, _: &str) -> io::Result<Option<String>> {
        Ok(self.state().pool.clone())
    }
}
