//! Property strings: `volume,key=value,key=value`.

use std::collections::BTreeMap;

use super::text::boolean;

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// Yes or no.
    Bool,
    /// A whole number in this range.
    Int(i64, i64),
    /// A number.
    Number,
    /// A text that this accepts; the words are those of a refusal.
    Like(fn(&str) -> bool, &'static str),
}

/// A key of a property string.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// Whether it may be left out.
    pub optional: bool,
}

impl Property {
    /// One that may be left out.
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            optional: true,
        }
    }

    /// One that must be there.
    pub const fn required(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            optional: false,
        }
    }
}

const PATTERN: &str = "value does not match the regex pattern";

impl Kind {
    /// A text that has to look like something, which a pattern says.
    pub const fn pattern(accepts: fn(&str) -> bool) -> Self {
        Self::Like(accepts, PATTERN)
    }

    /// Why a value is none of these.
    pub fn check(self, value: &str) -> Result<(), String> {
        match self {
            Self::Text => Ok(()),
            Self::Bool if matches!(value, "0" | "1") => Ok(()),
            Self::Bool => Err(format!("type check ('boolean') failed - got '{value}'")),
            Self::Int(min, max) => match value.parse::<i64>() {
                Err(_) => Err(format!("type check ('integer') failed - got '{value}'")),
                Ok(number) if number > max => {
                    Err(format!("value must have a maximum value of {max}"))
                }
                Ok(number) if number < min => {
                    Err(format!("value must have a minimum value of {min}"))
                }
                Ok(_) => Ok(()),
            },
            Self::Number => match value.parse::<f64>().is_ok_and(f64::is_finite) {
                true => Ok(()),
                false => Err(format!("type check ('number') failed - got '{value}'")),
            },
            Self::Like(accepts, words) => match accepts(value) {
                true => Ok(()),
                false => Err(words.to_owned()),
            },
        }
    }
}

/// Reads a property string. `default` is the key whose value may stand alone.
///
/// # Errors
///
/// Proxmox's words.
pub fn parse(
    text: &str,
    properties: &[Property],
    default: Option<&'static str>,
) -> Result<BTreeMap<String, String>, String> {
    let mut values = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => (key, value),
            Some(_) => return Err("missing key in comma-separated list property".into()),
            None => match default {
                Some(default) => (default, part),
                None => {
                    let words = "value without key, but schema does not define a default key";
                    return Err(words.into());
                }
            },
        };
        let found = properties.iter().find(|property| property.name == key);
        let Some(property) = found else {
            return Err(format!(
                "invalid key in comma-separated list property: {key}"
            ));
        };
        let value = match (property.kind, boolean(value)) {
            (Kind::Bool, Some(yes)) => u8::from(yes).to_string(),
            _ => value.to_owned(),
        };
        if values.insert(key.to_owned(), value).is_some() {
            return Err(format!(
                "duplicate key in comma-separated list property: {key}"
            ));
        }
    }
    for property in properties {
        let problem = match values.get(property.name) {
            Some(value) => property.kind.check(value).err(),
            None if property.optional => None,
            None => Some("property is missing and it is not optional".to_owned()),
        };
        if let Some(problem) = problem {
            return Err(format!("format error\n{}: {problem}", property.name));
        }
    }
    Ok(values)
}
