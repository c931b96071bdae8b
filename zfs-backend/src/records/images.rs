//! Records of layers and of the datasets they are in.

use nexcage_image_store::{ChainId, LayerStoreError, StoredLayer, Usage};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Records, chain, chain_or_none, signed, sql, unsigned};
use crate::error::{Result, no_layer};
use crate::names::{self, Names};

/// A dataset of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) n: i64,
    /// It is in `deleted/`.
    pub(crate) deleted: bool,
}

impl Image {
    /// Its name.
    pub(crate) fn name(self, names: &Names) -> String {
        names.image(self.n, self.deleted)
    }
}

/// A row of the table of layers.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) id: i64,
    pub(crate) chain: ChainId,
    pub(crate) image: Image,
    /// Nobody knows it any more.
    pub(crate) removing: bool,
    /// Inodes of it and all below it; 0 if it was never complete.
    pub(crate) total_inodes: u64,
    /// Bytes of it and all below it.
    pub(crate) total_bytes: u64,
}

impl Layer {
    /// The snapshot's name.
    pub(crate) fn snapshot(&self, names: &Names) -> String {
        names::snapshot(&self.image.name(names), &self.chain)
    }
}

/// Where a layer is to be unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Row of the layer.
    pub(crate) layer: i64,
    /// Its dataset.
    pub(crate) image: Image,
    /// Whether the dataset has to be made.
    pub(crate) new: bool,
    /// The layer below.
    pub(crate) parent: Option<Layer>,
}

/// What to do for a layer that is asked for.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Nothing.
    Exists(StoredLayer),
    /// Unpack it.
    Apply(Target),
}

/// What is known of a layer once it is there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// The layer alone.
    pub(crate) own: Usage,
    /// With all below it.
    pub(crate) total: Usage,
}

impl Records {
    pub(crate) async fn layer(&self, chain: &ChainId) -> Result<Option<StoredLayer>> {
        let chain = chain.clone();
        self.read(move |c| live(c, &chain)).await
    }

    pub(crate) async fn layers(&self) -> Result<Vec<StoredLayer>> {
        self.read(|c| {
            c.prepare(&format!("{STORED} WHERE state = 'complete'"))?
                .query_map([], stored)?
                .collect()
        })
        .await
    }

    /// Bytes and inodes of all live layers.
    pub(crate) async fn layers_usage(&self) -> Result<Usage> {
        self.read(|c| {
            c.query_row(
                "SELECT coalesce(sum(bytes), 0), coalesce(sum(inodes), 0)
                 FROM layer WHERE state = 'complete'",
                [],
                |r| {
                    Ok(Usage {
                        bytes: unsigned(r, 0)?,
                        inodes: unsigned(r, 1)?,
                    })
                },
            )
        })
        .await
    }

    /// The row of a layer that was complete, is being removed and may still be on the disk.
    pub(crate) async fn doomed_layer(&self, chain: &ChainId) -> Result<Option<Layer>> {
        let chain = chain.to_string();
        self.read(move |c| {
            let doomed = format!(
                "{LAYER} WHERE l.state = 'removing' AND l.total_inodes > 0 AND l.chain = ?1
                 ORDER BY l.id DESC LIMIT 1"
            );
            c.query_row(&doomed, [chain], layer).optional()
        })
        .await
    }

    /// Layers that are complete, or being removed; those that stand on others first.
    pub(crate) async fn all_layers(&self, removing: bool) -> Result<Vec<Layer>> {
        let state = if removing { "removing" } else { "complete" };
        self.read(move |c| {
            c.prepare(&format!("{LAYER} WHERE l.state = ?1 ORDER BY l.id DESC"))?
                .query_map([state], layer)?
                .collect()
        })
        .await
    }

    /// All layers of a dataset, the last that was applied first.
    pub(crate) async fn layers_of(&self, image: Image) -> Result<Vec<Layer>> {
        self.read(move |c| {
            c.prepare(&format!("{LAYER} WHERE l.dataset = ?1 ORDER BY l.id DESC"))?
                .query_map([image.n], layer)?
                .collect()
        })
        .await
    }

    pub(crate) async fn images(&self) -> Result<Vec<Image>> {
        self.read(|c| {
            c.prepare("SELECT n, deleted FROM dataset ORDER BY n DESC")?
                .query_map([], |r| {
                    Ok(Image {
                        n: r.get(0)?,
                        deleted: r.get(1)?,
                    })
                })?
                .collect()
        })
        .await
    }

