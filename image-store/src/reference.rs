//! Names of images as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The registry of a name that does not name one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Another spelling of it that old configurations carry.
const DEFAULT_REGISTRY_ALIAS: &str = "index.docker.io";
/// The namespace of a Docker Hub repository of one component.
const DEFAULT_NAMESPACE: &str = "library";
/// The tag of a name with neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Longest registry and repository together, in bytes (distribution reference grammar).
const MAX_NAME: usize = 255;
/// Longest tag, in bytes (OCI distribution spec, "Pulling manifests").
const MAX_TAG: usize = 128;

/// A reference to an image, in full: registry, repository, and a tag or a digest or both.
///
/// Parsing follows the grammar of the distribution project and its normalization for short names:
/// `busybox` is `docker.io/library/busybox:latest`. When both tag and digest are given, the
/// digest alone decides; the tag is kept for display and is never believed.
///
/// # Examples
///
/// ```
/// use nexcage_image_store::Reference;
/// let reference: Reference = "busybox:1.36".parse().unwrap();
/// assert_eq!(reference.to_string(), "docker.io/library/busybox:1.36");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference to an image.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not an image reference: {problem}")]
pub struct ReferenceError {
    text: String,
    problem: ReferenceProblem,
}

impl ReferenceError {
    /// What is wrong with it.
    pub fn problem(&self) -> &ReferenceProblem {
        &self.problem
    }
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceProblem {
    /// Nothing before the tag or digest.
    #[error("the repository is missing")]
    NoRepository,
    /// It starts with `https://` or the like.
    #[error("it must not start with a scheme such as https://")]
    Scheme,
    /// Registry and repository together are too long.
    #[error("registry and repository together are longer than {MAX_NAME} bytes")]
    TooLong,
    /// An upper-case letter in the repository.
    #[error("the repository must be lower case")]
    UpperCase,
    /// A path component that the grammar does not know.
    #[error(
        "the repository component {0:?} must be lower-case letters and digits, separated by one of '.', '_', '__' or any number of '-'"
    )]
    Component(String),
    /// A registry that is not a host name with an optional port.
    #[error("the registry {0:?} is not a host name or address with an optional port")]
    Registry(String),
    /// A tag with other characters, or too long.
    #[error(
        "the tag {0:?} must be 1 to {MAX_TAG} letters, digits, '_', '.' and '-', not starting with '.' or '-'"
    )]
    Tag(String),
    /// A digest that is not SHA-256.
    #[error("the digest {0:?} must be sha256: and 64 lower-case hex digits")]
    Digest(String),
    /// A name that looks like an image id.
    #[error("a repository of 64 hex digits cannot be told from an image id")]
    HexName,
}

impl Reference {
    /// Host of the registry, with its port if the name has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository in its registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given or implied.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What to ask the registry for: the digest if there is one, else the tag.
    pub fn manifest_name(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            // A parsed reference always has one of the two.
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// The name under which a pull of this reference records its tag: `registry/repository:tag`.
    /// None when a digest was given, because nobody has checked then what the tag stands for.
    pub fn repo_tag(&self) -> Option<String> {
        match (&self.digest, &self.tag) {
            (None, Some(tag)) => Some(format!("{}:{tag}", self.name())),
            _ => None,
        }
    }

    /// `registry/repository@digest` for a manifest of this repository.
    pub fn repo_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|problem| ReferenceError {
            text: text.chars().take(300).collect(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Reference, ReferenceProblem> {
    if text.contains("://") {
        return Err(ReferenceProblem::Scheme);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest
                .parse::<Digest>()
                .map_err(|_| ReferenceProblem::Digest(clip(digest)))?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    // A colon before the last slash belongs to the registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(check_tag(tag)?)),
        _ => (rest, None),
    };
    if name.is_empty() {
        return Err(ReferenceProblem::NoRepository);
    }
    if is_hex_id(name) {
        return Err(ReferenceProblem::HexName);
    }
    let (registry, repository) = split_registry(name);
    check_registry(&registry)?;
    check_repository(&repository)?;
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(ReferenceProblem::TooLong);
    }
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        (tag, _) => tag,
    };
    Ok(Reference {
        registry,
        repository,
        tag,
        digest,
    })
}

/// Splits off the registry as Docker does: the first component is one if it could not be a
/// namespace of Docker Hub.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':', '['])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    if registry == DEFAULT_REGISTRY_ALIAS || registry == DEFAULT_REGISTRY {
        let repository = if repository.is_empty() || repository.contains('/') {
            repository.to_owned()
        } else {
            format!("{DEFAULT_NAMESPACE}/{repository}")
        };
        return (DEFAULT_REGISTRY.to_owned(), repository);
    }
    (registry.to_owned(), repository.to_owned())
}

