//! Records of root filesystems.

use std::collections::BTreeMap;

use nexcage_image_store::{ChainId, RootfsId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::images::row_of;
use super::{Layer, Records, chain, signed, sql, unsigned};
use crate::error::{Result, no_layer};
use crate::zfs::Properties;

/// A root filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rootfs {
    pub(crate) id: RootfsId,
    /// The layer it stands on.
    pub(crate) top: ChainId,
    /// Whether it has a dataset of its own.
    pub(crate) writable: bool,
    /// Inodes of the layer and all below it.
    pub(crate) base_inodes: u64,
    /// Properties of its dataset.
    pub(crate) properties: Properties,
    /// The generation that is mounted.
    pub(crate) current: i64,
}

impl Records {
    /// Writes down that `id` stands on `top`; the last part of the answer is whether that is new. `None` if
    /// it stands on something else already.
    pub(crate) async fn begin_rootfs(
        &self,
        id: &RootfsId,
        top: &ChainId,
        writable: bool,
        properties: impl FnOnce(&Layer) -> Properties + Send + 'static,
    ) -> Result<Option<(Rootfs, Layer, bool)>> {
        let (id, top) = (id.clone(), top.clone());
        self.db
            .write(move |tx| {
                let layer = row_of(tx, &top)
                    .map_err(sql)?
                    .ok_or_else(|| no_layer(&top))?;
                if let Some(before) = find(tx, &id).map_err(sql)? {
                    let same = (&before.top, before.writable) == (&top, writable);
                    return Ok(same.then_some((before, layer, false)));
                }
                let properties = properties(&layer);
                insert(tx, &id, &layer, writable, properties)
                    .map(|rootfs| Some((rootfs, layer, true)))
                    .map_err(sql)
            })
            .await
    }

    pub(crate) async fn rootfs(&self, id: &RootfsId) -> Result<Option<Rootfs>> {
        let id = id.clone();
        self.read(move |c| find(c, &id)).await
    }

    pub(crate) async fn all_rootfses(&self) -> Result<Vec<Rootfs>> {
        self.read(|c| c.prepare(ROOTFS)?.query_map([], rootfs)?.collect())
            .await
    }

    /// Nothing of `id` is left.
    pub(crate) async fn forget_rootfs(&self, id: &RootfsId) -> Result<()> {
        let id = id.clone();
        self.amend(move |tx| {
            tx.execute("DELETE FROM rootfs WHERE id = ?1", [&id.0])?;
            Ok(())
        })
        .await
    }

    /// The generations of `id`, the youngest first.
    pub(crate) async fn generations(&self, id: &RootfsId) -> Result<Vec<i64>> {
        let id = id.clone();
        self.read(move |c| {
            c.prepare("SELECT n FROM generation WHERE rootfs = ?1 ORDER BY n DESC")?
                .query_map([&id.0], |r| r.get(0))?
                .collect()
        })
        .await
    }

    /// Writes down that a generation is going to be made, and says which.
    pub(crate) async fn begin_generation(&self, id: &RootfsId) -> Result<i64> {
        let id = id.clone();
        self.amend(move |tx| {
            tx.query_row(
                "INSERT INTO generation (rootfs, n)
                 SELECT ?1, max(n) + 1 FROM generation WHERE rootfs = ?1 RETURNING n",
                [&id.0],
                |r| r.get(0),
            )
        })
        .await
    }

    /// From now on, `id` is its generation `n`.
    pub(crate) async fn switch_generation(&self, id: &RootfsId, n: i64) -> Result<()> {
        let id = id.clone();
        self.amend(move |tx| {
            tx.execute(
                "UPDATE rootfs SET current = ?2 WHERE id = ?1",
                params![id.0, n],
            )?;
            Ok(())
        })
        .await
    }

    /// Nothing of a generation is left.
    pub(crate) async fn forget_generation(&self, id: &RootfsId, n: i64) -> Result<()> {
        let id = id.clone();
        self.amend(move |tx| {
            tx.execute(
                "DELETE FROM generation WHERE rootfs = ?1 AND n = ?2",
                params![id.0, n],
            )?;
            Ok(())
        })
        .await
    }
}

const ROOTFS: &str = "SELECT id, top, writable, base_inodes, properties, current FROM rootfs";

fn rootfs(row: &Row<'_>) -> rusqlite::Result<Rootfs> {
    let properties: String = row.get(4)?;
    let properties: BTreeMap<String, String> = serde_json::from_str(&properties)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(4, Type::Text, Box::new(e)))?;
    Ok(Rootfs {
        id: RootfsId(row.get(0)?),
        top: chain(row, 1)?,
        writable: row.get(2)?,
        base_inodes: unsigned(row, 3)?,
        properties,
        current: row.get(5)?,
    })
}

fn find(c: &Connection, id: &RootfsId) -> rusqlite::Result<Option<Rootfs>> {
    c.query_row(&format!("{ROOTFS} WHERE id = ?1"), [&id.0], rootfs)
        .optional()
}

fn insert(
    c: &Connection,
    id: &RootfsId,
    layer: &Layer,
    writable: bool,
    properties: Properties,
) -> rusqlite::Result<Rootfs> {
    let json = serde_json::to_string(&properties)
        .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    c.execute(
        "INSERT INTO rootfs (id, top, writable, base_inodes, properties)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            id.0,
            layer.chain.to_string(),
            writable,
            signed(layer.total_inodes),
            json
        ],
    )?;
    if writable {
        c.execute("INSERT INTO generation (rootfs, n) VALUES (?1, 0)", [&id.0])?;
    }
    Ok(Rootfs {
        id: id.clone(),
        top: layer.chain.clone(),
        writable,
        base_inodes: layer.total_inodes,
        properties,
        current: 0,
    })
}