    /// Datasets that may differ from their latest snapshot and in which nothing is being unpacked.
    pub(crate) async fn dirty_images(&self) -> Result<Vec<Image>> {
        self.read(|c| {
            c.prepare(
                "SELECT n, deleted FROM dataset d WHERE dirty AND NOT deleted AND NOT EXISTS (
                     SELECT 1 FROM layer l WHERE l.dataset = d.n AND l.state <> 'complete')",
            )?
            .query_map([], |r| {
                Ok(Image {
                    n: r.get(0)?,
                    deleted: r.get(1)?,
                })
            })?
            .collect()
        })
        .await
    }

    /// Writes down that `chain` is going to be unpacked on `parent`: in the parent's dataset if that is as
    /// the parent left it, else in a new one.
    pub(crate) async fn begin_layer(
        &self,
        parent: Option<&ChainId>,
        chain: &ChainId,
    ) -> Result<Begun> {
        let (parent, chain) = (parent.cloned(), chain.clone());
        self.db
            .write(move |tx| {
                if let Some(layer) = live(tx, &chain).map_err(sql)? {
                    return Ok(Begun::Exists(layer));
                }
                let below = match &parent {
                    None => None,
                    Some(parent) => Some(
                        row_of(tx, parent)
                            .map_err(sql)?
                            .ok_or_else(|| no_layer(parent))?,
                    ),
                };
                begin(tx, &chain, below).map(Begun::Apply).map_err(sql)
            })
            .await
    }

    /// Writes down that a layer is there in full. If another call was quicker, `false`.
    pub(crate) async fn layer_complete(&self, target: &Target, measured: Measured) -> Result<bool> {
        let (layer, n) = (target.layer, target.image.n);
        self.amend(move |tx| {
            let Measured { own, total } = measured;
            let done = tx.execute(
                "UPDATE OR IGNORE layer SET state = 'complete', bytes = ?2, inodes = ?3,
                     total_bytes = ?4, total_inodes = ?5 WHERE id = ?1 AND state = 'applying'",
                params![
                    layer,
                    signed(own.bytes),
                    signed(own.inodes),
                    signed(total.bytes),
                    // 0 says that it never was complete.
                    signed(total.inodes.max(1))
                ],
            )?;
            if done > 0 {
                tx.execute("UPDATE dataset SET dirty = 0 WHERE n = ?1", [n])?;
            }
            Ok(done > 0)
        })
        .await
    }

    /// A layer that was being removed is wanted again.
    pub(crate) async fn take_back(&self, layer: &Layer) -> Result<()> {
        let (id, n) = (layer.id, layer.image.n);
        self.amend(move |tx| {
            tx.execute("UPDATE layer SET state = 'complete' WHERE id = ?1", [id])?;
            tx.execute("UPDATE dataset SET dirty = 1 WHERE n = ?1", [n])?;
            Ok(())
        })
        .await
    }

    /// Writes down that `chain` is going to be removed: from now on nothing can be put on it.
    pub(crate) async fn begin_removal(&self, chain: &ChainId) -> Result<()> {
        let chain = chain.clone();
        self.db
            .amend(move |tx| {
                let name = chain.to_string();
                let used =
                    "SELECT EXISTS (SELECT 1 FROM layer WHERE state = 'complete' AND chain = ?1)
                     AND (EXISTS (SELECT 1 FROM layer WHERE parent = ?1 AND state <> 'removing')
                          OR EXISTS (SELECT 1 FROM rootfs WHERE top = ?1))";
                if tx.query_row(used, [&name], |r| r.get(0)).map_err(sql)? {
                    let chain = chain.clone();
                    return Err(LayerStoreError::InUse { chain });
                }
                doom(tx, "state = 'complete' AND chain = ?1", &name).map_err(sql)
            })
            .await
    }

    /// What is being unpacked into this row, or was, is not wanted.
    pub(crate) async fn give_up(&self, layer: i64) -> Result<()> {
        self.amend(move |tx| doom(tx, "id = ?1", layer)).await
    }

    /// The same for all rows: nobody is left that unpacks.
    pub(crate) async fn give_up_all(&self) -> Result<()> {
        self.amend(|tx| doom(tx, "state = ?1", "applying")).await
    }

    /// A layer is not on the disk. `dirty`: whether its dataset may differ from its latest snapshot.
    /// The dataset's record goes with its last layer.
    pub(crate) async fn forget_layer(&self, layer: &Layer, dirty: bool) -> Result<()> {
        let (id, n) = (layer.id, layer.image.n);
        self.amend(move |tx| {
            tx.execute("DELETE FROM layer WHERE id = ?1", [id])?;
            tx.execute(
                "UPDATE dataset SET dirty = ?2 WHERE n = ?1",
                params![n, dirty],
            )?;
            tx.execute(
                "DELETE FROM dataset WHERE n = ?1
                 AND NOT EXISTS (SELECT 1 FROM layer WHERE dataset = ?1)",
                [n],
            )?;
            Ok(())
        })
        .await
    }

    /// A dataset and all layers in it are not on the disk.
    pub(crate) async fn forget_image(&self, image: Image) -> Result<()> {
        self.amend(move |tx| {
            tx.execute("DELETE FROM layer WHERE dataset = ?1", [image.n])?;
            tx.execute("DELETE FROM dataset WHERE n = ?1", [image.n])?;
            Ok(())
        })
        .await
    }

    /// A dataset is as its latest snapshot.
    pub(crate) async fn image_clean(&self, image: Image) -> Result<()> {
        self.amend(move |tx| {
            tx.execute("UPDATE dataset SET dirty = 0 WHERE n = ?1", [image.n])?;
            Ok(())
        })
        .await
    }

    /// A dataset is in `deleted/`, or not any more.
    pub(crate) async fn image_moved(&self, image: Image, deleted: bool) -> Result<()> {
        self.amend(move |tx| {
            tx.execute(
                "UPDATE dataset SET deleted = ?2 WHERE n = ?1",
                params![image.n, deleted],
            )?;
            Ok(())
        })
        .await
    }
}

