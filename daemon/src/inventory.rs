//! Everything that exists, in memory, for questions that must not wait for a disk.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::containers::Container;
use crate::cri::InvalidField;
use crate::error::{Kind, OpError};
use crate::pods::Pod;

/// All pods and containers. The locks are held for map operations only, never across an await.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pods: Table<Pod>,
    containers: Table<Container>,
}

impl Inventory {
    pub(crate) fn add_pod(&self, pod: Arc<Pod>) {
        self.pods.insert(pod.id().to_owned(), pod);
    }

    pub(crate) fn remove_pod(&self, id: &str) {
        self.pods.remove(id);
    }

    /// The pod with this id, or the only one whose id begins so.
    pub(crate) fn pod(&self, prefix: &str) -> Result<Arc<Pod>, OpError> {
        self.pods
            .find(prefix, Kind::Pod, |pod| pod.record().phase.is_visible())
    }

    /// The pod with exactly this id, in any phase.
    pub(crate) fn pod_by_id(&self, id: &str) -> Option<Arc<Pod>> {
        self.pods.get(id)
    }

    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.all()
    }

    /// The pod that was made under this name and attempt.
    pub(crate) fn pod_by_key(&self, key: &str) -> Option<Arc<Pod>> {
        self.pods
            .all()
            .into_iter()
            .find(|pod| pod.record().spec.key() == key)
    }

    pub(crate) fn add_container(&self, container: Arc<Container>) {
        self.containers.insert(container.id().to_owned(), container);
    }

    pub(crate) fn remove_container(&self, id: &str) {
        self.containers.remove(id);
    }

    /// The container with this id, or the only one whose id begins so.
    pub(crate) fn container(&self, prefix: &str) -> Result<Arc<Container>, OpError> {
        self.containers
            .find(prefix, Kind::Container, |c| c.record().phase.is_visible())
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.all()
    }

    /// A pod's containers, oldest first.
    pub(crate) fn containers_of(&self, pod_id: &str) -> Vec<Arc<Container>> {
        let mut found = self.containers.all();
        found.retain(|c| c.pod_id() == pod_id);
        found.sort_by_key(|c| c.record().created_at);
        found
    }
}

#[derive(Debug)]
struct Table<T>(RwLock<HashMap<String, Arc<T>>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(RwLock::new(HashMap::new()))
    }
}

impl<T> Table<T> {
    fn insert(&self, id: String, entry: Arc<T>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, entry);
    }

    fn remove(&self, id: &str) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    fn get(&self, id: &str) -> Option<Arc<T>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    fn all(&self) -> Vec<Arc<T>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    fn find(
        &self,
        prefix: &str,
        kind: Kind,
        visible: impl Fn(&T) -> bool,
    ) -> Result<Arc<T>, OpError> {
        let none = || OpError::NotFound {
            kind,
            name: prefix.to_owned(),
        };
        if let Some(exact) = self.get(prefix) {
            return if visible(&exact) {
                Ok(exact)
            } else {
                Err(none())
            };
        }
        // An empty prefix would match anything; nobody means that.
        if prefix.is_empty() {
            return Err(InvalidField::invalid(kind.field(), "is empty").into());
        }
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut matching = table
            .iter()
            .filter(|(id, e)| id.starts_with(prefix) && visible(e))
            .map(|(_, e)| e);
        match (matching.next(), matching.next()) {
            (Some(only), None) => Ok(Arc::clone(only)),
            (None, _) => Err(none()),
            (Some(_), Some(_)) => Err(OpError::Ambiguous {
                kind,
                prefix: prefix.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_prefixes_resolve_and_others_do_not() {
        let table = Table::default();
        for id in ["aa11", "aa22", "bb33"] {
            table.insert(id.to_owned(), Arc::new(id));
        }
        let find = |p: &str| table.find(p, Kind::Pod, |_| true).map(|e| *e);
        assert_eq!(find("bb").unwrap(), "bb33");
        assert_eq!(find("aa22").unwrap(), "aa22");
        assert!(matches!(find("aa"), Err(OpError::Ambiguous { .. })));
        assert!(find("cc").unwrap_err().is_not_found());
        assert!(matches!(find(""), Err(OpError::Invalid(_))));
    }
}
