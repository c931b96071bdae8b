//! Things that exist once per key for as long as somebody holds them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Hands out one shared `V` per key. When the last holder of a `V` lets go, it is dropped.
#[derive(Debug)]
pub(crate) struct Keyed<K, V> {
    entries: Mutex<HashMap<K, Weak<V>>>,
}

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash + Clone, V: Default> Keyed<K, V> {
    /// The value of `key`: the one that others hold, or a new one.
    pub(crate) fn get(&self, key: &K) -> Arc<V> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = entries.get(key).and_then(Weak::upgrade) {
            return value;
        }
        // Only what is in use now is worth keeping, and that is a handful.
        entries.retain(|_, value| value.strong_count() > 0);
        let value = Arc::new(V::default());
        entries.insert(key.clone(), Arc::downgrade(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lives_as_long_as_its_holders() {
        let keyed = Keyed::<u8, Mutex<u8>>::default();
        let first = keyed.get(&1);
        *first.lock().unwrap() = 7;
        assert_eq!(*keyed.get(&1).lock().unwrap(), 7);
        assert_eq!(*keyed.get(&2).lock().unwrap(), 0);
        drop(first);
        assert_eq!(*keyed.get(&1).lock().unwrap(), 0);
        assert_eq!(keyed.entries.lock().unwrap().len(), 1);
    }
}
