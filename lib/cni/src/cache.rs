//! What is attached, on disk: one file per attachment.

use std::fs::{self, File};
use std::io::{self, Write};

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attachment::Attachment;
use crate::error::CniError;
use crate::network::Network;
use crate::version::Version;

/// An attachment that was begun and not yet undone.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// As it was given to ADD. If its file is damaged, only `container_id` and `ifname` are known.
    pub attachment: Attachment,
    /// Name of the network; empty if the file is damaged.
    pub network: String,
    /// The result of ADD; `None` if ADD never got to its end.
    pub result: Option<Value>,
}

/// Contents of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What was asked for.
    pub attachment: Attachment,
    /// The configuration in use.
    pub network: Network,
    /// The version in use.
    pub cni_version: Version,
    /// `adding`, or `added` with the last plugin's result.
    #[serde(flatten)]
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", content = "result", rename_all = "lowercase")]
pub(crate) enum State {
    Adding,
    Added(Value),
}

impl Entry {
    /// The result, if ADD got to its end.
    pub(crate) fn result(&self) -> Option<&Value> {
        match &self.state {
            State::Adding => None,
            State::Added(result) => Some(result),
        }
    }
}

/// What the cache has of an attachment.
pub(crate) enum Found {
    Nothing,
    /// There is a file, and it cannot be understood.
    Damaged(String),
    Entry(Box<Entry>),
}

/// The directory. All methods block.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    dir: Utf8PathBuf,
}

impl Cache {
    pub(crate) fn new(dir: Utf8PathBuf) -> Self {
        Self { dir }
    }

    /// `<container id>@<interface>.json`; a container id has no `@`.
    fn file(&self, container_id: &str, ifname: &str) -> Utf8PathBuf {
        self.dir.join(format!("{container_id}@{ifname}.json"))
    }

    fn new_file(&self, container_id: &str, ifname: &str) -> Utf8PathBuf {
        self.dir.join(format!(".{container_id}@{ifname}.new"))
    }

    /// Puts an entry in place of the one before. When this returns, it survives the end of this process at any moment, and
    /// a power cut if it tells of an ADD that got to its end: what plugins write before that does not wait for the disk
    /// either.
    pub(crate) fn store(&self, entry: &Entry) -> Result<(), CniError> {
        let Attachment {
            container_id,
            ifname,
            ..
        } = &entry.attachment;
        let (new, file) = (
            self.new_file(container_id, ifname),
            self.file(container_id, ifname),
        );
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.dir)?;
            let mut open = File::create(&new)?;
            open.write_all(&serde_json::to_vec_pretty(entry)?)?;
            if entry.result().is_none() {
                return fs::rename(&new, &file);
            }
            open.sync_all()?;
            fs::rename(&new, &file)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(failed(&file))
    }

    /// Looks an attachment up.
    pub(crate) fn find(&self, container_id: &str, ifname: &str) -> Result<Found, CniError> {
        let file = self.file(container_id, ifname);
        let text = match fs::read(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            text => text.map_err(failed(&file))?,
        };
        Ok(match serde_json::from_slice::<Entry>(&text) {
            Ok(entry) => Found::Entry(Box::new(entry)),
            Err(e) => Found::Damaged(format!("{file}: {e}")),
        })
    }

    /// Forgets an attachment. `Ok` if there is none. A power cut may bring it back; DEL may be done twice.
    pub(crate) fn remove(&self, container_id: &str, ifname: &str) -> Result<(), CniError> {
        let file = self.file(container_id, ifname);
        for path in [&file, &self.new_file(container_id, ifname)] {
            match fs::remove_file(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(failed(path))?,
            }
        }
        Ok(())
    }

    /// All attachments, by container id and interface.
    pub(crate) fn list(&self) -> Result<Vec<Cached>, CniError> {
        let entries = match self.dir.read_dir_utf8() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed(&self.dir))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed(&self.dir))?;
            let name = entry.file_name().strip_suffix(".json");
            let ids = name.and_then(|name| name.split_once('@'));
            names.extend(ids.map(|(id, ifname)| (id.to_owned(), ifname.to_owned())));
        }
        names.sort();
        let mut all = Vec::new();
        for (container_id, ifname) in names {
            match self.find(&container_id, &ifname)? {
                // Removed since the directory was read.
                Found::Nothing => {}
                Found::Entry(entry) => all.push(Cached {
                    result: entry.result().cloned(),
                    network: entry.network.name,
                    attachment: entry.attachment,
                }),
                Found::Damaged(_) => all.push(Cached {
                    attachment: Attachment {
                        container_id,
                        netns: None,
                        ifname,
                        args: Vec::new(),
                        capabilities: serde_json::Map::new(),
                    },
                    network: String::new(),
                    result: None,
                }),
            }
        }
        Ok(all)
    }
}

fn failed(path: &Utf8Path) -> impl FnOnce(io::Error) -> CniError {
    let path = path.to_owned();
    move |source| CniError::Cache { path, source }
}
