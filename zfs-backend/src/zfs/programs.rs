//! Driving `zfs`.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use nexcage_command::{Command, Program};
use tokio::sync::Semaphore;

use super::{Entry, Kind, Properties, Result, Value, Zfs, ZfsError};

/// For one call. Most end within a transaction group, some hundred milliseconds; on a suspended pool they
/// never end.
const DEADLINE: Duration = Duration::from_secs(60);

/// For a call that walks everything below the dataset.
const TREE_DEADLINE: Duration = Duration::from_secs(300);

/// Calls at one time. They all wait for the same transaction groups, so more do not get more done.
const AT_ONCE: usize = 16;

/// Where Debian and Proxmox have them.
const PACKAGE: &str = "zfsutils-linux";

/// OpenZFS by its program.
#[derive(Debug)]
pub(crate) struct Programs {
    zfs: Program,
    room: Semaphore,
}

impl Programs {
    /// Finds the program.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self {
            zfs: Program::find("zfs", PACKAGE)?,
            room: Semaphore::new(AT_ONCE),
        })
    }

    async fn run(&self, args: Vec<String>) -> Result<(String, String)> {
        self.run_within(DEADLINE, args).await
    }

    /// The command line and what it wrote.
    async fn run_within(&self, deadline: Duration, args: Vec<String>) -> Result<(String, String)> {
        // Never closed.
        let _room = self.room.acquire().await;
        let command = Command::new(&self.zfs, deadline).args(args);
        let line = command.line();
        let output = command.run().await.map_err(ZfsError::Refused)?;
        Ok((line, output.stdout_text()))
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

/// `-o name=value` for each.
fn options(properties: &Properties) -> impl Iterator<Item = String> {
    (properties.iter()).flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
}

/// What `zfs get` shall look at.
#[derive(Clone, Copy, Debug)]
enum Depth {
    /// One dataset or snapshot.
    One,
    /// A dataset and what is right below it.
    Next,
    /// A dataset and everything below it.
    All,
}

fn get_args(name: &str, properties: &[&str], depth: Depth) -> Vec<String> {
    let mut args = words(&["get", "-H", "-p"]);
    match depth {
        Depth::One => {}
        Depth::Next => args.extend(words(&["-d", "1", "-t", "filesystem,snapshot"])),
        Depth::All => args.extend(words(&["-r", "-t", "filesystem,snapshot"])),
    }
    args.extend(words(&["-o", "name,property,value,source"]));
    args.extend([properties.join(","), name.to_owned()]);
    args
}

fn list_args(names: &[String], kind: Kind, columns: &[&str]) -> Vec<String> {
    let types = match kind {
        Kind::Filesystems => "filesystem",
        Kind::Snapshots => "snapshot",
    };
    let mut args = words(&["list", "-H", "-p", "-d", "1", "-t", types, "-o"]);
    args.push(columns.join(","));
    args.extend(names.iter().cloned());
    args
}

/// Four columns per line; entries in the order in which they come.
fn parse_get(command: &str, text: &str) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, property, value, source] = columns[..] else {
            return Err(unexpected(command, line));
        };
        if entries.last().is_none_or(|last| last.name != name) {
            entries.push(Entry {
                name: name.to_owned(),
                properties: BTreeMap::new(),
            });
        }
        if let Some(entry) = entries.last_mut() {
            let value = Value {
                value: value.to_owned(),
                local: source == "local",
            };
            entry.properties.insert(property.to_owned(), value);
        }
    }
    Ok(entries)
}

fn parse_list(command: &str, text: &str, columns: usize) -> Result<Vec<Vec<String>>> {
    text.lines()
        .map(|line| {
            let row: Vec<String> = line.split('\t').map(str::to_owned).collect();
            match row.len() == columns {
                true => Ok(row),
                false => Err(unexpected(command, line)),
            }
        })
        .collect()
}

fn unexpected(command: &str, line: &str) -> ZfsError {
    ZfsError::Output {
        command: command.to_owned(),
        line: line.to_owned(),
    }
}

#[async_trait]
impl Zfs for Programs {
    async fn get(&self, name: &str, properties: &[&str]) -> Result<Entry> {
        let (command, text) = self.run(get_args(name, properties, Depth::One)).await?;
        let first = parse_get(&command, &text)?.into_iter().next();
        first.ok_or_else(|| unexpected(&command, ""))
    }

    async fn tree(&self, dataset: &str, properties: &[&str]) -> Result<Vec<Entry>> {
        let args = get_args(dataset, properties, Depth::All);
        let (command, text) = self.run_within(TREE_DEADLINE, args).await?;
        parse_get(&command, &text)
    }

