//! Layers that a running pull counts on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::ChainId;

/// Which layers pulls count on before there is a record that names them.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<ChainId, usize>>,
}

/// Keeps layers from being collected until dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Arc<Leases>,
    chain: Vec<ChainId>,
}

impl Leases {
    /// Takes a lease on layers, whether they are there yet or not.
    pub(crate) fn take(self: &Arc<Self>, chain: &[ChainId]) -> Lease {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for id in chain {
            *held.entry(id.clone()).or_default() += 1;
        }
        Lease {
            leases: self.clone(),
            chain: chain.to_vec(),
        }
    }

    /// Whether anybody has a lease on it.
    pub(crate) fn holds(&self, chain: &ChainId) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.contains_key(chain)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self
            .leases
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for id in &self.chain {
            if let Some(count) = held.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    held.remove(id);
                }
            }
        }
    }
}
