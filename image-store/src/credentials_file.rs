//! Credentials of the node: the `auths` of a Docker `config.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;

use camino::Utf8Path;
use serde::Deserialize;

use crate::credentials::{AuthFields, Credentials, CredentialsError};

/// Largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Credentials by registry, or by registry and the beginning of a repository.
#[derive(Clone, Default)]
pub(crate) struct NodeCredentials {
    entries: BTreeMap<String, Credentials>,
}

/// Why a credentials file cannot be used. Never shows what is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsFileError {
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    #[error("it is larger than {MAX_FILE} bytes")]
    TooLarge,
    #[error("line {line}, column {column} is not what a Docker config.json has there")]
    Json { line: usize, column: usize },
    #[error(
        "it names credential helpers ({0}), which nexcage does not run; put the credentials into auths"
    )]
    Helpers(&'static str),
    #[error("the entry {key:?} of auths cannot be used")]
    Entry {
        key: String,
        #[source]
        source: CredentialsError,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl NodeCredentials {
    /// Reads a file. Blocking.
    pub(crate) fn read(path: &Utf8Path) -> Result<Self, CredentialsFileError> {
        let file = std::fs::File::open(path).map_err(CredentialsFileError::Read)?;
        let mut text = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut text)
            .map_err(CredentialsFileError::Read)?;
        if text.len() as u64 > MAX_FILE {
            return Err(CredentialsFileError::TooLarge);
        }
        Self::parse(&text)
    }

    fn parse(text: &[u8]) -> Result<Self, CredentialsFileError> {
        // serde_json's own message may quote a secret.
        let file: File = serde_json::from_slice(text).map_err(|e| CredentialsFileError::Json {
            line: e.line(),
            column: e.column(),
        })?;
        if file.creds_store.is_some() {
            return Err(CredentialsFileError::Helpers("credsStore"));
        }
        if file.cred_helpers.is_some() {
            return Err(CredentialsFileError::Helpers("credHelpers"));
        }
        let mut entries = BTreeMap::new();
        for (key, entry) in file.auths {
            let credentials = Credentials::from_fields(AuthFields {
                username: &entry.username,
                password: &entry.password,
                auth: &entry.auth,
                identity_token: &entry.identitytoken,
                registry_token: &entry.registrytoken,
            })
            .map_err(|source| CredentialsFileError::Entry {
                key: key.clone(),
                source,
            })?;
            entries.insert(normalize(&key), credentials);
        }
        Ok(Self { entries })
    }

    /// What the file has for a repository: the entry with the longest matching path.
    pub(crate) fn find(&self, registry: &str, repository: &str) -> Credentials {
        let mut key = format!("{registry}/{repository}");
        loop {
            if let Some(credentials) = self.entries.get(&key) {
                return credentials.clone();
            }
            match key.rfind('/') {
                Some(slash) => key.truncate(slash),
                None => return Credentials::Anonymous,
            }
        }
    }
}

/// Keys are hosts, hosts with a path, or what `docker login` writes for Docker Hub:
/// `https://index.docker.io/v1/`.
fn normalize(key: &str) -> String {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
        .trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    let (host, path) = key.split_at(key.find('/').unwrap_or(key.len()));
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    format!("{host}{path}")
}

impl fmt::Debug for NodeCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(credentials: Credentials) -> String {
        match credentials {
            Credentials::Basic { username, .. } => username,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_longest_path_wins() {
        let node = NodeCredentials::parse(
            br#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOng="},
                "quay.io": {"username": "quay", "password": "x"},
                "quay.io/team/app": {"username": "team", "password": "x"},
                "mirror:5000": {"identitytoken": "x"}
            }, "HttpHeaders": {}}"#,
        )
        .unwrap();
        assert_eq!(user(node.find("docker.io", "library/busybox")), "hub");
        assert_eq!(user(node.find("quay.io", "other")), "quay");
        assert_eq!(user(node.find("quay.io", "team/app/x")), "team");
        assert_eq!(user(node.find("quay.io", "team/apple")), "quay");
        assert_eq!(user(node.find("mirror:5000", "a")), "IdentityToken(..)");
        assert_eq!(user(node.find("gcr.io", "a")), "Anonymous");
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_quoting_it() {
        for bad in [
            r#"{"auths": {"a": {"auth": 53}}, "x": "s3cret"}"#,
            r#"{"auths": {"a": {"auth": "s3cret%"}}}"#,
            r#"{"credsStore": "s3cret"}"#,
            r#"{"credHelpers": {"a": "s3cret"}}"#,
            "s3cret",
        ] {
            let error = NodeCredentials::parse(bad.as_bytes()).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("s3cret"),
                "{error:?}"
            );
        }
    }
}
