//! Finding and running plugins.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::{Command, CommandError, Output, Program, Stdin};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::attachment::Attachment;
use crate::error::{CniError, Verb};
use crate::version::Version;

/// An answer longer than this, in bytes, is not one.
const ANSWER_MAX: usize = 1 << 20;

/// Beginning of a wrong answer that an error shows, in characters.
const SHOWN: usize = 200;

/// An installed plugin.
#[derive(Clone, Debug)]
pub(crate) struct Plugin {
    kind: String,
    program: Program,
}

/// What makes a plugin's file the same as when it was asked for its versions.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// The directories with plugins, and what is known of those in them.
#[derive(Debug)]
pub(crate) struct Plugins {
    dirs: Vec<Utf8PathBuf>,
    deadline: Duration,
    versions: Mutex<HashMap<Utf8PathBuf, (Stamp, Vec<Version>)>>,
}

impl Plugins {
    pub(crate) fn new(dirs: Vec<Utf8PathBuf>, deadline: Duration) -> Self {
        Self {
            dirs,
            deadline,
            versions: Mutex::default(),
        }
    }

    /// The plugin of a type, from the first directory that has it.
    pub(crate) fn find(&self, kind: &str) -> Result<Plugin, CniError> {
        let paths = self.dirs.iter().map(|dir| dir.join(kind));
        let program = paths.filter_map(|path| Program::at(path).ok()).next();
        let program = program.ok_or_else(|| CniError::PluginNotFound {
            plugin: kind.to_owned(),
            looked: join(&self.dirs, ", "),
        })?;
        Ok(Plugin {
            kind: kind.to_owned(),
            program,
        })
    }

    /// Runs `plugin` and gives its answer, which is `null` where it said nothing.
    pub(crate) async fn call(
        &self,
        plugin: &Plugin,
        verb: Verb,
        attachment: Option<&Attachment>,
        netns: Option<&Utf8Path>,
        conf: &Map<String, Value>,
    ) -> Result<Value, CniError> {
        let mut env = BTreeMap::from([
            ("CNI_COMMAND", verb.name().to_owned()),
            ("CNI_PATH", join(&self.dirs, ":")),
        ]);
        if let Some(a) = attachment {
            env.insert("CNI_CONTAINERID", a.container_id.clone());
            env.insert("CNI_IFNAME", a.ifname.clone());
            env.insert(
                "CNI_NETNS",
                netns.map(ToString::to_string).unwrap_or_default(),
            );
            env.insert("CNI_ARGS", a.args_text());
        }
        let stdin = Value::Object(conf.clone()).to_string().into_bytes();
        let mut command = Command::new(&plugin.program, self.deadline).stdin(Stdin::Bytes(stdin));
        for (name, value) in env {
            command = command.env(name, value);
        }
        let line = command.line();
        let output = command.run_any_status().await;
        let output = output.map_err(|source| CniError::Call {
            plugin: plugin.kind.clone(),
            verb,
            source,
        })?;
        answer(plugin, verb, line, &output)
    }

    /// The versions that `plugin` speaks.
    pub(crate) async fn versions(&self, plugin: &Plugin) -> Result<Vec<Version>, CniError> {
        let path = plugin.path();
        let stamp = stamp(path);
        if let Some((known, versions)) = self.known().get(path)
            && Some(known) == stamp.as_ref()
        {
            return Ok(versions.clone());
        }
        let ask = json!({"cniVersion": Version::V1_1_0.to_string()});
        let ask = ask.as_object().cloned().unwrap_or_default();
        let answer = self.call(plugin, Verb::Version, None, None, &ask).await?;
        let versions = supported(&answer).map_err(|reason| CniError::Answer {
            plugin: plugin.kind.clone(),
            verb: Verb::Version,
            reason,
        })?;
        if let Some(stamp) = stamp {
            self.known()
                .insert(path.to_owned(), (stamp, versions.clone()));
        }
        Ok(versions)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Utf8PathBuf, (Stamp, Vec<Version>)>> {
        // Whole entries are put in, so a panic elsewhere leaves nothing half-done.
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plugin {
    /// Its file.
    pub(crate) fn path(&self) -> &Utf8Path {
        self.program.path()
    }

    /// Its type.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }
}

fn stamp(path: &Utf8Path) -> Option<Stamp> {
    let meta = path.metadata().ok()?;
    Some(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        changed: (meta.ctime(), meta.ctime_nsec()),
    })
}

fn join(dirs: &[Utf8PathBuf], with: &str) -> String {
    let dirs: Vec<&str> = dirs.iter().map(|dir| dir.as_str()).collect();
    dirs.join(with)
}

/// The answer to VERSION. Versions that are not numbers are somebody else's.
fn supported(answer: &Value) -> Result<Vec<Version>, String> {
    let list = answer.get("supportedVersions").and_then(Value::as_array);
    let list = list.ok_or("supportedVersions must be a list of versions")?;
    Ok(list
        .iter()
        .filter_map(|version| version.as_str()?.parse().ok())
        .collect())
}

/// The error object of the specification, section 5.
#[derive(Deserialize)]
struct Refusal {
    code: u64,
    msg: String,
    #[serde(default)]
    details: String,
}

/// Makes sense of how a plugin ended.
fn answer(plugin: &Plugin, verb: Verb, line: String, output: &Output) -> Result<Value, CniError> {
    let wrong = |reason| CniError::Answer {
        plugin: plugin.kind.clone(),
        verb,
        reason,
    };
    let stdout = output.stdout.as_slice();
    if stdout.len() > ANSWER_MAX {
        return Err(wrong(format!("it wrote more than {ANSWER_MAX} bytes")));
    }
    if output.status.success() {
        if stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(stdout).map_err(|e| {
            let begin: String = output.stdout_text().chars().take(SHOWN).collect();
            wrong(format!("not JSON ({e}): {begin:?}"))
        });
    }
    Err(match serde_json::from_slice::<Refusal>(stdout) {
        Ok(refusal) => CniError::Plugin {
            plugin: plugin.kind.clone(),
            verb,
            code: refusal.code,
            message: refusal.msg,
            details: refusal.details,
        },
        Err(_) => CniError::Call {
            plugin: plugin.kind.clone(),
            verb,
            source: CommandError::Failed {
                command: line,
                status: output.status,
                stdout: output.stdout_text(),
                stderr: output.stderr_text(),
            },
        },
    })
}
