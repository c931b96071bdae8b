//! Network configurations: which file counts, and what is in it (specification, section 1).

use std::collections::BTreeMap;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::attachment::is_identifier;
use crate::error::CniError;
use crate::version::{Version, listed};

/// A file larger than this, in bytes, is no network configuration.
const FILE_MAX: u64 = 1 << 20;

/// A network: its plugins in the order in which ADD calls them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// `name`.
    pub name: String,
    /// Versions the file allows and that are spoken here, the newest first; never empty.
    pub versions: Vec<Version>,
    /// `disableCheck`.
    pub disable_check: bool,
    /// `disableGC`.
    pub disable_gc: bool,
    /// `plugins`; never empty.
    pub plugins: Vec<PluginConf>,
    /// Where it was read.
    pub file: Utf8PathBuf,
}

/// One plugin's part, as it stands in the file, with a valid `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>", into = "Map<String, Value>")]
pub(crate) struct PluginConf {
    kind: String,
    keys: Map<String, Value>,
}

impl PluginConf {
    /// `type`: the name of the plugin's file.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// All of it.
    pub(crate) fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    /// Whether `capabilities` declares this one.
    pub(crate) fn can(&self, capability: &str) -> bool {
        let declared = self
            .keys
            .get("capabilities")
            .and_then(|c| c.get(capability));
        declared.and_then(Value::as_bool).unwrap_or(false)
    }
}

impl TryFrom<Map<String, Value>> for PluginConf {
    type Error = String;

    fn try_from(keys: Map<String, Value>) -> Result<Self, String> {
        let kind = keys.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind.is_empty() || kind.contains(['/', '\0']) || matches!(kind, "." | "..") {
            return Err("type: must be the name of a plugin's file".into());
        }
        let declared = keys.get("capabilities").unwrap_or(&Value::Null);
        let flags = BTreeMap::<String, bool>::deserialize(declared);
        if !declared.is_null() && flags.is_err() {
            return Err("capabilities: must be an object whose values are true or false".into());
        }
        Ok(Self {
            kind: kind.to_owned(),
            keys,
        })
    }
}

impl From<PluginConf> for Map<String, Value> {
    fn from(conf: PluginConf) -> Self {
        conf.keys
    }
}

/// The network of the first file in `dir` by name. Blocking.
///
/// The first file alone decides: going on to the next when it is broken would give pods another network
/// than the one that somebody is about to set up.
pub(crate) fn load(dir: &Utf8Path) -> Result<Network, CniError> {
    let files = files_in(dir, &["conf", "conflist", "json"])?;
    let file = files.first().ok_or_else(|| CniError::NoNetwork {
        dir: dir.to_owned(),
    })?;
    let document = Document::read(file)?;
    let apart = document.plugins_apart(dir)?;
    let mut parts = Vec::new();
    for path in &apart {
        parts.push(Document::read(path)?.plugin(".")?);
    }
    document.network(parts)
}

