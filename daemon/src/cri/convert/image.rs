//! Images and credentials.

use std::collections::HashMap;

use nexcage_cri_api::v1;
use nexcage_image_store::{AuthFields, Credentials, ImageRecord};

use crate::cri::invalid::InvalidField;

/// The caller's credentials, for this one pull.
///
/// # Errors
///
/// [`InvalidField`] if `auth.auth` is not base64 of `user:password`.
pub(crate) fn credentials(auth: v1::AuthConfig) -> Result<Credentials, InvalidField> {
    // The registry is the image's; a server address that differs is for other images of the same keyring.
    let v1::AuthConfig {
        username,
        password,
        auth,
        server_address: _,
        identity_token,
        registry_token,
    } = auth;
    let fields = AuthFields {
        username: &username,
        password: &password,
        auth: &auth,
        identity_token: &identity_token,
        registry_token: &registry_token,
    };
    Credentials::from_fields(fields).map_err(|e| InvalidField::invalid("auth.auth", e.to_string()))
}

/// An image as CRI shows it.
pub(crate) fn image_view(record: &ImageRecord) -> v1::Image {
    let user = record
        .config
        .config()
        .as_ref()
        .and_then(|c| c.user().clone())
        .unwrap_or_default();
    let user = user.split(':').next().unwrap_or_default();
    // CRI wants a number in one field and a name in the other.
    let (uid, username) = match user.parse::<i64>() {
        Ok(uid) => (Some(v1::Int64Value { value: uid }), String::new()),
        Err(_) => (None, user.to_owned()),
    };
    v1::Image {
        id: record.id.to_string(),
        repo_tags: record.repo_tags.clone(),
        repo_digests: record.repo_digests.clone(),
        size: record.size,
        uid,
        username,
        spec: Some(v1::ImageSpec {
            image: record.id.to_string(),
            ..Default::default()
        }),
        pinned: record.pinned,
    }
}

/// What `crictl inspecti` shows in addition.
pub(crate) fn image_info(record: &ImageRecord) -> HashMap<String, String> {
    let chain = record.chain.last().map(ToString::to_string);
    let info = serde_json::json!({ "chainID": chain, "imageSpec": record.config });
    HashMap::from([("info".to_owned(), info.to_string())])
}
