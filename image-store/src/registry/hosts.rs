//! Where a registry is found: its own server, and the mirrors to ask before it.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use url::{Host, Url};

/// Settings of registries, by the name that references use: `docker.io`, `registry.example:5000`.
/// A registry that is not listed is asked at its own name, by https; by plain http if it is
/// `localhost` or a loopback address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// The settings.
    pub hosts: BTreeMap<String, RegistryConfig>,
    /// Those of every registry that is not listed.
    pub others: Option<OtherRegistries>,
}

/// How registries that are not listed are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherRegistries {
    /// As [`RegistryConfig::mirrors`].
    pub mirrors: Vec<Endpoint>,
    /// Plain http to the registry itself.
    pub plain_http: bool,
    /// As the fields of [`Endpoint`], for the registry itself.
    pub manner: Manner,
}

/// How to talk to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manner {
    /// Files with certificates (PEM) to trust besides the system's.
    pub ca_files: Vec<Utf8PathBuf>,
    /// Accept any certificate.
    pub skip_verify: bool,
    /// Headers sent with each request, but never to where a redirect leads. Not for credentials.
    pub headers: BTreeMap<String, String>,
}

/// How one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Asked in this order before the registry itself. A mirror never gets the credentials of a
    /// pull, only those that the credentials file has for it. It is told with `?ns=` for which
    /// registry it stands in, as containerd does.
    pub mirrors: Vec<Endpoint>,
    /// The registry itself, if it is not where its name says or needs settings.
    pub server: Option<Endpoint>,
}

/// A server that speaks the OCI distribution protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    url: Url,
    /// How to talk to it.
    pub manner: Manner,
}

/// Why a text is not the address of a registry server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Not a URL at all.
    #[error("{text:?} is not a URL")]
    Syntax {
        /// What was given.
        text: String,
        /// Where parsing stopped.
        #[source]
        source: url::ParseError,
    },
    /// A URL with something that an endpoint cannot have.
    #[error("{url} must be http:// or https://, a host, and at most a port and a path")]
    Shape {
        /// The URL, without user information.
        url: String,
    },
}

impl Endpoint {
    /// An endpoint at `url`: `https://mirror.example:8443/prefix`. Plain `http://` is how an
    /// insecure server is allowed. The API is taken to be below `/v2/` of the path, unless the path
    /// ends with `/v2` itself.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] says what an endpoint looks like.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let mut parsed = Url::parse(url).map_err(|source| EndpointError::Syntax {
            text: url.chars().take(200).collect(),
            source,
        })?;
        let bad = !matches!(parsed.scheme(), "http" | "https")
            || !parsed.has_host()
            || !parsed.username().is_empty()
            || parsed.password().is_some()
            || parsed.query().is_some()
            || parsed.fragment().is_some();
        if bad {
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            return Err(EndpointError::Shape {
                url: parsed.to_string(),
            });
        }
        let path = parsed.path().trim_end_matches('/');
        let path = path.strip_suffix("/v2").unwrap_or(path);
        let api = format!("{path}/v2/");
        parsed.set_path(&api);
        Ok(Self {
            url: parsed,
            manner: Manner::default(),
        })
    }

    /// The server of the registry that references call `registry`: at its own name, by https; by plain http if asked to, or if it is
    /// this machine.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] if the name is not a host with at most a port.
    pub fn of_registry(registry: &str, plain_http: bool) -> Result<Self, EndpointError> {
        // The name under which Docker Hub serves the registry API.
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let secure = Self::parse(&format!("https://{host}"))?;
        if plain_http || secure.is_loopback() {
            return Self::parse(&format!("http://{host}"));
        }
        Ok(secure)
    }

    /// Root of the API, ending in `/v2/`.
    pub fn api(&self) -> &Url {
        &self.url
    }

    /// Host and port, for messages and for looking up credentials.
    pub fn authority(&self) -> String {
        match (self.url.host_str(), self.url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => String::new(),
        }
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

/// One place to ask, in the order of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) endpoint: Endpoint,
    /// The registry it stands in for; none for the registry itself.
    pub(crate) mirror_of: Option<String>,
}

