//! Debug output that keeps secrets out of logs. The contract marks the fields of
//! `AuthConfig` with `debug_redact`; environment variables hold secrets as well.

use std::fmt;

use crate::v1::{AuthConfig, KeyValue};

/// Says whether there is a value, never which.
fn redacted(is_empty: bool) -> &'static str {
    if is_empty { "" } else { "<redacted>" }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured, so that a field added to the contract is an error here
        // until it is decided whether it may be shown.
        let Self {
            username,
            password,
            auth,
            server_address,
            identity_token,
            registry_token,
        } = self;
        f.debug_struct("AuthConfig")
            .field("username", username)
            .field("password", &redacted(password.is_empty()))
            .field("auth", &redacted(auth.is_empty()))
            .field("server_address", server_address)
            .field("identity_token", &redacted(identity_token.is_empty()))
            .field("registry_token", &redacted(registry_token.is_empty()))
            .finish()
    }
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value } = self;
        f.debug_struct("KeyValue")
            .field("key", key)
            .field("value", &redacted(value.is_empty()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{ContainerConfig, PullImageRequest};

    #[test]
    fn credentials_are_not_printed_even_when_nested() {
        let auth = AuthConfig {
            username: "user-is-shown".to_owned(),
            password: "hunter2-password".to_owned(),
            auth: "hunter2-auth".to_owned(),
            server_address: "registry-is-shown".to_owned(),
            identity_token: "hunter2-identity".to_owned(),
            registry_token: "hunter2-registry".to_owned(),
        };
        let text = format!(
            "{:#?}",
            PullImageRequest {
                auth: Some(auth),
                ..Default::default()
            }
        );
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            text.contains("user-is-shown") && text.contains("registry-is-shown"),
            "{text}"
        );
    }

    #[test]
    fn environment_values_are_not_printed() {
        let env = KeyValue {
            key: "TOKEN".to_owned(),
            value: b"hunter2".to_vec(),
        };
        let text = format!(
            "{:?}",
            ContainerConfig {
                envs: vec![env],
                ..Default::default()
            }
        );
        assert!(
            text.contains("TOKEN") && text.contains("<redacted>"),
            "{text}"
        );
        // Vec<u8> prints as numbers: 104, 117 are "hu".
        assert!(
            !text.contains("hunter2") && !text.contains("104, 117"),
            "{text}"
        );
    }
}
