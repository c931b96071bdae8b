//! Removing layers that no image has, and forgetting images that have lost a layer.

use std::collections::{HashMap, HashSet};

use crate::digest::ChainId;
use crate::layer_store::{LayerStoreError, StoredLayer};
use crate::records::ImageRecord;
use crate::store::{Collected, ImageStoreError, Shared};

/// Forgets images that have lost a layer, and removes every layer that no record names, no pull counts on and nothing stands
/// on.
///
/// A layer is looked at under its lock, first for a lease, then for a record. A pull takes its
/// lease before it looks for the layer under the same lock, and writes its record before it gives
/// the lease back; so a layer that a pull has seen is not removed.
pub(crate) async fn collect(shared: &Shared) -> Result<Collected, ImageStoreError> {
    let _one_at_a_time = shared.collecting.lock().await;
    // In this order: the layers of an image that is recorded meanwhile are not missed.
    let images = shared.records.images().await?;
    let layers = shared.options.layers.layers().await?;
    forget_incomplete(shared, &images, &layers).await?;
    let mut removed = Vec::new();
    let done = remove_unnamed(shared, layers, &mut removed).await;
    // Those before a failure, too.
    shared.options.layers.reclaim(&removed).await;
    Ok(Collected {
        removed: removed.len(),
        in_use: done?,
    })
}

/// Says how many are in use.
async fn remove_unnamed(
    shared: &Shared,
    layers: Vec<StoredLayer>,
    removed: &mut Vec<ChainId>,
) -> Result<usize, ImageStoreError> {
    let mut in_use = 0;
    for layer in top_down(layers) {
        let lock = shared.chains.get(&layer.chain);
        let _one_at_a_time = lock.lock().await;
        if shared.leases.holds(&layer.chain) || shared.records.names_layer(&layer.chain).await? {
            continue;
        }
        match shared.options.layers.remove_layer(&layer.chain).await {
            Ok(()) => {
                nexcage_failpoint::hit("image.layer-removed");
                tracing::debug!(layer = %layer.chain, bytes = layer.bytes, "layer removed");
                removed.push(layer.chain);
            }
            Err(LayerStoreError::InUse { .. }) => in_use += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(in_use)
}

/// Forgets images of which a layer is missing: somebody has destroyed it, or the layer store was cleared or comes from a backup.
/// No container can be made of such an image, and kubelet pulls one again only if it is not listed.
async fn forget_incomplete(
    shared: &Shared,
    images: &[ImageRecord],
    layers: &[StoredLayer],
) -> Result<(), ImageStoreError> {
    let stored: HashSet<&ChainId> = layers.iter().map(|layer| &layer.chain).collect();
    for image in images {
        let Some(missing) = image.chain.iter().find(|chain| !stored.contains(chain)) else {
            continue;
        };
        let lock = shared.chains.get(missing);
        let _one_at_a_time = lock.lock().await;
        // A pull brings it, or has brought it by now.
        if shared.leases.holds(missing) || shared.options.layers.layer(missing).await?.is_some() {
            continue;
        }
        tracing::warn!(id = %image.id, tags = ?image.repo_tags, %missing, "image forgotten: a layer is missing");
        shared.records.forget(&image.id).await?;
    }
    Ok(())
}

/// The layers in an order in which each comes before the one it stands on.
fn top_down(layers: Vec<StoredLayer>) -> Vec<StoredLayer> {
    let parents: HashMap<ChainId, Option<ChainId>> = layers
        .iter()
        .map(|layer| (layer.chain.clone(), layer.parent.clone()))
        .collect();
    let depth = |layer: &StoredLayer| {
        let mut depth = 0usize;
        let mut next = layer.parent.as_ref();
        // A chain cannot be longer than there are layers, whatever the store says.
        while let Some(parent) = next
            && depth < parents.len()
        {
            depth += 1;
            next = parents.get(parent).and_then(Option::as_ref);
        }
        depth
    };
    let mut sorted: Vec<(usize, StoredLayer)> = layers
        .into_iter()
        .map(|layer| (depth(&layer), layer))
        .collect();
    sorted.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    sorted.into_iter().map(|(_, layer)| layer).collect()
}
