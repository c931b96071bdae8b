//! From the bytes of a blob to a verified tar stream in the spool.

use std::fs::File;
use std::io::{self, BufRead, Read, Write as _};

use bytes::{Buf as _, Bytes};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::digest::Digest;
use crate::layer_store::SpooledLayer;
use crate::manifest::Blob;
use crate::spool::{Spool, SpoolFile};

/// Size of one write, in bytes.
const BUFFER: usize = 128 << 10;
/// Largest zstd window: 2^25 = 32 MiB. Image builders use 8 MiB at most.
const ZSTD_WINDOW_LOG: u32 = 25;

/// A layer as its manifest and config describe it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LayerContent {
    /// As it is in the registry.
    pub(crate) blob: Blob,
    /// Digest of the tar stream in it.
    pub(crate) diff_id: Digest,
}

/// A verified layer in the spool; its file goes away with it.
#[derive(Debug)]
pub(crate) struct Spooled {
    file: SpoolFile,
    diff_id: Digest,
    bytes: u64,
}

impl Spooled {
    /// As the layer store takes it.
    pub(crate) fn layer(&self) -> SpooledLayer {
        SpooledLayer {
            tar: self.file.path().to_owned(),
            diff_id: self.diff_id.clone(),
            bytes: self.bytes,
        }
    }
}

/// Why a blob did not become a tar stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InflateError {
    /// Nobody sends the rest any more.
    #[error("the download was given up")]
    Abandoned,
    #[error("it cannot be decompressed")]
    Decompress(#[source] io::Error),
    #[error("its content has the digest {0}")]
    BlobDigest(Digest),
    #[error("unpacked, it has the digest {got}, and the config says {expected}")]
    DiffId { expected: Digest, got: Digest },
    #[error("unpacked, it is larger than the {max} bytes allowed for a layer")]
    TooLarge { max: u64 },
    #[error("{doing}")]
    Spool {
        doing: String,
        #[source]
        source: io::Error,
    },
}

/// Receives the blob in pieces, decompresses it into the spool and checks both digests. Blocking;
/// uses a bounded amount of memory whatever the blob.
pub(crate) fn inflate(
    content: &LayerContent,
    pieces: mpsc::Receiver<Bytes>,
    spool: &Spool,
    max_bytes: u64,
) -> Result<Spooled, InflateError> {
    let (guard, file) = spool.create().map_err(|source| InflateError::Spool {
        doing: format!("cannot create a file in {}", spool.dir()),
        source,
    })?;
    let mut sink = Sink {
        file,
        hash: Sha256::new(),
        bytes: 0,
        max_bytes,
        guard: &guard,
    };
    let mut blob = Pieces {
        pieces,
        current: Bytes::new(),
        hash: Sha256::new(),
        missing: content.blob.size,
    };
    let format = Format::of(blob.peek().map_err(read_error)?);
    match format {
        Format::Gzip => sink.fill(&mut MultiGzDecoder::new(&mut blob))?,
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut blob)
                .and_then(|mut decoder| {
                    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                    Ok(decoder)
                })
                .map_err(InflateError::Decompress)?;
            sink.fill(&mut decoder)?;
        }
        Format::Plain => sink.fill(&mut blob)?,
    }
    // A decoder may stop before the end of the blob; its digest covers all of it.
    blob.drain().map_err(read_error)?;
    let digest = Digest::from_sha256(&blob.hash.finalize());
    if digest != content.blob.digest {
        return Err(InflateError::BlobDigest(digest));
    }
    let diff_id = Digest::from_sha256(&sink.hash.finalize());
    if diff_id != content.diff_id {
        return Err(InflateError::DiffId {
            expected: content.diff_id.clone(),
            got: diff_id,
        });
    }
    let bytes = sink.bytes;
    Ok(Spooled {
        file: guard,
        diff_id,
        bytes,
    })
}

/// How a blob is compressed, told from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Gzip,
    Zstd,
    Plain,
}

impl Format {
    fn of(start: &[u8]) -> Self {
        match start {
            // RFC 1952, section 2.3.1
            [0x1f, 0x8b, ..] => Self::Gzip,
            // RFC 8878, sections 3.1.1 and 3.1.2: a frame, or a skippable frame before it
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// The tar stream's way to the disk.
struct Sink<'a> {
    file: File,
    hash: Sha256,
    bytes: u64,
    max_bytes: u64,
    guard: &'a SpoolFile,
}

impl Sink<'_> {
    fn fill(&mut self, from: &mut dyn Read) -> Result<(), InflateError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(read_error(e)),
            };
            self.bytes += n as u64;
            if self.bytes > self.max_bytes {
                return Err(InflateError::TooLarge {
                    max: self.max_bytes,
                });
            }
            self.hash.update(&buffer[..n]);
            self.file
                .write_all(&buffer[..n])
                .map_err(|source| InflateError::Spool {
                    doing: format!("cannot write {}", self.guard.path()),
                    source,
                })?;
        }
    }
}

/// The pieces of a blob as one stream, hashed on the way.
struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
    hash: Sha256,
    /// Bytes that have not come yet.
    missing: u64,
}

