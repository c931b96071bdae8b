//! The seam to OpenZFS's programs: one method per operation, errors by what they mean.

mod error;
#[cfg(test)]
pub(crate) mod fake;
mod programs;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

pub(crate) use error::{Refusal, ZfsError};
pub(crate) use programs::Programs;

type Result<T> = std::result::Result<T, ZfsError>;

/// Properties to set, by name.
pub(crate) type Properties = BTreeMap<String, String>;

/// A property's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    /// As `zfs get -p` writes it.
    pub(crate) value: String,
    /// Set on this very dataset or snapshot, not inherited, received or by default.
    pub(crate) local: bool,
}

/// A file system or snapshot, with the properties that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) properties: BTreeMap<String, Value>,
}

impl Entry {
    /// The value of a property that was set here and not inherited.
    pub(crate) fn local(&self, property: &str) -> Option<&str> {
        let value = self.properties.get(property)?;
        value.local.then_some(value.value.as_str())
    }

    /// The value of a property, wherever it comes from.
    pub(crate) fn value(&self, property: &str) -> Option<&str> {
        self.properties.get(property).map(|v| v.value.as_str())
    }
}

/// What `zfs list` shall list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Filesystems,
    Snapshots,
}

/// OpenZFS. Names of snapshots have an `@`.
#[async_trait]
pub(crate) trait Zfs: Send + Sync + fmt::Debug {
    /// Properties of one dataset or snapshot.
    async fn get(&self, name: &str, properties: &[&str]) -> Result<Entry>;

    /// Properties of a dataset, of everything below it and of all their snapshots.
    async fn tree(&self, dataset: &str, properties: &[&str]) -> Result<Vec<Entry>>;

    /// Properties of a dataset and then of its snapshots, the oldest first.
    async fn stack(&self, dataset: &str, properties: &[&str]) -> Result<Vec<Entry>>;

    /// Properties that were set on the datasets themselves.
    async fn local(&self, names: &[String]) -> Result<Vec<Entry>>;

    /// The named datasets and what is right below each, or their snapshots alone: one row per object,
    /// one text per column.
    async fn list(
        &self,
        names: &[String],
        kind: Kind,
        columns: &[&str],
    ) -> Result<Vec<Vec<String>>>;

    /// Makes a file system.
    async fn create(&self, name: &str, properties: &Properties) -> Result<()>;

    /// Makes a file system of a snapshot's content.
    async fn clone_of(&self, snapshot: &str, name: &str, properties: &Properties) -> Result<()>;

    /// Makes a snapshot. It is on the disk when this returns.
    async fn snapshot(&self, name: &str, properties: &Properties) -> Result<()>;

    /// Takes a file system back to its latest snapshot.
    async fn rollback(&self, snapshot: &str) -> Result<()>;

    /// Destroys one file system without snapshots, or one snapshot.
    async fn destroy(&self, name: &str) -> Result<()>;

    /// Destroys snapshots of one dataset, given by their full names: all, or none if one cannot be. Those that are not there count
    /// as destroyed if one of the others is.
    async fn destroy_all(&self, dataset: &str, snapshots: &[String]) -> Result<()>;

    /// Destroys a snapshot as soon as nothing stands on it any more.
    async fn destroy_later(&self, snapshot: &str) -> Result<()>;

    /// Renames a file system, mounted or not.
    async fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Makes a clone the owner of the snapshot it was made of, and of those before it.
    async fn promote(&self, name: &str) -> Result<()>;

    /// Sets properties.
    async fn set(&self, name: &str, properties: &Properties) -> Result<()>;

    /// Takes back a property that was set.
    async fn inherit(&self, name: &str, property: &str) -> Result<()>;
}
