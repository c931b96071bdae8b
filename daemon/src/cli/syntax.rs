//! Values of options that have a syntax of their own.

use std::fmt;
use std::str::FromStr;

use nexcage_cri_api::v1;

/// `KEY=VALUE`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct EnvVar {
    pub(super) key: String,
    pub(super) value: String,
}

impl fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=<redacted>", self.key)
    }
}

impl FromStr for EnvVar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("must be KEY=VALUE".to_owned()),
        }
    }
}

/// `USER:PASSWORD`; the password may hold colons.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:<redacted>", self.username)
    }
}

impl FromStr for Credentials {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok(Self {
                username: user.to_owned(),
                password: password.to_owned(),
            }),
            _ => Err("must be USER:PASSWORD".to_owned()),
        }
    }
}

/// `HOST:CONTAINER[:ro]`, two absolute paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) host: String,
    pub(super) container: String,
    pub(super) readonly: bool,
}

impl FromStr for Volume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (host, container, readonly) = match parts.as_slice() {
            [host, container] | [host, container, "rw"] => (*host, *container, false),
            [host, container, "ro"] => (*host, *container, true),
            [_, _, flag] => return Err(format!("{flag:?} must be ro or rw")),
            _ => return Err("must be HOST:CONTAINER or HOST:CONTAINER:ro".to_owned()),
        };
        for path in [host, container] {
            if !path.starts_with('/') {
                return Err(format!("{path:?} must be an absolute path"));
            }
        }
        Ok(Self {
            host: host.to_owned(),
            container: container.to_owned(),
            readonly,
        })
    }
}

/// `HOST:CONTAINER[/tcp|/udp|/sctp]`, two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) host: u16,
    pub(super) container: u16,
    pub(super) protocol: v1::Protocol,
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ports, protocol) = match text.split_once('/') {
            None => (text, v1::Protocol::Tcp),
            Some((ports, "tcp")) => (ports, v1::Protocol::Tcp),
            Some((ports, "udp")) => (ports, v1::Protocol::Udp),
            Some((ports, "sctp")) => (ports, v1::Protocol::Sctp),
            Some((_, other)) => return Err(format!("{other:?} must be tcp, udp or sctp")),
        };
        let (host, container) = ports
            .split_once(':')
            .ok_or("must be HOST:CONTAINER, two port numbers")?;
        Ok(Self {
            host: port(host)?,
            container: port(container)?,
            protocol,
        })
    }
}

fn port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|&n| digits && n > 0);
    number.ok_or_else(|| format!("{text:?} must be a port from 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports() {
        let parsed = |host, container, protocol| {
            Ok(Port {
                host,
                container,
                protocol,
            })
        };
        assert_eq!("8080:80".parse(), parsed(8080, 80, v1::Protocol::Tcp));
        assert_eq!("53:5353/udp".parse(), parsed(53, 5353, v1::Protocol::Udp));
        for bad in [
            "80",
            "",
            ":",
            "0:80",
            "80:65536",
            "+80:80",
            "80:80/icmp",
            "1:2:3",
            "a:b",
        ] {
            assert!(bad.parse::<Port>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn volumes() {
        let volume = |readonly| {
            Ok(Volume {
                host: "/srv".into(),
                container: "/data".into(),
                readonly,
            })
        };
        assert_eq!("/srv:/data".parse(), volume(false));
        assert_eq!("/srv:/data:rw".parse(), volume(false));
        assert_eq!("/srv:/data:ro".parse(), volume(true));
        for bad in [
            "/srv",
            "srv:/data",
            "/srv:data",
            "/srv:/data:z",
            "/a:/b:ro:x",
            "",
            ":",
        ] {
            assert!(bad.parse::<Volume>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_may_hold_the_separator() {
        let env: EnvVar = "A=b=c".parse().unwrap();
        assert_eq!((env.key.as_str(), env.value.as_str()), ("A", "b=c"));
        let creds: Credentials = "ann:se:cret".parse().unwrap();
        assert_eq!(
            (creds.username.as_str(), creds.password.as_str()),
            ("ann", "se:cret")
        );
        assert!("=x".parse::<EnvVar>().is_err() && "A".parse::<EnvVar>().is_err());
        assert!(":x".parse::<Credentials>().is_err() && "ann".parse::<Credentials>().is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let env: EnvVar = "A=secret".parse().unwrap();
        let creds: Credentials = "ann:secret".parse().unwrap();
        assert!(!format!("{env:?} {creds:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn every_pair_of_ports_is_read_back(host in 1u16.., container in 1u16..) {
            let port: Port = format!("{host}:{container}/udp").parse().unwrap();
            prop_assert_eq!((port.host, port.container), (host, container));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (text.parse::<Port>(), text.parse::<Volume>());
            let _ = (text.parse::<EnvVar>(), text.parse::<Credentials>());
        }
    }
}
