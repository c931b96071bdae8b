//! Parameters of requests, and what is said of wrong ones.

use std::collections::BTreeMap;

use crate::conf::{Kind, check_in_request, value_of};
use crate::died::{Died, Outcome};

/// Parameters by name.
pub type Parameters = BTreeMap<String, String>;

/// A parameter that an endpoint takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// Whether it may be left out.
    pub optional: bool,
}

impl Parameter {
    /// One that must be there, as those in the path are.
    pub(super) const fn required(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            optional: false,
        }
    }

    /// One that may be left out.
    pub(super) const fn optional(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            optional: true,
        }
    }
}

/// Which parameters an endpoint takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema {
    /// By name.
    pub parameters: &'static [Parameter],
    /// Whether every key of a container's configuration is one too.
    pub configuration: bool,
}

const UNKNOWN: &str =
    "property is not defined in schema and the schema does not allow additional properties";

impl Schema {
    /// Refuses what the endpoint does not take.
    ///
    /// # Errors
    ///
    /// What is wrong with which parameter.
    pub(super) fn check(&self, given: &Parameters) -> Outcome {
        let mut errors = BTreeMap::new();
        for parameter in self.parameters {
            let problem = match given.get(parameter.name) {
                Some(value) => parameter.kind.check(value).err(),
                None if parameter.optional => None,
                None => Some("property is missing and it is not optional".to_owned()),
            };
            if let Some(problem) = problem {
                errors.insert(parameter.name.to_owned(), problem);
            }
        }
        for (name, value) in given {
            if self.parameters.iter().any(|known| known.name == name) {
                continue;
            }
            let problem = match self.configuration && value_of(name).is_some() {
                true => check_in_request(name, value),
                false => Err(UNKNOWN.to_owned()),
            };
            if let Err(problem) = problem {
                errors.insert(name.clone(), problem);
            }
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Died::parameters(errors)),
        }
    }
}

/// A VMID.
pub(super) const VMID: Kind = Kind::Int(100, 999_999_999);

/// The name of a node.
pub(super) const NODE: Kind = Kind::Like(
    crate::pmxcfs::is_node_name,
    "invalid format - value does not look like a valid node name\n",
);

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema {
        parameters: &[
            Parameter::required("vmid", VMID),
            Parameter::optional("force", Kind::Bool),
        ],
        configuration: true,
    };

    fn errors(given: &[(&str, &str)]) -> Vec<String> {
        let given = given
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let died = SCHEMA.check(&given.collect());
        let errors = died.err().map(|died| died.errors).unwrap_or_default();
        errors
            .into_iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect()
    }

    #[test]
    fn wrong_parameters_are_named() {
        assert_eq!(
            errors(&[("vmid", "100"), ("force", "1"), ("memory", "64")]),
            [""; 0]
        );
        let wrong = errors(&[("force", "yes"), ("memory", "5"), ("nexcage", "x")]);
        insta::assert_snapshot!(wrong.join("\n"), @r"
        force: type check ('boolean') failed - got 'yes'
        memory: value must have a minimum value of 16
        nexcage: property is not defined in schema and the schema does not allow additional properties
        vmid: property is missing and it is not optional
        ");
        let wrong = errors(&[("vmid", "99")]);
        assert_eq!(wrong, ["vmid: value must have a minimum value of 100"]);
    }
}