    async fn stack(&self, dataset: &str, properties: &[&str]) -> Result<Vec<Entry>> {
        let args = get_args(dataset, properties, Depth::Next);
        let (command, text) = self.run(args).await?;
        let mut entries = parse_get(&command, &text)?;
        let snapshot = format!("{dataset}@");
        entries.retain(|entry| entry.name == dataset || entry.name.starts_with(&snapshot));
        Ok(entries)
    }

    async fn local(&self, names: &[String]) -> Result<Vec<Entry>> {
        let mut args = words(&["get", "-H", "-p", "-s", "local", "-o"]);
        args.extend(words(&["name,property,value,source", "all"]));
        args.extend(names.iter().cloned());
        let (command, text) = self.run(args).await?;
        parse_get(&command, &text)
    }

    async fn list(
        &self,
        names: &[String],
        kind: Kind,
        columns: &[&str],
    ) -> Result<Vec<Vec<String>>> {
        let (command, text) = self.run(list_args(names, kind, columns)).await?;
        parse_list(&command, &text, columns.len())
    }

    async fn create(&self, name: &str, properties: &Properties) -> Result<()> {
        let mut args = words(&["create"]);
        args.extend(options(properties).chain([name.to_owned()]));
        self.run(args).await.map(drop)
    }

    async fn clone_of(&self, snapshot: &str, name: &str, properties: &Properties) -> Result<()> {
        let mut args = words(&["clone"]);
        args.extend(options(properties).chain([snapshot.to_owned(), name.to_owned()]));
        self.run(args).await.map(drop)
    }

    async fn snapshot(&self, name: &str, properties: &Properties) -> Result<()> {
        let mut args = words(&["snapshot"]);
        args.extend(options(properties).chain([name.to_owned()]));
        self.run(args).await.map(drop)
    }

    async fn rollback(&self, snapshot: &str) -> Result<()> {
        self.run(words(&["rollback", snapshot])).await.map(drop)
    }

    async fn destroy(&self, name: &str) -> Result<()> {
        self.run(words(&["destroy", name])).await.map(drop)
    }

    async fn destroy_all(&self, dataset: &str, snapshots: &[String]) -> Result<()> {
        let names = snapshots.iter().filter_map(|name| name.split_once('@'));
        let short: Vec<&str> = names.map(|(_, short)| short).collect();
        let which = format!("{dataset}@{}", short.join(","));
        self.run(words(&["destroy", &which])).await.map(drop)
    }

    async fn destroy_later(&self, snapshot: &str) -> Result<()> {
        self.run(words(&["destroy", "-d", snapshot]))
            .await
            .map(drop)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<()> {
        // -u: leave it mounted where it is.
        self.run(words(&["rename", "-u", from, to])).await.map(drop)
    }

    async fn promote(&self, name: &str) -> Result<()> {
        self.run(words(&["promote", name])).await.map(drop)
    }

    async fn set(&self, name: &str, properties: &Properties) -> Result<()> {
        let mut args = words(&["set"]);
        args.extend(
            properties
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        args.push(name.to_owned());
        self.run(args).await.map(drop)
    }

    async fn inherit(&self, name: &str, property: &str) -> Result<()> {
        self.run(words(&["inherit", property, name]))
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_entries() {
        let text = "t/a\torigin\t-\t-\nt/a\tnexcage:role\timage\tlocal\n\
                    t/a@s\torigin\t-\t-\nt/a@s\tnexcage:role\timage\tinherited from t/a\n";
        let entries = parse_get("zfs get", text).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].local("nexcage:role"), Some("image"));
        assert_eq!(entries[1].local("nexcage:role"), None);
        assert_eq!(entries[1].value("nexcage:role"), Some("image"));
        assert!(parse_get("zfs get", "one\ttwo\n").is_err());
        assert!(parse_list("zfs list", "a\tb\tc\n", 2).is_err());
        assert_eq!(parse_list("zfs list", "", 2).unwrap().len(), 0);
    }

    #[test]
    fn arguments() {
        assert_eq!(
            get_args("t/n", &["origin", "nexcage:role"], Depth::All).join(" "),
            "get -H -p -r -t filesystem,snapshot -o name,property,value,source origin,nexcage:role t/n"
        );
        assert_eq!(
            get_args("t/n", &["origin"], Depth::Next).join(" "),
            "get -H -p -d 1 -t filesystem,snapshot -o name,property,value,source origin t/n"
        );
        assert_eq!(
            list_args(
                &["t/n".into(), "t/m".into()],
                Kind::Snapshots,
                &["name", "used"]
            )
            .join(" "),
            "list -H -p -d 1 -t snapshot -o name,used t/n t/m"
        );
    }
}