fn check_registry(registry: &str) -> Result<(), ReferenceProblem> {
    let good = match registry.strip_prefix('[') {
        Some(rest) => rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        }),
        None => {
            let (host, port) = match registry.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (registry, None),
            };
            port.is_none_or(is_port) && host.split('.').all(is_host_label)
        }
    };
    if good {
        Ok(())
    } else {
        Err(ReferenceProblem::Registry(clip(registry)))
    }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn check_repository(repository: &str) -> Result<(), ReferenceProblem> {
    if repository.is_empty() {
        return Err(ReferenceProblem::NoRepository);
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceProblem::UpperCase);
    }
    for component in repository.split('/') {
        if !is_component(component) {
            return Err(ReferenceProblem::Component(clip(component)));
        }
    }
    Ok(())
}

/// `[a-z0-9]+ ((\.|_|__|-+) [a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let word = rest.trim_start_matches(alphanumeric);
        if word.len() == rest.len() {
            return false;
        }
        if word.is_empty() {
            return true;
        }
        let after = if let Some(after) = word.strip_prefix("__") {
            after
        } else if let Some(after) = word.strip_prefix(['.', '_']) {
            after
        } else {
            word.trim_start_matches('-')
        };
        if after.len() == word.len() {
            return false;
        }
        rest = after;
    }
}

fn check_tag(tag: &str) -> Result<String, ReferenceProblem> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if good {
        Ok(tag.to_owned())
    } else {
        Err(ReferenceProblem::Tag(clip(tag)))
    }
}

/// Whether the text is an image id without its algorithm.
pub(crate) fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether the text is lower-case hex digits only.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn normalization() {
        let digest = format!("sha256:{}", "9".repeat(64));
        let inputs = [
            "busybox".to_owned(),
            "busybox:1.36".into(),
            "library/busybox".into(),
            "user/app:v1".into(),
            "docker.io/busybox".into(),
            "index.docker.io/busybox".into(),
            "docker.io/user/app".into(),
            "localhost/app".into(),
            "localhost:5000/app:x".into(),
            "127.0.0.1:5000/a/b/c".into(),
            "[::1]:5000/app".into(),
            "registry.k8s.io/pause:3.9".into(),
            "Registry/app".into(),
            "quay.io/a__b/c--d.e_f".into(),
            format!("busybox@{digest}"),
            format!("gcr.io/x/y:tag@{digest}"),
            "".into(),
            ":tag".into(),
            "https://quay.io/app".into(),
            "quay.io/App".into(),
            "quay.io/".into(),
            "quay.io//a".into(),
            "a/../b".into(),
            "a/-b".into(),
            "a..b".into(),
            "a___b".into(),
            "busybox:".into(),
            "busybox:.x".into(),
            format!("busybox:{}", "t".repeat(129)),
            "busybox@sha256:12".into(),
            "busybox@sha512:12".into(),
            "quay.io:99999/app".into(),
            "-quay.io/app".into(),
            "a b".into(),
            "5".repeat(64),
            format!("quay.io/{}", "x".repeat(250)),
        ];
        let mut table = String::new();
        for input in inputs {
            let shown: String = input.chars().take(60).collect();
            let _ = match input.parse::<Reference>() {
                Ok(reference) => writeln!(
                    table,
                    "{shown:?}\n  = {reference}\n  tag {:?}, ask for {}",
                    reference.repo_tag(),
                    reference.manifest_name()
                ),
                Err(error) => writeln!(table, "{shown:?}\n  ! {}", error.problem()),
            };
        }
        insta::assert_snapshot!(table);
    }

    proptest! {
        #[test]
        fn what_was_parsed_parses_to_itself(text in "[a-zA-Z0-9._/:@\\[\\]-]{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().unwrap();
                prop_assert_eq!(again, reference);
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            let _ = text.parse::<Reference>();
        }

        #[test]
        fn a_good_reference_is_taken(
            host in "[a-z]{1,8}\\.[a-z]{2,4}(:[1-9][0-9]{1,3})?",
            path in "[a-z0-9]{1,9}(/[a-z0-9]{1,9}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            prop_assume!(host != DEFAULT_REGISTRY);
            let text = format!("{host}/{path}:{tag}");
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.to_string(), text);
        }
    }
}
