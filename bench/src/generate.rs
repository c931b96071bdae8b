//! The images of `pull`, the same whenever they are made: an OCI layout (OCI image spec, `image-layout.md`).

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};

use anyhow::Context as _;
use camino::Utf8Path;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// Layers of the image [`TEN`], and bytes of files in each.
pub(crate) const LAYERS: u64 = 10;
pub(crate) const LAYER_BYTES: u64 = 50_000_000;

/// Bytes of the one file in the image [`LARGE`].
pub(crate) const LARGE_BYTES: u64 = 2 << 30;

/// Names in the layout.
pub(crate) const TEN: &str = "ten";
pub(crate) const LARGE: &str = "large";

/// Fills the directory.
pub(crate) fn layout(dir: &Utf8Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir.join("blobs/sha256")).with_context(|| format!("cannot make {dir}"))?;
    let mut ten = Vec::new();
    for number in 0..LAYERS {
        ten.push(layer(dir, number, |archive, noise| {
            many_files(archive, number, noise)
        })?);
        println!("layer {} of {LAYERS}", number + 1);
    }
    let large = layer(dir, LAYERS, |archive, noise| {
        file(archive, "large", LARGE_BYTES, noise)
    })?;
    println!("the large layer");
    let index = json!({
        "schemaVersion": 2,
        "manifests": [manifest(dir, TEN, &ten)?, manifest(dir, LARGE, &[large])?],
    });
    write(dir, "index.json", &index)?;
    write(dir, "oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))
}

fn write(dir: &Utf8Path, name: &str, document: &Value) -> anyhow::Result<()> {
    fs::write(dir.join(name), document.to_string()).with_context(|| format!("cannot write {name}"))
}

/// A layer in the layout.
struct Layer {
    descriptor: Value,
    diff_id: String,
}

fn layer(
    dir: &Utf8Path,
    seed: u64,
    fill: impl FnOnce(&mut Builder<&mut dyn Write>, &mut Noise) -> io::Result<()>,
) -> anyhow::Result<Layer> {
    let draft = dir.join("draft");
    let file = File::create(&draft).with_context(|| format!("cannot make {draft}"))?;
    let compressed = Hashed::new(BufWriter::new(file));
    // As fast as it goes: the content is what decides how much is saved.
    let mut plain = Hashed::new(GzEncoder::new(compressed, Compression::fast()));
    let mut archive = Builder::new(&mut plain as &mut dyn Write);
    let mut noise = Noise::new(seed);
    fill(&mut archive, &mut noise)
        .and_then(|()| archive.finish())
        .context("cannot write a layer")?;
    drop(archive);
    let (gzip, diff_id, _) = plain.finish();
    let compressed = gzip.finish().context("cannot compress a layer")?;
    let (mut file, digest, size) = compressed.finish();
    file.flush().context("cannot write a layer")?;
    rename(dir, &draft, &digest)?;
    let descriptor = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size,
    });
    Ok(Layer {
        descriptor,
        diff_id,
    })
}

fn rename(dir: &Utf8Path, draft: &Utf8Path, digest: &str) -> anyhow::Result<()> {
    let blob = dir.join("blobs").join(digest.replace(':', "/"));
    fs::rename(draft, &blob).with_context(|| format!("cannot make {blob}"))
}

/// Files of 1 KiB to 1 MiB, [`LAYER_BYTES`] in all.
fn many_files(
    archive: &mut Builder<&mut dyn Write>,
    number: u64,
    noise: &mut Noise,
) -> io::Result<()> {
    let mut left = LAYER_BYTES;
    let mut files = 0;
    while left > 0 {
        let size = left.min(1 << (10 + noise.next() % 11));
        let path = format!("layer-{number}/{}/file-{files}", files % 16);
        file(archive, &path, size, noise)?;
        left -= size;
        files += 1;
    }
    Ok(())
}

fn file(
    archive: &mut Builder<&mut dyn Write>,
    path: &str,
    size: u64,
    noise: &mut Noise,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(size);
    archive.append_data(&mut header, path, noise.take(size))
}

fn manifest(dir: &Utf8Path, name: &str, layers: &[Layer]) -> anyhow::Result<Value> {
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
    let descriptors: Vec<_> = layers.iter().map(|layer| &layer.descriptor).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": document(dir, CONFIG, &config)?,
        "layers": descriptors,
    });
    let mut descriptor = document(dir, MANIFEST, &manifest)?;
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    Ok(descriptor)
}

fn document(dir: &Utf8Path, media_type: &str, content: &Value) -> anyhow::Result<Value> {
    let draft = dir.join("draft");
    let mut file =
        Hashed::new(File::create(&draft).with_context(|| format!("cannot make {draft}"))?);
    file.write_all(content.to_string().as_bytes())
        .with_context(|| format!("cannot write {draft}"))?;
    let (_, digest, size) = file.finish();
    rename(dir, &draft, &digest)?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": size }))
}

/// Counts and hashes what is written through it.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            size: 0,
        }
    }

    /// The writer, the digest and the size.
    fn finish(self) -> (W, String, u64) {
        let hex: String = self
            .hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        (self.inner, format!("sha256:{hex}"), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Endless bytes of which gzip saves about a half, as it does of programs: 32 random ones, then 32 that are not.
struct Noise {
    state: u64,
    block: [u8; 64],
    /// Bytes of the block that were given out.
    used: usize,
}

impl Noise {
    fn new(seed: u64) -> Self {
        let block = *b"................................the same words again and again, ";
        // Any odd number; xorshift needs a state that is not 0.
        let state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            state,
            block,
            used: 64,
        }
    }

    /// xorshift64*.
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Read for &mut Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.used == self.block.len() {
                for at in (0..32).step_by(8) {
                    let random = self.next().to_le_bytes();
                    self.block[at..at + 8].copy_from_slice(&random);
                }
                self.used = 0;
            }
            let part = (buffer.len() - filled).min(self.block.len() - self.used);
            buffer[filled..filled + part].copy_from_slice(&self.block[self.used..self.used + part]);
            filled += part;
            self.used += part;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_however_it_is_read() {
        let mut whole = vec![0; 1000];
        (&mut Noise::new(7)).read_exact(&mut whole).unwrap();
        let mut parts = vec![0; 1000];
        let mut noise = Noise::new(7);
        for part in parts.chunks_mut(33) {
            (&mut noise).read_exact(part).unwrap();
        }
        assert_eq!(whole, parts);
    }

    #[test]
    fn gzip_saves_about_a_half() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        io::copy(&mut (&mut Noise::new(0)).take(1 << 20), &mut gzip).unwrap();
        let saved = gzip.finish().unwrap().len() * 100 / (1 << 20);
        assert!((40..70).contains(&saved), "{saved} %");
    }
}
