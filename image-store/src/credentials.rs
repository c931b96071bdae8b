//! What a caller shows a registry.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Credentials of one pull. They are shown to the registry that the reference names and to the
/// token service that this registry names, to nobody else, and live as long as the pull.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// None. A credentials file of the node may then supply some.
    #[default]
    Anonymous,
    /// User name and password, for Basic authentication or for a token service.
    Basic {
        /// The user.
        username: String,
        /// The password or access token.
        password: String,
    },
    /// An OAuth2 refresh token that a token service exchanges for an access token.
    IdentityToken(String),
    /// An access token, sent to the registry as it is.
    RegistryToken(String),
}

/// The fields of CRI's `AuthConfig` (and of an entry in a Docker `config.json`); empty means not given.
#[derive(Clone, Copy, Default)]
pub struct AuthFields<'a> {
    /// `username`.
    pub username: &'a str,
    /// `password`.
    pub password: &'a str,
    /// `auth`: base64 of `username:password`.
    pub auth: &'a str,
    /// `identity_token`.
    pub identity_token: &'a str,
    /// `registry_token`.
    pub registry_token: &'a str,
}

/// Why authentication fields make no credentials. Never shows their values.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// `auth` cannot be decoded.
    #[error("the field auth is not base64 of username:password")]
    Auth,
    /// A password with nobody to whom it belongs.
    #[error("a password is given without username")]
    NoUsername,
}

impl Credentials {
    /// Credentials from CRI's fields. If several are given, the one that needs the least further
    /// exchange wins: registry token, identity token, user name and password, `auth`.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`] if the fields contradict themselves.
    pub fn from_fields(fields: AuthFields<'_>) -> Result<Self, CredentialsError> {
        if !fields.registry_token.is_empty() {
            return Ok(Self::RegistryToken(fields.registry_token.to_owned()));
        }
        if !fields.identity_token.is_empty() {
            return Ok(Self::IdentityToken(fields.identity_token.to_owned()));
        }
        if !fields.username.is_empty() {
            return Ok(Self::Basic {
                username: fields.username.to_owned(),
                password: fields.password.to_owned(),
            });
        }
        if !fields.password.is_empty() {
            return Err(CredentialsError::NoUsername);
        }
        if !fields.auth.is_empty() {
            return Self::from_auth(fields.auth);
        }
        Ok(Self::Anonymous)
    }

    fn from_auth(auth: &str) -> Result<Self, CredentialsError> {
        let plain = STANDARD.decode(auth).map_err(|_| CredentialsError::Auth)?;
        let plain = String::from_utf8(plain).map_err(|_| CredentialsError::Auth)?;
        let (username, password) = plain.split_once(':').ok_or(CredentialsError::Auth)?;
        Ok(Self::Basic {
            username: username.to_owned(),
            // Some tools pad the password with NUL bytes.
            password: password.trim_end_matches('\0').to_owned(),
        })
    }

    /// Whether there are none.
    pub fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(..)",
            Self::IdentityToken(_) => "IdentityToken(..)",
            Self::RegistryToken(_) => "RegistryToken(..)",
        })
    }
}

impl fmt::Debug for AuthFields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthFields(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_credentials() {
        let auth = STANDARD.encode("ann:se:cret");
        let basic = Credentials::from_fields(AuthFields {
            auth: &auth,
            ..AuthFields::default()
        });
        assert_eq!(
            basic,
            Ok(Credentials::Basic {
                username: "ann".into(),
                password: "se:cret".into()
            })
        );
        assert_eq!(
            Credentials::from_fields(AuthFields::default()),
            Ok(Credentials::Anonymous)
        );
        assert_eq!(
            Credentials::from_fields(AuthFields {
                username: "ann",
                registry_token: "t",
                ..AuthFields::default()
            }),
            Ok(Credentials::RegistryToken("t".into()))
        );
    }

    #[test]
    fn contradictions_are_refused_without_showing_secrets() {
        for fields in [
            AuthFields {
                auth: "%%%secret",
                ..AuthFields::default()
            },
            AuthFields {
                password: "secret",
                ..AuthFields::default()
            },
        ] {
            let error = Credentials::from_fields(fields).unwrap_err();
            assert!(!error.to_string().contains("secret"));
        }
        let shown = format!("{:?}", Credentials::IdentityToken("secret".into()));
        assert!(!shown.contains("secret"));
    }
}
