//! Command lines as Proxmox's programs take them: `pct set 100 -memory 512 --onboot`.

use std::collections::BTreeMap;

use crate::died::{Died, Outcome};

/// Words that are no options, and options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// In order.
    pub words: Vec<String>,
    /// By name. One without a value says yes.
    pub options: BTreeMap<String, String>,
}

impl Arguments {
    /// Reads a command line. An option's value may be the next word, unless that looks like an option itself.
    pub fn parse(arguments: &[String]) -> Self {
        let mut parsed = Self::default();
        let mut rest = arguments.iter().peekable();
        while let Some(argument) = rest.next() {
            let Some(option) = argument
                .strip_prefix("--")
                .or_else(|| argument.strip_prefix('-'))
            else {
                parsed.words.push(argument.clone());
                continue;
            };
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => {
                    let value = rest.next_if(|next| !next.starts_with('-'));
                    (option, value.map_or_else(|| "1".to_owned(), Clone::clone))
                }
            };
            parsed.options.insert(name.to_owned(), value);
        }
        parsed
    }

    /// The words, if there are as many as there should be.
    ///
    /// # Errors
    ///
    /// There are more or fewer.
    pub fn words<const N: usize>(&self, names: [&str; N]) -> Outcome<[&str; N]> {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        words.try_into().map_err(|words: Vec<_>| {
            if words.len() > N {
                return Died::new("400 too many arguments");
            }
            let missing = names.iter().skip(words.len());
            let problem = "property is missing and it is not optional".to_owned();
            let errors = missing.map(|name| ((*name).to_owned(), problem.clone()));
            Died::parameters(errors.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Arguments {
        let arguments: Vec<_> = text.split(' ').map(str::to_owned).collect();
        Arguments::parse(&arguments)
    }

    #[test]
    fn options_may_stand_anywhere() {
        let parsed = parse("100 -memory 512 --onboot --tags=a;b --force");
        assert_eq!(parsed.words, ["100"]);
        let options: Vec<_> = parsed
            .options
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(options, ["force=1", "memory=512", "onboot=1", "tags=a;b"]);
        assert_eq!(parsed.words(["vmid"]).unwrap(), ["100"]);
        assert!(
            parsed
                .words(["vmid", "other"])
                .unwrap_err()
                .errors
                .contains_key("other")
        );
        assert!(parse("1 2").words(["vmid"]).is_err());
    }
}
