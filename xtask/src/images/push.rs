//! Pushing an image into a local registry by its HTTP API (OCI distribution spec, "Push").
//!
//! Plain HTTP to 127.0.0.1, one request per connection: that is all it takes, so no HTTP crate.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::Image;
use super::layer::Blob;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes `image` as `name`, which is `repository:tag`.
pub(super) fn push(registry: SocketAddr, image: &Image, name: &str) -> anyhow::Result<()> {
    let (repository, tag) = name.split_once(':').context("the name has no tag")?;

    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for layer in &image.layers {
        layers.push(push_blob(registry, repository, LAYER, &layer.blob)?);
        diff_ids.push(&layer.diff_id);
    }
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture()?,
        "os": "linux",
        "config": image.run.to_json(),
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = push_blob(
        registry,
        repository,
        CONFIG,
        &Blob::new(config.to_string().into()),
    )?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": layers,
    });
    let path = format!("/v2/{repository}/manifests/{tag}");
    let answer = request(
        registry,
        "PUT",
        &path,
        MANIFEST,
        manifest.to_string().as_bytes(),
    )?;
    answer.expect(201)
}

/// Pushes a blob and gives its descriptor.
fn push_blob(
    registry: SocketAddr,
    repository: &str,
    media_type: &str,
    blob: &Blob,
) -> anyhow::Result<serde_json::Value> {
    let digest = &blob.digest;
    let known = request(
        registry,
        "HEAD",
        &format!("/v2/{repository}/blobs/{digest}"),
        "",
        b"",
    )?;
    if known.status != 200 {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begun = request(registry, "POST", &path, "", b"")?;
        begun.expect(202)?;
        let location = begun
            .header("location")
            .context("the registry gave no upload location")?;
        let authority = format!("http://{registry}");
        let path = location
            .strip_prefix(authority.as_str())
            .unwrap_or(location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={digest}");
        request(
            registry,
            "PUT",
            &path,
            "application/octet-stream",
            &blob.bytes,
        )?
        .expect(201)?;
    }
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": blob.bytes.len() }))
}

/// The name Go has for this machine, which the OCI image spec uses.
fn architecture() -> anyhow::Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("test images can be built on x86_64 and aarch64, not on {other}"),
    }
}

struct Answer {
    what: String,
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn expect(&self, status: u16) -> anyhow::Result<()> {
        if self.status != status {
            bail!(
                "{}: expected {status}, got {}: {}",
                self.what,
                self.status,
                self.body.trim()
            );
        }
        Ok(())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> anyhow::Result<Answer> {
    let what = format!("{method} http://{server}{path}");
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Length: {length}\r\n"
        )?;
        if !content_type.is_empty() {
            write!(stream, "Content-Type: {content_type}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().with_context(|| what.clone())?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("{what}: no HTTP answer: {head}"))?;
    Ok(Answer {
        what,
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