/// Marks an I/O error that means: the sender has gone.
#[derive(Debug, thiserror::Error)]
#[error("the download was given up")]
struct SenderGone;

fn read_error(error: io::Error) -> InflateError {
    if error
        .get_ref()
        .is_some_and(|inner| inner.is::<SenderGone>())
    {
        return InflateError::Abandoned;
    }
    InflateError::Decompress(error)
}

impl Pieces {
    /// The next piece; empty at the end of the blob.
    fn receive(&mut self) -> io::Result<Bytes> {
        match self.pieces.blocking_recv() {
            Some(piece) => {
                self.missing = self.missing.saturating_sub(piece.len() as u64);
                self.hash.update(&piece);
                Ok(piece)
            }
            None if self.missing == 0 => Ok(Bytes::new()),
            None => Err(io::Error::other(SenderGone)),
        }
    }

    /// The first bytes, at least four of them if there are that many.
    fn peek(&mut self) -> io::Result<&[u8]> {
        while self.current.len() < 4 {
            let more = self.receive()?;
            if more.is_empty() {
                break;
            }
            self.current = if self.current.is_empty() {
                more
            } else {
                [self.current.as_ref(), more.as_ref()].concat().into()
            };
        }
        Ok(&self.current)
    }

    fn drain(&mut self) -> io::Result<()> {
        loop {
            let n = self.fill_buf()?.len();
            if n == 0 {
                return Ok(());
            }
            self.consume(n);
        }
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            self.current = self.receive()?;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, n: usize) {
        self.current.advance(n);
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;

    const TAR: &[u8] = b"not really a tar, but nobody looks here";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn run(blob: &[u8], piece: usize, max: u64) -> Result<Vec<u8>, InflateError> {
        run_as(blob, piece, max, &Digest::of(blob), &Digest::of(TAR))
    }

    fn run_as(
        blob: &[u8],
        piece: usize,
        max: u64,
        digest: &Digest,
        diff_id: &Digest,
    ) -> Result<Vec<u8>, InflateError> {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().to_owned()).unwrap();
        let spool = Spool::open(path.clone()).unwrap();
        let content = LayerContent {
            blob: Blob {
                digest: digest.clone(),
                size: blob.len() as u64,
            },
            diff_id: diff_id.clone(),
        };
        let (sender, receiver) = mpsc::channel(1024);
        for piece in blob.chunks(piece.max(1)) {
            sender.try_send(Bytes::copy_from_slice(piece)).unwrap();
        }
        drop(sender);
        let result = inflate(&content, receiver, &spool, max)
            .map(|spooled| std::fs::read(spooled.layer().tar).unwrap());
        let left = std::fs::read_dir(&path).unwrap().count();
        assert_eq!(left, 0, "a spool file was left");
        result
    }

    #[test]
    fn every_format_in_pieces_of_any_size() {
        let zstd = zstd::stream::encode_all(TAR, 3).unwrap();
        let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        skippable.extend(&zstd);
        let mut members = gzip(&TAR[..9]);
        members.extend(gzip(&TAR[9..]));
        for blob in [gzip(TAR), zstd, skippable, members, TAR.to_vec()] {
            for piece in [1, 3, 1000] {
                assert_eq!(run(&blob, piece, 1000).unwrap(), TAR);
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = gzip(&vec![0; 1 << 20]);
        assert!(bomb.len() < 1 << 15);
        let error = run(&bomb, 1000, 1 << 16).unwrap_err();
        assert!(matches!(error, InflateError::TooLarge { max: 65536 }));
    }

    #[test]
    fn a_giant_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(TAR).unwrap();
        let blob = encoder.finish().unwrap();
        assert!(matches!(
            run(&blob, 1000, 1000),
            Err(InflateError::Decompress(_))
        ));
    }

    #[test]
    fn wrong_content_is_told_apart() {
        let (good, other) = (gzip(TAR), Digest::of(b"other"));
        assert!(matches!(
            run_as(&good, 9, 1000, &other, &Digest::of(TAR)),
            Err(InflateError::BlobDigest(_))
        ));
        assert!(matches!(
            run_as(&good, 9, 1000, &Digest::of(&good), &other),
            Err(InflateError::DiffId { .. })
        ));
        let truncated = &good[..good.len() - 5];
        assert!(matches!(
            run(truncated, 9, 1000),
            Err(InflateError::Decompress(_))
        ));
    }

    #[test]
    fn a_download_that_ends_early_is_no_short_layer() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(Utf8PathBuf::try_from(dir.path().to_owned()).unwrap()).unwrap();
        let content = LayerContent {
            blob: Blob {
                digest: Digest::of(TAR),
                size: TAR.len() as u64,
            },
            diff_id: Digest::of(TAR),
        };
        let (sender, receiver) = mpsc::channel(2);
        sender.try_send(Bytes::from_static(&TAR[..5])).unwrap();
        drop(sender);
        assert!(matches!(
            inflate(&content, receiver, &spool, 1000),
            Err(InflateError::Abandoned)
        ));
    }
}
