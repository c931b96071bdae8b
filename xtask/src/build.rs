//! Development builds of the workspace's programs and tests, for other chores.
//!
//! Always with `--workspace`: cargo then gives every dependency the features that anybody here wants, and compiles it once.
//! Asked for one package it gives those that this one wants, and compiles a part of the tree again for every other set.

use std::collections::HashSet;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use crate::run::{cargo, output};

/// A program's name, with where it comes from.
#[derive(Clone, Copy)]
pub(crate) enum Program<'a> {
    /// A package's own.
    Bin(&'a str),
    /// An example.
    Example(&'a str),
}

impl Program<'_> {
    fn arguments(self) -> [String; 2] {
        match self {
            Self::Bin(name) => ["--bin".to_owned(), name.to_owned()],
            Self::Example(name) => ["--example".to_owned(), name.to_owned()],
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Bin(name) | Self::Example(name) => name,
        }
    }
}

/// A program that runs tests.
#[derive(Debug)]
pub(crate) struct Test {
    /// The test target's name.
    pub(crate) name: String,
    /// The program.
    pub(crate) program: Utf8PathBuf,
}

/// Builds a program with features such as `package/feature`, and says where it is.
pub(crate) fn program(wanted: Program<'_>, features: &[&str]) -> anyhow::Result<Utf8PathBuf> {
    let built = build("build", features, wanted.arguments())?;
    let name = wanted.name();
    let path = built
        .iter()
        .find(|message| message["target"]["name"] == name);
    path.and_then(executable)
        .with_context(|| format!("cargo did not say where it put {name}"))
}

/// Builds the test targets of a package that need its feature, or of those only the ones with these names, and says where
/// they are.
pub(crate) fn tests(package: &str, feature: &str, only: &[String]) -> anyhow::Result<Vec<Test>> {
    let (id, all) = targets(&metadata()?, package, feature)?;
    let unknown = only.iter().find(|name| !all.contains(name));
    ensure!(
        unknown.is_none(),
        "{package} has no tests {:?}; there are {}",
        unknown.map_or("", String::as_str),
        all.join(", ")
    );
    let names = if only.is_empty() { &all } else { only };
    let feature = format!("{package}/{feature}");
    let arguments = names.iter().flat_map(|name| ["--test", name]);
    let built = build(
        "test",
        &[&feature],
        ["--no-run"].into_iter().chain(arguments),
    )?;
    names
        .iter()
        .map(|name| {
            // Another package may have one of the same name.
            let mine = |message: &&Value| {
                message["package_id"] == id.as_str() && message["target"]["name"] == name.as_str()
            };
            let program = built.iter().find(mine).and_then(executable);
            Ok(Test {
                name: name.clone(),
                program: program
                    .with_context(|| format!("cargo did not say where it put the tests {name}"))?,
            })
        })
        .collect()
}

/// Runs cargo and gives what it says about each thing that it has built.
fn build<S: AsRef<std::ffi::OsStr>>(
    verb: &str,
    features: &[&str],
    arguments: impl IntoIterator<Item = S>,
) -> anyhow::Result<Vec<Value>> {
    let mut build = cargo();
    build.args([verb, "--workspace"]).args(arguments);
    if !features.is_empty() {
        build.args(["--features", &features.join(",")]);
    }
    build.args(["--message-format", "json-render-diagnostics"]);
    let messages = output(build.stderr(Stdio::inherit()))?;
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages
        .filter(|message| message["executable"].is_string())
        .collect())
}

fn executable(message: &Value) -> Option<Utf8PathBuf> {
    message["executable"].as_str().map(Utf8PathBuf::from)
}

fn metadata() -> anyhow::Result<Value> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    serde_json::from_str(&metadata).context("cargo metadata")
}

/// A package's id, and its test targets that need the feature.
fn targets(
    metadata: &Value,
    package: &str,
    feature: &str,
) -> anyhow::Result<(String, Vec<String>)> {
    let packages = metadata["packages"].as_array();
    let found = packages
        .into_iter()
        .flatten()
        .find(|found| found["name"] == package)
        .with_context(|| format!("there is no package {package}"))?;
    let needs = |target: &&Value| {
        let required = target["required-features"].as_array();
        target["kind"][0] == "test" && required.is_some_and(|all| all.iter().any(|f| f == feature))
    };
    let targets = found["targets"].as_array().into_iter().flatten();
    let names = targets
        .filter(needs)
        .filter_map(|target| target["name"].as_str().map(str::to_owned));
    let id = found["id"].as_str().context("a package without an id")?;
    Ok((id.to_owned(), names.collect()))
}

/// The names of the workspace's packages.
pub(crate) fn packages() -> anyhow::Result<HashSet<String>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages
        .filter_map(|package| package["name"].as_str().map(str::to_owned))
        .collect())
}

/// The directory in which cargo would run a package's tests.
pub(crate) fn directory(package: &str) -> anyhow::Result<Utf8PathBuf> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array();
    packages
        .into_iter()
        .flatten()
        .find(|found| found["name"] == package)
        .and_then(|found| Utf8Path::new(found["manifest_path"].as_str()?).parent())
        .map(Utf8Path::to_path_buf)
        .with_context(|| format!("there is no package {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_those_that_need_the_feature() {
        let (_, system) = targets(&metadata().unwrap(), "nexcage-tests", "system").unwrap();
        assert!(system.contains(&"lifecycle".to_owned()), "{system:?}");
        assert!(!system.contains(&"node".to_owned()), "{system:?}");
        let (_, node) = targets(&metadata().unwrap(), "nexcage-tests", "node").unwrap();
        assert_eq!(node, ["node"]);
    }

    #[test]
    fn tests_that_do_not_exist_are_refused_before_anything_is_built() {
        let refused = tests("nexcage-tests", "system", &["nonsense".to_owned()]).unwrap_err();
        assert!(refused.to_string().contains("lifecycle"), "{refused}");
        assert!(tests("nonsense", "system", &[]).is_err());
    }
}