impl Registries {
    /// Whom to ask for images of `registry`: the mirrors, then the registry itself.
    pub(crate) fn candidates(&self, registry: &str) -> Result<Vec<Candidate>, EndpointError> {
        let config = self
            .hosts
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(registry))
            .map(|(_, config)| config);
        let mirrors = match (config, &self.others) {
            (Some(config), _) => config.mirrors.as_slice(),
            (None, Some(others)) => others.mirrors.as_slice(),
            (None, None) => &[],
        };
        let mut candidates: Vec<Candidate> = mirrors
            .iter()
            .map(|mirror| Candidate {
                endpoint: mirror.clone(),
                mirror_of: Some(registry.to_owned()),
            })
            .collect();
        let server = match config.and_then(|c| c.server.clone()) {
            Some(server) => server,
            None => self.unlisted(registry, config.is_none())?,
        };
        candidates.push(Candidate {
            endpoint: server,
            mirror_of: None,
        });
        Ok(candidates)
    }

    /// The server of a registry without one of its own in the settings.
    fn unlisted(&self, registry: &str, by_others: bool) -> Result<Endpoint, EndpointError> {
        let others = self.others.as_ref().filter(|_| by_others);
        let mut server = Endpoint::of_registry(registry, others.is_some_and(|o| o.plain_http))?;
        if let Some(others) = others {
            server.manner = others.manner.clone();
        }
        Ok(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(registries: &Registries, registry: &str) -> Vec<String> {
        registries
            .candidates(registry)
            .unwrap()
            .iter()
            .map(|c| c.endpoint.api().to_string())
            .collect()
    }

    #[test]
    fn a_registry_is_secure_unless_it_is_this_machine() {
        let none = Registries::default();
        assert_eq!(
            urls(&none, "docker.io"),
            ["https://registry-1.docker.io/v2/"]
        );
        assert_eq!(urls(&none, "quay.io"), ["https://quay.io/v2/"]);
        assert_eq!(urls(&none, "localhost:5000"), ["http://localhost:5000/v2/"]);
        assert_eq!(urls(&none, "127.8.9.1:5"), ["http://127.8.9.1:5/v2/"]);
        assert_eq!(urls(&none, "128.0.0.1"), ["https://128.0.0.1/v2/"]);
        assert_eq!(
            urls(&none, "localhost.example"),
            ["https://localhost.example/v2/"]
        );
    }

    #[test]
    fn mirrors_come_first_and_the_server_may_move() {
        let mut registries = Registries::default();
        registries.hosts.insert(
            "gcr.io".into(),
            RegistryConfig {
                mirrors: vec![
                    Endpoint::parse("http://10.0.0.1:5000").unwrap(),
                    Endpoint::parse("https://harbor.example/proxy/v2/").unwrap(),
                ],
                server: None,
            },
        );
        registries.hosts.insert(
            "moved.example".into(),
            RegistryConfig {
                mirrors: Vec::new(),
                server: Some(Endpoint::parse("https://new.example/r").unwrap()),
            },
        );
        assert_eq!(
            urls(&registries, "gcr.io"),
            [
                "http://10.0.0.1:5000/v2/",
                "https://harbor.example/proxy/v2/",
                "https://gcr.io/v2/"
            ]
        );
        assert_eq!(
            urls(&registries, "Moved.example"),
            ["https://new.example/r/v2/"]
        );
    }

    #[test]
    fn an_endpoint_is_an_address_and_nothing_more() {
        for bad in [
            "quay.io",
            "ftp://quay.io",
            "https://user:secret@quay.io",
            "https://quay.io?x",
            "https://",
        ] {
            let error = Endpoint::parse(bad).unwrap_err();
            assert!(
                !matches!(&error, EndpointError::Shape { url } if url.contains("secret")),
                "{bad}"
            );
        }
    }
}