const STORED: &str = "SELECT chain, parent, bytes, inodes FROM layer";

const LAYER: &str = "SELECT l.id, l.chain, l.dataset, d.deleted, l.state = 'removing',
                         l.total_inodes, l.total_bytes
                     FROM layer l JOIN dataset d ON d.n = l.dataset";

fn stored(row: &Row<'_>) -> rusqlite::Result<StoredLayer> {
    Ok(StoredLayer {
        chain: chain(row, 0)?,
        parent: chain_or_none(row, 1)?,
        bytes: unsigned(row, 2)?,
        inodes: unsigned(row, 3)?,
    })
}

fn layer(row: &Row<'_>) -> rusqlite::Result<Layer> {
    Ok(Layer {
        id: row.get(0)?,
        chain: chain(row, 1)?,
        image: Image {
            n: row.get(2)?,
            deleted: row.get(3)?,
        },
        removing: row.get(4)?,
        total_inodes: unsigned(row, 5)?,
        total_bytes: unsigned(row, 6)?,
    })
}

fn live(c: &Connection, chain: &ChainId) -> rusqlite::Result<Option<StoredLayer>> {
    let live = format!("{STORED} WHERE state = 'complete' AND chain = ?1");
    c.query_row(&live, [chain.to_string()], stored).optional()
}

pub(super) fn row_of(c: &Connection, chain: &ChainId) -> rusqlite::Result<Option<Layer>> {
    let live = format!("{LAYER} WHERE l.state = 'complete' AND l.chain = ?1");
    c.query_row(&live, [chain.to_string()], layer).optional()
}

fn begin(c: &Connection, chain: &ChainId, below: Option<Layer>) -> rusqlite::Result<Target> {
    let free = match &below {
        None => false,
        Some(below) => c.query_row(
            "SELECT NOT dirty AND NOT deleted AND
                 (SELECT max(id) FROM layer WHERE dataset = ?1) = ?2
             FROM dataset WHERE n = ?1",
            params![below.image.n, below.id],
            |r| r.get(0),
        )?,
    };
    let n = match (&below, free) {
        (Some(below), true) => {
            c.execute("UPDATE dataset SET dirty = 1 WHERE n = ?1", [below.image.n])?;
            below.image.n
        }
        _ => {
            c.execute("INSERT INTO dataset DEFAULT VALUES", [])?;
            c.last_insert_rowid()
        }
    };
    c.execute(
        "INSERT INTO layer (chain, parent, dataset, state) VALUES (?1, ?2, ?3, 'applying')",
        params![
            chain.to_string(),
            below.as_ref().map(|b| b.chain.to_string()),
            n
        ],
    )?;
    Ok(Target {
        layer: c.last_insert_rowid(),
        image: Image { n, deleted: false },
        new: !free,
        parent: below,
    })
}

/// Marks layers as going; what they leave in their datasets is not to be built on.
fn doom(c: &Connection, which: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
    let value = &value;
    c.execute(
        &format!(
            "UPDATE dataset SET dirty = 1 WHERE n IN (SELECT dataset FROM layer WHERE {which})"
        ),
        [value],
    )?;
    c.execute(
        &format!("UPDATE layer SET state = 'removing' WHERE {which}"),
        [value],
    )?;
    Ok(())
}
