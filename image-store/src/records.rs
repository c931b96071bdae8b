//! What is known of each image, in SQLite.

use std::collections::HashSet;
use std::fmt;

use camino::Utf8Path;
use jiff::Timestamp;
use nexcage_sqlite::Database;
use oci_spec::image::ImageConfiguration;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::digest::{ChainId, Digest};

/// An image is a row in `image`, its layers from the lowest in `layer`, and its names in `name`.
const SCHEMA: &[&str] = &["
    CREATE TABLE image (
        id      TEXT NOT NULL PRIMARY KEY,
        config  TEXT NOT NULL,
        size    INTEGER NOT NULL,
        pulled  INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE layer (
        image    TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        chain    TEXT NOT NULL,
        PRIMARY KEY (image, position)
    ) STRICT;
    CREATE INDEX layer_chain ON layer (chain);
    CREATE TABLE name (
        name      TEXT NOT NULL PRIMARY KEY,
        is_digest INTEGER NOT NULL,
        image     TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX name_image ON name (image);
"];

/// Identity of an image: the digest of its config, the same for every tag and registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An image that is here in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Its id.
    pub id: ImageId,
    /// `registry/repository:tag`, sorted; empty if the tags have moved on.
    pub repo_tags: Vec<String>,
    /// `registry/repository@sha256:...` of the manifest or index that was asked for, sorted.
    pub repo_digests: Vec<String>,
    /// Space its layers take in the layer store, and its config, in bytes; never 0. Layers that
    /// several images share count in each of them.
    pub size: u64,
    /// How its containers run.
    pub config: ImageConfiguration,
    /// The config as it came from the registry.
    pub config_json: String,
    /// Its layers, lowest first; never empty.
    pub chain: Vec<ChainId>,
    /// Whether kubelet must leave it alone.
    pub pinned: bool,
    /// When it was built, if its config says so.
    pub created: Option<Timestamp>,
    /// When it was first pulled.
    pub pulled: Timestamp,
}

impl ImageRecord {
    /// The layer that root filesystems stand on.
    pub fn top(&self) -> Option<&ChainId> {
        self.chain.last()
    }
}

/// An image whose layers are all in the layer store.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) id: ImageId,
    pub(crate) config: String,
    pub(crate) size: u64,
    pub(crate) chain: Vec<ChainId>,
    /// Takes this name from whichever image has it.
    pub(crate) tag: Option<String>,
    pub(crate) digest: String,
    pub(crate) now: Timestamp,
}

/// How to find an image.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    Id(ImageId),
    /// A tag or digest reference as in the table `name`.
    Name(String),
    /// The beginning of an id, without its algorithm.
    Prefix(String),
}

/// What a key leads to.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    One(ImageId),
    Several,
}

/// The image records.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    db: Database,
    /// Names of pinned images.
    pinned: HashSet<String>,
}

type Result<T> = std::result::Result<T, nexcage_sqlite::DatabaseError>;

impl Records {
    /// Opens or creates the file. Blocking.
    pub(crate) fn open(path: &Utf8Path, pinned: HashSet<String>) -> Result<Self> {
        Ok(Self {
            db: Database::open(path, SCHEMA)?,
            pinned,
        })
    }

    /// Records an image with the names of one pull. Names move here from other images.
    pub(crate) async fn save(&self, image: NewImage) -> Result<ImageRecord> {
        let row = self
            .db
            .write(move |tx| {
                save(tx, &image)?;
                let row = read(tx, &image.id.to_string())?;
                Ok::<_, nexcage_sqlite::DatabaseError>(
                    row.ok_or(rusqlite::Error::QueryReturnedNoRows)?,
                )
            })
            .await?;
        self.record(row)
    }

    /// Which image a key leads to.
    pub(crate) async fn find(&self, key: Key) -> Result<Found> {
        self.db.read(move |conn| Ok(find(conn, &key)?)).await
    }

