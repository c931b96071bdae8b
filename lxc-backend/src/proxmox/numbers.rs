//! Which number a pod's container is to try next.
//!
//! Of every number that a guest ever had, each node of the cluster keeps graphs for ever, more than a megabyte on disk. So there must not be
//! more of them than needed: a number that was given back is taken again before a new one is, but not at once, since until then
//! Proxmox takes whoever has it for the one before.

use std::collections::{HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a number rests that was given back.
const REST: Duration = Duration::from_secs(600);

/// Numbers of a range. It only knows of those that it was told of: whether one is free, others say.
#[derive(Debug)]
pub(crate) struct Numbers {
    range: RangeInclusive<u32>,
    rest: Duration,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    /// How far behind the first number the next new one is looked for.
    next: u32,
    /// Numbers that were given back, the oldest first.
    resting: VecDeque<Rested>,
}

/// A number that was given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rested {
    pub(crate) vmid: u32,
    since: Instant,
}

impl Numbers {
    /// Each node begins somewhere else in the range, and always at the same place: nodes may share one.
    pub(crate) fn new(range: RangeInclusive<u32>, node: &str) -> Self {
        let pool = Pool {
            next: place_of(node),
            resting: VecDeque::new(),
        };
        Self {
            range,
            rest: REST,
            pool: Mutex::new(pool),
        }
    }

    pub(crate) fn range(&self) -> &RangeInclusive<u32> {
        &self.range
    }

    /// The number that has rested longest, if that is long enough. It is forgotten.
    pub(crate) fn take_rested(&self) -> Option<Rested> {
        let mut pool = self.pool();
        let oldest = pool.resting.front()?;
        match oldest.since.elapsed() >= self.rest {
            true => pool.resting.pop_front(),
            false => None,
        }
    }

    /// It could not be found out whether it is free.
    pub(crate) fn return_rested(&self, rested: Rested) {
        self.pool().resting.push_front(rested);
    }

    /// Every number once: first those of which nothing is known, and for want of others those that still rest.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = u32> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let count = last.saturating_sub(first).saturating_add(1);
        let pool = self.pool();
        let begin = pool.next % count;
        let resting: Vec<u32> = pool.resting.iter().map(|rested| rested.vmid).collect();
        drop(pool);
        let known: HashSet<u32> = resting.iter().copied().collect();
        let is_empty = self.range.is_empty();
        let new = (begin..count)
            .chain(0..begin)
            .map(move |offset| first + offset)
            .filter(move |vmid| !is_empty && !known.contains(vmid));
        new.chain(resting)
    }

    /// One of the candidates is a pod's now.
    pub(crate) fn note_taken(&self, vmid: u32) {
        let mut pool = self.pool();
        let known = pool.resting.len();
        pool.resting.retain(|rested| rested.vmid != vmid);
        if pool.resting.len() == known {
            pool.next = vmid.saturating_sub(*self.range.start()) + 1;
        }
    }

    /// No pod has it any more.
    pub(crate) fn give_back(&self, vmid: u32) {
        let mut pool = self.pool();
        if pool.resting.iter().all(|rested| rested.vmid != vmid) {
            let since = Instant::now();
            pool.resting.push_back(Rested { vmid, since });
        }
    }

    #[cfg(test)]
    pub(crate) fn rest_for(&mut self, rest: Duration) {
        self.rest = rest;
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place of a node's own: FNV-1a, which is the same in every version.
fn place_of(node: &str) -> u32 {
    node.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn take(numbers: &Numbers) -> u32 {
        let vmid = numbers.take_rested().map(|rested| rested.vmid);
        vmid.unwrap_or_else(|| {
            let vmid = numbers.candidates().next().unwrap();
            numbers.note_taken(vmid);
            vmid
        })
    }

    #[test]
    fn what_has_rested_comes_first_and_what_has_not_last() {
        let mut numbers = Numbers::new(100..=109, "pve1");
        let mut taken: Vec<u32> = (0..3).map(|_| take(&numbers)).collect();
        for vmid in &taken {
            numbers.give_back(*vmid);
            numbers.give_back(*vmid);
        }
        taken.extend((0..7).map(|_| take(&numbers)));
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 10);
        // All are known; the one that has rested longest is the least bad.
        let rest: Vec<u32> = numbers.candidates().skip(7).collect();
        assert_eq!(rest, taken[..3]);
        numbers.rest_for(Duration::ZERO);
        assert_eq!(take(&numbers), taken[0]);
        assert_eq!(take(&numbers), taken[1]);
    }

    #[test]
    fn nodes_begin_at_places_of_their_own() {
        let begin = |node| Numbers::new(900_000..=999_999, node).candidates().next();
        let places: BTreeSet<_> = ["pve1", "pve2", "pve3", "pve"].map(begin).into();
        assert_eq!(places.len(), 4);
        assert_eq!(begin("pve1"), begin("pve1"));
    }

    proptest! {
        #[test]
        fn every_number_is_a_candidate_once(
            first in 100_u32..200, count in 0_u32..40, next in any::<u32>(), given in prop::collection::vec(0_u32..40, 0..10),
        ) {
            let numbers = Numbers::new(first..=first + count, "");
            numbers.pool().next = next;
            for offset in given.iter().filter(|offset| **offset <= count) {
                numbers.give_back(first + offset);
            }
            let mut all: Vec<u32> = numbers.candidates().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (first..=first + count).collect::<Vec<_>>());
        }
    }
}
