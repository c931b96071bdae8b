//! From text to a [`Config`], or to everything that is wrong with it.

use std::collections::BTreeMap;

use camino::Utf8Path;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use crate::check;
use crate::config::Config;
use crate::error::{ConfigError, Problem};
use crate::generate::schema_value;
use crate::{path, strict};

/// Where the file is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/nexcage/config.json";

/// Problems after which reading stops; nobody mends more at one time, and each costs a pass.
const MAX_PROBLEMS: usize = 100;

impl Config {
    /// Loads the file at `path`, which somebody asked for and which must exist. Blocking.
    ///
    /// # Errors
    ///
    /// Any [`ConfigError`].
    pub fn load(path: &Utf8Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ConfigError::NotFound {
                path: path.to_owned(),
            },
            _ => ConfigError::Read {
                path: path.to_owned(),
                source,
            },
        })?;
        Self::parse(&text, path.as_str())
    }

    /// Loads [`DEFAULT_PATH`]; without such a file, everything has its default. Blocking.
    ///
    /// # Errors
    ///
    /// Any [`ConfigError`] but `NotFound`.
    pub fn load_default() -> Result<Self, ConfigError> {
        match Self::load(Utf8Path::new(DEFAULT_PATH)) {
            Err(ConfigError::NotFound { .. }) => Ok(Self::default()),
            other => other,
        }
    }

    /// Reads and checks a configuration. `origin` says in errors where the text is from.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Syntax`], [`ConfigError::Invalid`].
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let mut value = strict::parse(text).map_err(|source| ConfigError::Syntax {
            origin: origin.to_owned(),
            source,
        })?;
        let mut reader = Reader::default();
        let schema = schema_value();
        if let Some(message) = check::misshapen(&schema, &value) {
            let path = ".".into();
            reader.problems.push(Problem { path, message });
            value = Value::Object(Map::new());
        }
        check::shapes(&schema, &mut value, "", &mut reader.problems);
        let config = reader.read(value);
        let mut problems = reader.problems;
        check::check(&config, &mut problems);
        if problems.is_empty() {
            return Ok(config);
        }
        problems.sort();
        problems.dedup();
        Err(ConfigError::Invalid {
            origin: origin.to_owned(),
            problems,
        })
    }
}

/// Notes problems and takes their causes out of the value.
#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
    /// Elements already taken out of each list, by their first indices, ascending: what follows has moved.
    removed: BTreeMap<String, Vec<usize>>,
}

impl Reader {
    /// What fits of `value`.
    fn read(&mut self, mut value: Value) -> Config {
        while self.problems.len() < MAX_PROBLEMS {
            let error = match serde_path_to_error::deserialize::<_, Config>(&value) {
                Ok(config) => return config,
                Err(error) => error,
            };
            let segments: Vec<Segment> = error.path().iter().cloned().collect();
            let place = self.take_out(&mut value, &segments);
            let whole_file = place.is_none();
            self.problems.push(Problem {
                message: explain(place.as_deref().unwrap_or("."), error.inner()),
                path: place.unwrap_or_else(|| ".".into()),
            });
            if whole_file {
                break;
            }
        }
        Config::default()
    }

    /// Removes what the segments lead to, or the nearest thing around it that there is, and says where that was.
    fn take_out(&mut self, value: &mut Value, segments: &[Segment]) -> Option<String> {
        let mut at = value;
        let mut path = String::new();
        let mut steps = segments.iter().peekable();
        while let Some(step) = steps.next() {
            let last = steps.peek().is_none();
            match (at, step) {
                (Value::Object(map), Segment::Map { key }) => {
                    let inside = path::key(&path, key);
                    let deeper = !last && map.get(key).is_some_and(is_container);
                    if !deeper {
                        map.remove(key)?;
                        return Some(inside);
                    }
                    path = inside;
                    at = map.get_mut(key)?;
                }
                (Value::Array(list), Segment::Seq { index }) => {
                    let inside = path::index(&path, self.first_index(&path, *index));
                    let deeper = !last && list.get(*index).is_some_and(is_container);
                    if !deeper {
                        list.get(*index)?;
                        list.remove(*index);
                        self.note_removed(&path, *index);
                        return Some(inside);
                    }
                    path = inside;
                    at = list.get_mut(*index)?;
                }
                _ => return None,
            }
        }
        None
    }

    /// The index that the element now at `index` had in the file.
    fn first_index(&self, list: &str, index: usize) -> usize {
        let gone = self.removed.get(list).map_or(&[][..], Vec::as_slice);
        gone.iter()
            .fold(index, |at, &gone| if gone <= at { at + 1 } else { at })
    }

    fn note_removed(&mut self, list: &str, index: usize) {
        let first = self.first_index(list, index);
        let gone = self.removed.entry(list.to_owned()).or_default();
        gone.push(first);
        gone.sort_unstable();
    }
}

fn is_container(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// The parser's words, and more where it cannot know why.
fn explain(path: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    if path == "runtime" && message.contains("`proxmox`") {
        return format!(
            "{message} (a family; `proxmox` is a backend of the family `lxc`, for `default_backend`)"
        );
    }
    message
}