    /// One image.
    pub(crate) async fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        let id = id.to_string();
        let row = self.db.read(move |conn| read(conn, &id)).await?;
        row.map(|row| self.record(row)).transpose()
    }

    /// The config of an image as it was sent.
    pub(crate) async fn config(&self, id: &ImageId) -> Result<Option<String>> {
        let id = id.to_string();
        self.db
            .read(move |conn| {
                Ok(conn
                    .query_row("SELECT config FROM image WHERE id = ?1", [id], |row| {
                        row.get(0)
                    })
                    .optional()?)
            })
            .await
    }

    /// All images, by id.
    pub(crate) async fn images(&self) -> Result<Vec<ImageRecord>> {
        let rows = self
            .db
            .read(|conn| {
                let mut ids = conn.prepare_cached("SELECT id FROM image ORDER BY id")?;
                let ids = ids
                    .query_map([], |row| row.get::<_, String>(0))?
                    .collect::<std::result::Result<Vec<_>, _>>()?;
                let mut rows = Vec::with_capacity(ids.len());
                for id in ids {
                    rows.extend(read(conn, &id)?);
                }
                Ok::<_, nexcage_sqlite::DatabaseError>(rows)
            })
            .await?;
        rows.into_iter().map(|row| self.record(row)).collect()
    }

    /// Forgets an image and its names.
    pub(crate) async fn forget(&self, id: &ImageId) -> Result<()> {
        let id = id.to_string();
        self.db
            .amend(move |tx| {
                tx.execute("DELETE FROM image WHERE id = ?1", [&id])?;
                Ok(())
            })
            .await
    }

    /// Whether any image has this layer.
    pub(crate) async fn names_layer(&self, chain: &ChainId) -> Result<bool> {
        let chain = chain.to_string();
        self.db
            .read(move |conn| {
                Ok(conn.query_row(
                    "SELECT EXISTS (SELECT 1 FROM layer WHERE chain = ?1)",
                    [chain],
                    |row| row.get(0),
                )?)
            })
            .await
    }

    fn record(&self, row: ImageRow) -> Result<ImageRecord> {
        let config: ImageConfiguration =
            serde_json::from_str(&row.config).map_err(|e| unreadable(Box::new(e)))?;
        let created = config.created().as_ref().and_then(|t| t.parse().ok());
        let pinned = row
            .tags
            .iter()
            .chain(&row.digests)
            .any(|name| self.pinned.contains(name));
        Ok(ImageRecord {
            id: ImageId(row.id),
            repo_tags: row.tags,
            repo_digests: row.digests,
            size: row.size.max(1),
            config,
            config_json: row.config,
            chain: row.chain,
            pinned,
            created,
            pulled: row.pulled,
        })
    }
}

/// An image as it is in the tables.
struct ImageRow {
    id: Digest,
    config: String,
    size: u64,
    pulled: Timestamp,
    tags: Vec<String>,
    digests: Vec<String>,
    chain: Vec<ChainId>,
}

fn save(tx: &Transaction<'_>, image: &NewImage) -> Result<()> {
    let id = image.id.to_string();
    tx.execute(
        "INSERT INTO image (id, config, size, pulled) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET size = excluded.size",
        params![
            id,
            image.config,
            i64::try_from(image.size).unwrap_or(i64::MAX),
            image.now.as_second()
        ],
    )?;
    let mut layer = tx.prepare_cached(
        "INSERT OR IGNORE INTO layer (image, position, chain) VALUES (?1, ?2, ?3)",
    )?;
    for (position, chain) in image.chain.iter().enumerate() {
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        layer.execute(params![id, position, chain.to_string()])?;
    }
    let mut name = tx.prepare_cached(
        "INSERT INTO name (name, is_digest, image) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET image = excluded.image",
    )?;
    if let Some(tag) = &image.tag {
        name.execute(params![tag, false, id])?;
    }
    name.execute(params![image.digest, true, id])?;
    Ok(())
}

fn find(conn: &Connection, key: &Key) -> rusqlite::Result<Found> {
    let found: Vec<Digest> = match key {
        Key::Id(id) => select(conn, "SELECT id FROM image WHERE id = ?1", &id.to_string())?,
        Key::Name(name) => select(conn, "SELECT image FROM name WHERE name = ?1", name)?,
        // The caller has made sure that it is hex digits, so there is nothing to escape.
        Key::Prefix(prefix) => select(
            conn,
            "SELECT id FROM image WHERE id GLOB ?1 LIMIT 2",
            &format!("sha256:{prefix}*"),
        )?,
    };
    let mut found = found.into_iter();
    Ok(match (found.next(), found.next()) {
        (None, _) => Found::Nothing,
        (Some(id), None) => Found::One(ImageId(id)),
        (Some(_), Some(_)) => Found::Several,
    })
}

fn select(conn: &Connection, sql: &str, value: &str) -> rusqlite::Result<Vec<Digest>> {
    conn.prepare_cached(sql)?
        .query_map([value], |row| digest(row, 0))?
        .collect()
}

fn read(conn: &Connection, id: &str) -> Result<Option<ImageRow>> {
    let image = conn
        .prepare_cached("SELECT id, config, size, pulled FROM image WHERE id = ?1")?
        .query_row([id], |row| {
            Ok((
                digest(row, 0)?,
                row.get(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })
        .optional()?;
    let Some((digest_of, config, size, pulled)) = image else {
        return Ok(None);
    };
    let mut names = conn.prepare_cached(
        "SELECT name FROM name WHERE image = ?1 AND is_digest = ?2 ORDER BY name",
    )?;
    let mut names = |is_digest: bool| -> rusqlite::Result<Vec<String>> {
        names
            .query_map(params![id, is_digest], |row| row.get(0))?
            .collect()
    };
    let (tags, digests) = (names(false)?, names(true)?);
    let chain = conn
        .prepare_cached("SELECT chain FROM layer WHERE image = ?1 ORDER BY position")?
        .query_map([id], |row| digest(row, 0).map(ChainId::from))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(ImageRow {
        id: digest_of,
        config,
        size: u64::try_from(size).unwrap_or(0),
        pulled: Timestamp::from_second(pulled).map_err(|e| unreadable(Box::new(e)))?,
        tags,
        digests,
        chain,
    }))
}

fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    let text: String = row.get(column)?;
    text.parse().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e))
    })
}

fn unreadable(error: Box<dyn std::error::Error + Send + Sync>) -> nexcage_sqlite::DatabaseError {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error).into()
}
