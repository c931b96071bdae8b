//! The configuration's registries in the image store's terms.
//!
//! An entry says how its host is talked to (scheme, certificates, headers) and which mirrors stand before
//! it. A mirror is talked to as the entry of its own host says. `"*"` is the entry of every host that has none.

use nexcage_config::{Images, Registry};
use nexcage_image_store::{
    Endpoint, EndpointError, Manner, OtherRegistries, Registries, RegistryConfig,
};

/// All registries that the configuration names.
pub(super) fn registries(images: &Images) -> Result<Registries, EndpointError> {
    let mut registries = Registries::default();
    for (host, registry) in &images.registries {
        let mirrors = registry.mirrors.iter().map(|url| {
            let mut mirror = Endpoint::parse(url.as_str())?;
            if let Some(own) = images.registry(&mirror.authority()) {
                mirror.manner = manner(own);
            }
            Ok(mirror)
        });
        let mirrors = mirrors.collect::<Result<Vec<_>, EndpointError>>()?;
        if host == "*" {
            registries.others = Some(OtherRegistries {
                mirrors,
                plain_http: registry.plain_http,
                manner: manner(registry),
            });
        } else {
            let mut server = Endpoint::of_registry(host, registry.plain_http)?;
            server.manner = manner(registry);
            registries.hosts.insert(
                host.clone(),
                RegistryConfig {
                    mirrors,
                    server: Some(server),
                },
            );
        }
    }
    Ok(registries)
}

fn manner(registry: &Registry) -> Manner {
    Manner {
        ca_files: registry
            .ca_file
            .iter()
            .map(|file| file.to_path_buf())
            .collect(),
        skip_verify: registry.skip_verify,
        headers: registry.headers.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Registries {
        let config = nexcage_config::Config::parse(json, "test").unwrap();
        registries(&config.images).unwrap()
    }

    #[test]
    fn a_mirror_is_talked_to_as_its_own_entry_says() {
        let got = read(
            r#"{"images": {"registries": {
                "docker.io": {"mirrors": ["https://mirror.example/hub"]},
                "mirror.example": {"ca_file": "/ca.pem", "headers": {"X-A": "b"}}}}}"#,
        );
        let hub = &got.hosts["docker.io"];
        assert_eq!(hub.mirrors[0].manner.ca_files, ["/ca.pem"]);
        assert_eq!(hub.mirrors[0].manner.headers["X-A"], "b");
        let server = hub.server.as_ref().unwrap();
        assert_eq!(server.authority(), "registry-1.docker.io");
        assert!(server.manner.ca_files.is_empty());
    }

    #[test]
    fn the_star_stands_for_every_other_host() {
        let got = read(r#"{"images": {"registries": {"*": {"plain_http": true}}}}"#);
        assert!(got.hosts.is_empty());
        assert!(got.others.unwrap().plain_http);
    }
}