/// Visible files of `dir` with one of the extensions, by name. A directory that does not exist has none.
fn files_in(dir: &Utf8Path, extensions: &[&str]) -> Result<Vec<Utf8PathBuf>, CniError> {
    let fail = |source| CniError::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match dir.read_dir_utf8() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.into_path();
        let hidden = path.file_name().is_some_and(|name| name.starts_with('.'));
        let named = path.extension().is_some_and(|e| extensions.contains(&e));
        if named && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A JSON object and the file it is from.
pub(crate) struct Document {
    file: Utf8PathBuf,
    keys: Map<String, Value>,
}

impl Document {
    fn read(file: &Utf8Path) -> Result<Self, CniError> {
        use std::io::Read;
        let fail = |source| CniError::Read {
            path: file.to_owned(),
            source,
        };
        let mut text = Vec::new();
        let open = std::fs::File::open(file).map_err(fail)?;
        open.take(FILE_MAX + 1)
            .read_to_end(&mut text)
            .map_err(fail)?;
        if text.len() as u64 > FILE_MAX {
            return Err(fail(io::ErrorKind::FileTooLarge.into()));
        }
        Self::parse(file, &text)
    }

    pub(crate) fn parse(file: &Utf8Path, text: &[u8]) -> Result<Self, CniError> {
        let keys = serde_json::from_slice(text).map_err(|e| CniError::Config {
            file: file.to_owned(),
            key: ".".into(),
            reason: format!("must be a JSON object: {e}"),
        })?;
        Ok(Self {
            file: file.to_owned(),
            keys,
        })
    }

    fn wrong(&self, key: impl Into<String>, reason: impl Into<String>) -> CniError {
        CniError::Config {
            file: self.file.clone(),
            key: key.into(),
            reason: reason.into(),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, CniError> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            // libcni takes both, and files with quoted flags are about.
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(self.wrong(key, "must be true or false")),
        }
    }

    fn name(&self) -> Result<&str, CniError> {
        let name = self.keys.get("name").and_then(Value::as_str);
        name.filter(|name| is_identifier(name)).ok_or_else(|| {
            self.wrong(
                "name",
                "must be letters, digits, `_`, `.` and `-`, beginning with a letter or digit",
            )
        })
    }

    /// Files of plugins that are not in the list: `<directory>/<network>/*.conf`, unless `loadOnlyInlinedPlugins`.
    fn plugins_apart(&self, dir: &Utf8Path) -> Result<Vec<Utf8PathBuf>, CniError> {
        if !self.is_list() || self.flag("loadOnlyInlinedPlugins")? {
            return Ok(Vec::new());
        }
        files_in(&dir.join(self.name()?), &["conf"])
    }

    /// A list of plugins, as against the configuration of a single one.
    fn is_list(&self) -> bool {
        self.file.extension() == Some("conflist") || self.keys.contains_key("plugins")
    }

    /// The configuration of one plugin.
    fn plugin(self, key: &str) -> Result<PluginConf, CniError> {
        let file = self.file;
        PluginConf::try_from(self.keys).map_err(|reason| CniError::Config {
            file,
            key: key.to_owned(),
            reason,
        })
    }

    /// The network, with plugins from other files after those in the list.
    pub(crate) fn network(self, apart: Vec<PluginConf>) -> Result<Network, CniError> {
        let mut network = Network {
            name: self.name()?.to_owned(),
            versions: self.versions()?,
            disable_check: self.flag("disableCheck")?,
            disable_gc: self.flag("disableGC")?,
            plugins: Vec::new(),
            file: self.file.clone(),
        };
        if !self.is_list() {
            network.plugins = vec![self.plugin(".")?];
            return Ok(network);
        }
        let inline = match self.keys.get("plugins") {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(list)) => list.as_slice(),
            Some(_) => return Err(self.wrong("plugins", "must be a list of objects")),
        };
        for (i, conf) in inline.iter().enumerate() {
            let conf = conf.as_object().cloned();
            let conf = conf.ok_or_else(|| "must be an object".to_owned());
            let conf = conf.and_then(PluginConf::try_from);
            let conf = conf.map_err(|reason| self.wrong(format!("plugins[{i}]"), reason))?;
            network.plugins.push(conf);
        }
        network.plugins.extend(apart);
        if network.plugins.is_empty() {
            return Err(self.wrong("plugins", "must have at least one plugin"));
        }
        Ok(network)
    }

    /// What of `cniVersion` and `cniVersions` is spoken here, the newest first.
    fn versions(&self) -> Result<Vec<Version>, CniError> {
        let mut wanted = Vec::new();
        let list = match self.keys.get("cniVersions") {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(list)) => list.as_slice(),
            Some(_) => return Err(self.wrong("cniVersions", "must be a list of versions")),
        };
        for version in self.keys.get("cniVersion").into_iter().chain(list) {
            let parsed = version.as_str().and_then(|text| text.parse().ok());
            wanted.push(parsed.ok_or_else(|| {
                let reason = format!("{version} is not a version, such as \"1.0.0\"");
                self.wrong("cniVersion", reason)
            })?);
        }
        let spoken: Vec<Version> = Version::SPOKEN
            .into_iter()
            .filter(|version| wanted.contains(version))
            .collect();
        if spoken.is_empty() {
            let known = listed(&Version::SPOKEN);
            let reason = if wanted.is_empty() {
                format!("is missing; must be one of {known}")
            } else {
                format!(
                    "{} is not supported; must be one of {known}",
                    listed(&wanted)
                )
            };
            return Err(self.wrong("cniVersion", reason));
        }
        Ok(spoken)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Any JSON, with keys that mean something more often than chance would have it.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z0-9./:-]{0,12}|1\\.0\\.0|.{0,8}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            "cniVersion|cniVersions|name|plugins|type|capabilities|disableCheck|disableGC",
            "ips|interfaces|address|interface|sandbox|code|msg|details|supportedVersions",
            ".{0,6}",
        ];
        leaf.prop_recursive(5, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(key.clone(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn network(file: &str, conf: &Value) -> Result<Network, CniError> {
        let text = serde_json::to_vec(conf).unwrap();
        Document::parse(Utf8Path::new(file), &text)?.network(Vec::new())
    }

    fn refused(conf: &Value, words: &[&str]) {
        let text = network("a.conflist", conf).unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "{word} is not in: {text}");
        }
    }

    #[test]
    fn a_list_and_a_single_plugin_are_both_networks() {
        let list = json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}, {"type": "portmap"}]});
        let list = network("a.conflist", &list).unwrap();
        let kinds: Vec<&str> = list.plugins.iter().map(PluginConf::kind).collect();
        assert_eq!(kinds, ["bridge", "portmap"]);
        let one = json!({"cniVersion": "0.3.1", "name": "n", "type": "bridge", "bridge": "b"});
        let one = network("a.conf", &one).unwrap();
        assert_eq!(one.plugins[0].kind(), "bridge");
        assert_eq!(listed(&one.versions), "0.3.1");
    }

    #[test]
    fn the_versions_of_a_list_are_those_spoken_here() {
        let conf = json!({"cniVersion": "0.4.0", "cniVersions": ["9.0.0", "1.1.0", "1.0.0"], "name": "n",
            "plugins": [{"type": "bridge"}]});
        let versions = network("a.conflist", &conf).unwrap().versions;
        assert_eq!(listed(&versions), "1.1.0, 1.0.0, 0.4.0");
    }

    #[test]
    fn wrong_configurations_are_refused_by_key() {
        let good = json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]});
        let but = |key: &str, value: Value| {
            let mut conf = good.clone();
            conf[key] = value;
            conf
        };
        assert!(network("a.conflist", &good).is_ok());
        refused(
            &but("cniVersion", json!("0.2.0")),
            &["a.conflist", "cniVersion", "0.2.0", "1.1.0"],
        );
        refused(&but("cniVersion", Value::Null), &["cniVersion", "null"]);
        refused(&but("name", json!("a/b")), &["name: must be"]);
        refused(&but("plugins", json!([])), &["plugins: must have"]);
        refused(
            &but("plugins", json!([{"type": "../sh"}])),
            &["plugins[0]", "type: must be"],
        );
        refused(
            &but("plugins", json!([{"type": "a", "capabilities": {"x": 1}}])),
            &["capabilities"],
        );
        refused(
            &but("disableCheck", json!(1)),
            &["disableCheck: must be true or false"],
        );
        refused(
            &json!({"name": "n", "plugins": [{"type": "a"}]}),
            &["cniVersion: is missing"],
        );
    }

    #[test]
    fn the_first_file_by_name_is_the_network() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        assert!(matches!(load(path), Err(CniError::NoNetwork { .. })));
        assert!(matches!(
            load(&path.join("none")),
            Err(CniError::NoNetwork { .. })
        ));
        let write = |file: &str, name: &str| {
            let conf = json!({"cniVersion": "1.0.0", "name": name, "plugins": [{"type": "a"}]});
            std::fs::write(path.join(file), conf.to_string()).unwrap();
        };
        write("20-b.conflist", "b");
        write("README", "no");
        write(".05-half-written.conf", "no");
        assert_eq!(load(path).unwrap().name, "b");
        write("10-a.json", "a");
        assert_eq!(load(path).unwrap().name, "a");
        std::fs::create_dir(path.join("a")).unwrap();
        std::fs::write(path.join("a/10-more.conf"), r#"{"type": "more"}"#).unwrap();
        let kinds: Vec<String> = load(path)
            .unwrap()
            .plugins
            .iter()
            .map(|p| p.kind().into())
            .collect();
        assert_eq!(kinds, ["a", "more"]);
        std::fs::write(path.join("00-broken.conf"), "{").unwrap();
        assert!(
            load(path)
                .unwrap_err()
                .to_string()
                .contains("00-broken.conf")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::parse(Utf8Path::new("a.conf"), &text).and_then(|d| d.network(Vec::new()));
        }

        #[test]
        fn no_json_panics(conf in any_json()) {
            let _ = network("a.conflist", &conf);
            let _ = network("a.conf", &conf);
        }

        #[test]
        fn what_is_accepted_can_run(conf in any_json()) {
            if let Ok(network) = network("a.conflist", &conf) {
                prop_assert!(!network.plugins.is_empty() && !network.versions.is_empty());
                prop_assert!(is_identifier(&network.name));
            }
        }
    }
}
