//! Comparing the records with the pool.

use std::collections::{HashMap, HashSet};

use nexcage_image_store::RootfsId;

use crate::names::{CHAIN, Names, ROLE, ROOTFS, is, last, role, snapshot};
use crate::records::{Image, Layer, Rootfs};
use crate::zfs::Entry;

/// What the records say.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) images: Vec<Image>,
    pub(crate) complete: Vec<Layer>,
    pub(crate) removing: Vec<Layer>,
    pub(crate) rootfses: Vec<Rootfs>,
    pub(crate) generations: Vec<(RootfsId, i64)>,
}

/// What is in the pool.
#[derive(Debug)]
pub(crate) struct Disk<'a> {
    entries: HashMap<&'a str, &'a Entry>,
}

impl<'a> Disk<'a> {
    pub(crate) fn new(tree: &'a [Entry]) -> Self {
        Self {
            entries: tree.iter().map(|e| (e.name.as_str(), e)).collect(),
        }
    }

    fn has(&self, name: &str, role: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| is(entry, role))
    }
}

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Datasets that are in `deleted/`, or not, other than recorded.
    pub(crate) moved: Vec<(Image, bool)>,
    /// Layers without their snapshots.
    pub(crate) lost_layers: Vec<Layer>,
    /// Records of datasets that are not there.
    pub(crate) lost_images: Vec<Image>,
    /// Root filesystems that are not there.
    pub(crate) lost_rootfses: Vec<RootfsId>,
    /// Datasets of ours without a record.
    pub(crate) garbage: Vec<String>,
    /// Datasets that are not ours.
    pub(crate) foreign: Vec<String>,
}

impl PartialEq for Layer {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Layer {}

/// Compares. `known` has no layers that are being unpacked.
pub(crate) fn plan(names: &Names, known: &Known, disk: &Disk<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut kept: HashSet<String> = HashSet::new();
    for image in &known.images {
        match place(names, *image, disk) {
            None => plan.lost_images.push(*image),
            Some(deleted) => {
                if deleted != image.deleted {
                    plan.moved.push((*image, deleted));
                }
                if keep_layers(names, known, disk, (*image, deleted), &mut plan) {
                    kept.insert(names.image(image.n, deleted));
                }
            }
        }
    }
    for rootfs in known.rootfses.iter().filter(|r| r.writable) {
        let mine = |n: i64| {
            let name = names.container(&rootfs.id, n);
            let entry = disk.entries.get(name.as_str())?;
            let mine = is(entry, role::CONTAINER) && entry.local(ROOTFS) == Some(&rootfs.id.0);
            mine.then_some(name)
        };
        if mine(rootfs.current).is_none() {
            plan.lost_rootfses.push(rootfs.id.clone());
            continue;
        }
        let generations = known.generations.iter().filter(|(id, _)| *id == rootfs.id);
        kept.extend(generations.filter_map(|(_, n)| mine(*n)));
    }
    sort_out(names, disk, &kept, &mut plan);
    plan
}

/// Where a dataset of layers is: in `deleted/` or not.
fn place(names: &Names, image: Image, disk: &Disk<'_>) -> Option<bool> {
    [image.deleted, !image.deleted]
        .into_iter()
        .find(|deleted| disk.has(&names.image(image.n, *deleted), role::IMAGE))
}

/// Finds the layers that a dataset has lost. `false` if it holds nothing that is known.
fn keep_layers(
    names: &Names,
    known: &Known,
    disk: &Disk<'_>,
    (image, deleted): (Image, bool),
    plan: &mut Plan,
) -> bool {
    let dataset = names.image(image.n, deleted);
    let mut any = known.removing.iter().any(|layer| layer.image.n == image.n);
    for layer in known.complete.iter().filter(|l| l.image.n == image.n) {
        let entry = disk.entries.get(snapshot(&dataset, &layer.chain).as_str());
        let there = entry.is_some_and(|e| e.local(CHAIN) == Some(&layer.chain.to_string()));
        match there {
            true => any = true,
            false => plan.lost_layers.push(layer.clone()),
        }
    }
    any
}

/// Tells what is ours and without a record from what is not ours.
fn sort_out(names: &Names, disk: &Disk<'_>, kept: &HashSet<String>, plan: &mut Plan) {
    let ours = [names.images(), names.containers(), names.deleted()];
    let own = [names.root().to_owned(), names.fs()];
    for (name, entry) in &disk.entries {
        let is_own = ours.iter().chain(&own).any(|own| own == name);
        if name.contains('@') || is_own || kept.contains(*name) {
            continue;
        }
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        let in_place = ours.iter().any(|place| place == parent);
        let tagged = matches!(entry.local(ROLE), Some(role::IMAGE | role::CONTAINER));
        match in_place && tagged {
            true => plan.garbage.push((*name).to_owned()),
            false => plan.foreign.push((*name).to_owned()),
        }
    }
    // The youngest first: numbers grow.
    plan.garbage
        .sort_by_key(|name| std::cmp::Reverse(last(name).parse::<i64>().unwrap_or(i64::MAX)));
    plan.foreign.sort();
}
