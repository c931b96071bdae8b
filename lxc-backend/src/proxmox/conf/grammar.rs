//! The grammar, as the package pve-container reads it (`parse_pct_config`).
//!
//! A file has a main section and perhaps others, each begun by `[name]`: what is pending until the next start, and snapshots. In each,
//! lines that begin with `#` are the description, encoded as URLs are; `key: value` are Proxmox's; and `lxc.key: value`, or with `=`, go
//! to LXC as they are, in their order. Anything else Proxmox drops when it next writes the file.

use std::borrow::Cow;

/// What one line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Nothing, or what Proxmox does not understand.
    Nothing,
    /// The beginning of a section.
    Section(&'a str),
    /// A line of the description, decoded.
    Description(String),
    /// A key of Proxmox's.
    Key(&'a str, &'a str),
    /// A key of LXC's.
    Lxc(&'a str, &'a str),
}

/// One section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    /// Its name; empty for the main one.
    pub(crate) name: String,
    /// Lines of the description.
    pub(crate) description: Vec<String>,
    /// Proxmox's keys, in their order. Where one is there twice, the last one counts.
    keys: Vec<(String, String)>,
    /// LXC's, in their order; they may be there more than once.
    lxc: Vec<(String, String)>,
}

impl Section {
    /// The value of one of Proxmox's keys.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.keys.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// All values of one of LXC's keys.
    pub(crate) fn lxc(&self, key: &str) -> impl Iterator<Item = &str> {
        let found = self.lxc.iter().filter(move |(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Names of Proxmox's keys and of LXC's; those that are there twice are there twice.
    pub(crate) fn names(&self) -> (impl Iterator<Item = &str>, impl Iterator<Item = &str>) {
        (
            self.keys.iter().map(|(name, _)| name.as_str()),
            self.lxc.iter().map(|(name, _)| name.as_str()),
        )
    }
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conf {
    /// What counts.
    pub(crate) main: Section,
    /// What is pending, and snapshots.
    pub(crate) others: Vec<Section>,
}

impl Conf {
    /// Reads any text: what is not understood is left out, as Proxmox does.
    pub(crate) fn parse(text: &str) -> Self {
        let mut sections = vec![Section::default()];
        for text in text.split('\n') {
            let line = line(text);
            if let Line::Section(name) = line {
                sections.push(Section {
                    name: name.to_owned(),
                    ..Section::default()
                });
                continue;
            }
            let Some(section) = sections.last_mut() else {
                continue;
            };
            match line {
                Line::Nothing | Line::Section(_) => {}
                Line::Description(text) => section.description.push(text),
                Line::Key(key, value) => section.keys.push((key.to_owned(), value.to_owned())),
                Line::Lxc(key, value) => section.lxc.push((key.to_owned(), value.to_owned())),
            }
        }
        let others = sections.split_off(1);
        Self {
            main: sections.pop().unwrap_or_default(),
            others,
        }
    }
}

/// What white space is in Proxmox's regular expressions.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// One line, without its end.
pub(crate) fn line(text: &str) -> Line<'_> {
    let end = text.trim_end_matches(is_space);
    if end.is_empty() {
        return Line::Nothing;
    }
    if let Some(name) = section_name(end) {
        return Line::Section(name);
    }
    if let Some(comment) = text.strip_prefix('#') {
        return Line::Description(decode(comment));
    }
    if let Some((key, value)) = lxc_line(end) {
        return Line::Lxc(key, value);
    }
    let Some((key, value)) = end.split_once(':') else {
        return Line::Nothing;
    };
    let value = value.trim_start_matches(is_space);
    if !is_key(key) || value.is_empty() {
        return Line::Nothing;
    }
    if key == "description" {
        return Line::Description(decode(value));
    }
    Line::Key(key, value)
}

/// `[pve:pending]`, or the name of a snapshot.
fn section_name(line: &str) -> Option<&str> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    if name.eq_ignore_ascii_case("pve:pending") {
        return Some(name);
    }
    let mut bytes = name.bytes();
    let first = bytes.next()?;
    let is_name = first.is_ascii_alphabetic()
        && !name[1..].is_empty()
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    is_name.then_some(name)
}

/// `lxc.key: value` or `lxc.key = value`; the value may be empty.
fn lxc_line(line: &str) -> Option<(&str, &str)> {
    let is_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    let end = line.find(|c| !is_key(c))?;
    let (key, rest) = line.split_at(end);
    if key.strip_prefix("lxc.")?.is_empty() {
        return None;
    }
    let value = match rest.strip_prefix(':') {
        Some(value) => value,
        None => rest.trim_start_matches(is_space).strip_prefix('=')?,
    };
    Some((key, value.trim_start_matches(is_space)))
}

/// Small letters and underlines, then perhaps a number.
fn is_key(key: &str) -> bool {
    let name = key.trim_end_matches(|c: char| c.is_ascii_digit());
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// A line of a description as Proxmox encodes it: control characters, what is not ASCII, `:` and `%`.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b':' | b'%' => encoded.push_str(&format!("%{byte:02X}")),
            b' '..=b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The opposite of [`encode`]; what is no encoding stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
        let byte = match (bytes[at], std::str::from_utf8(digits)) {
            (b'%', Ok(digits)) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                u8::from_str_radix(digits, 16).ok()
            }
            _ => None,
        };
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    match String::from_utf8_lossy(&decoded) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_what_proxmox_takes_them_for() {
        let cases = [
            ("", Line::Nothing),
            ("  \t", Line::Nothing),
            ("memory: 512", Line::Key("memory", "512")),
            ("memory:512  ", Line::Key("memory", "512")),
            ("mp0: tank:x,mp=/a:b", Line::Key("mp0", "tank:x,mp=/a:b")),
            ("memory:", Line::Nothing),
            ("memory : 1", Line::Nothing),
            (" memory: 1", Line::Nothing),
            ("Memory: 1", Line::Nothing),
            ("net0x: 1", Line::Nothing),
            ("lxc.include: /a", Line::Lxc("lxc.include", "/a")),
            ("lxc.include = /a ", Line::Lxc("lxc.include", "/a")),
            ("lxc.include=/a", Line::Lxc("lxc.include", "/a")),
            (
                "lxc.cgroup2.cpuset.cpus:",
                Line::Lxc("lxc.cgroup2.cpuset.cpus", ""),
            ),
            ("lxc.include : /a", Line::Nothing),
            ("lxc.: /a", Line::Nothing),
            ("lxc: a", Line::Key("lxc", "a")),
            ("lxc.include", Line::Nothing),
            ("[pve:pending]", Line::Section("pve:pending")),
            ("[before-1]\r", Line::Section("before-1")),
            ("[x]", Line::Nothing),
            ("[1x]", Line::Nothing),
            ("#a%3Ab %", Line::Description("a:b %".into())),
            ("#%C3%A4%zz", Line::Description("ä%zz".into())),
            ("description: a%0Ab", Line::Description("a\nb".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(line(text), expected, "{text:?}");
        }
    }

    #[test]
    fn sections_keep_their_keys_apart() {
        let conf = Conf::parse(
            "#one\nmemory: 1\nmemory: 2\nlxc.a = x\nlxc.a: y\n\n[pve:pending]\nmemory: 3\n[snap]\n#two\nmemory: 4\n",
        );
        assert_eq!(conf.main.get("memory"), Some("2"));
        assert_eq!(conf.main.lxc("lxc.a").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(conf.main.description, ["one"]);
        let memory = conf
            .others
            .iter()
            .map(|s| (s.name.as_str(), s.get("memory")));
        let expected = [("pve:pending", Some("3")), ("snap", Some("4"))];
        assert_eq!(memory.collect::<Vec<_>>(), expected);
        assert_eq!(conf.others[1].description, ["two"]);
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "(\\PC|[\n\r\t#:=%\\[\\]]|lxc\\.){0,200}") {
            let conf = Conf::parse(&text);
            let (keys, lxc) = conf.main.names();
            for name in keys.chain(lxc) {
                prop_assert!(!name.contains(['\n', ':', ' ']));
            }
        }

        #[test]
        fn a_description_comes_back(text in "[^\n]{0,60}") {
            let encoded = encode(&text);
            prop_assert!(encoded.is_ascii() && !encoded.contains(['\n', '\r', ':']));
            let comment = format!("#{encoded}");
            prop_assert_eq!(line(&comment), Line::Description(text));
        }
    }
}
