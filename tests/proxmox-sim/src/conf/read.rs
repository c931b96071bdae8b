//! Reading a configuration.

use super::keys::{LxcKey, check_in_file, lxc_key, value_of};
use super::text::{decode, split_list};
use super::{Conf, Section};

impl Conf {
    /// Reads a file, and never refuses one: what cannot be read becomes a warning.
    pub fn read(vmid: u32, text: &str) -> (Self, Vec<String>) {
        let mut reader = Reader {
            vmid,
            conf: Self::default(),
            part: Part::Current,
            warnings: Vec::new(),
        };
        for line in text.split('\n') {
            reader.line(line);
        }
        (reader.conf, reader.warnings)
    }
}

struct Reader {
    vmid: u32,
    conf: Conf,
    part: Part,
    warnings: Vec<String>,
}

/// Which part of the file a line is in.
enum Part {
    Current,
    Pending,
    Snapshot(String),
}

impl Reader {
    fn section(&mut self) -> &mut Section {
        match &self.part {
            Part::Current => &mut self.conf.current,
            Part::Pending => &mut self.conf.pending,
            Part::Snapshot(name) => self.conf.snapshots.entry(name.clone()).or_default(),
        }
    }

    fn warn(&mut self, words: &str) {
        self.warnings.push(format!("vm {} - {words}", self.vmid));
    }

    fn line(&mut self, line: &str) {
        let trimmed = line.trim_end();
        if trimmed.trim().is_empty() {
            return;
        }
        if let Some(part) = section_header(trimmed) {
            self.part = part;
            self.section();
        } else if let Some(comment) = line.strip_prefix('#') {
            let text = format!("{}\n", decode(comment));
            self.section().description.push_str(&text);
        } else if let Some((key, value)) = lxc_line(trimmed) {
            self.lxc(line, key, value);
        } else if let Some((key, value)) = plain_line(trimmed) {
            self.plain(line, key, value);
        } else {
            self.warn(&format!("unable to parse config: {line}"));
        }
    }

    fn lxc(&mut self, line: &str, key: &str, value: &str) {
        if key == "lxc.environment.runtime" {
            return self.section().env.push(value.to_owned());
        }
        match lxc_key(key) {
            LxcKey::Forbidden(why) => return self.warn(&format!("{key}: {why}")),
            LxcKey::Unknown => return self.warn(&format!("unable to parse config: {line}")),
            LxcKey::Deprecated => {
                self.warn(&format!(
                    "{key} is deprecated, this will be a hard error in the future!"
                ));
            }
            LxcKey::Allowed => {}
        }
        let entry = (key.to_owned(), value.to_owned());
        self.section().lxc.push(entry);
    }

    fn plain(&mut self, line: &str, key: &str, value: &str) {
        match (key, &self.part) {
            ("description", _) => {
                let text = decode(value);
                return self.section().description.push_str(&text);
            }
            ("delete", Part::Pending) => {
                let keys = split_list(value).into_iter();
                return self
                    .conf
                    .delete
                    .extend(keys.map(|key| key.trim_start_matches('!').to_owned()));
            }
            ("delete", _) => {
                return self.warn("property 'delete' is only allowed in [pve:pending]");
            }
            // Only while a snapshot is made, which is not here.
            ("snapstate", _) => return,
            _ => {}
        }
        // The reference saw that these are gone after the next rewrite.
        if value_of(key).is_none() {
            return self.warn(&format!("unable to parse config: {line}"));
        }
        let kept = check_in_file(key, value).unwrap_or_else(|error| {
            self.warn(&format!("unable to parse value of '{key}' - {error}"));
            value.to_owned()
        });
        self.section().values.insert(key.to_owned(), kept);
    }
}

/// `[pve:pending]` or `[name]`.
fn section_header(line: &str) -> Option<Part> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    if name.eq_ignore_ascii_case("pve:pending") {
        return Some(Part::Pending);
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic());
    (first && name.len() > 1 && name.bytes().all(good)).then(|| Part::Snapshot(name.to_owned()))
}

/// `lxc.a.b: value` or `lxc.a.b = value`.
fn lxc_line(line: &str) -> Option<(&str, &str)> {
    let key = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b);
    let end = line.bytes().position(|b| !key(b))?;
    let (name, rest) = line.split_at(end);
    let name = name
        .strip_prefix("lxc.")
        .filter(|rest| !rest.is_empty())
        .map(|_| name)?;
    let value = rest
        .strip_prefix(':')
        .or_else(|| rest.trim_start().strip_prefix('='))?;
    Some((name, value.trim()))
}

/// `key: value`.
fn plain_line(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let letters = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let good = letters.starts_with(|c: char| c.is_ascii_lowercase())
        && letters.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let value = value.trim();
    (good && !value.is_empty()).then_some((key, value))
}
