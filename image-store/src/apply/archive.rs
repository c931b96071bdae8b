//! Reading entries off a tar stream: v7, ustar, PAX and GNU.
//!
//! The layout of headers comes from the `tar` crate; its iterator is not used, because it reads
//! long names, PAX headers and sparse maps of any length into memory, and cuts PAX records at
//! newlines. Here none of them may exceed [`MAX_EXTENSION`].

use std::io::{BufRead, BufReader, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::error::ApplyError;
use super::pax::Pax;
use super::sparse::{self, Segment};

const BLOCK: u64 = 512;

/// Bytes of one long name, one PAX header or one sparse map. Go's archive/tar has the same limit.
const MAX_EXTENSION: u64 = 1 << 20;

/// Bytes read from the stream at once.
const BUFFER: usize = 256 << 10;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// The head of one entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits, `0o7777` at most.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number.
    pub(super) device: (u32, u32),
    /// Length of a file with its holes; 0 for others.
    pub(super) size: u64,
    /// Where its content belongs; nothing for what has none.
    pub(super) segments: Vec<Segment>,
}

/// Extended headers that came before an entry.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// A tar stream being read.
pub(super) struct Archive<'a> {
    input: BufReader<&'a mut dyn Read>,
    /// Bytes read so far.
    at: u64,
    /// Content of the current entry not read yet.
    content: u64,
    /// What fills the block behind it.
    padding: u64,
}

impl<'a> Archive<'a> {
    pub(super) fn new(input: &'a mut dyn Read) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, input),
            at: 0,
            content: 0,
            padding: 0,
        }
    }

    /// The next entry, or `None` at the end of the archive. What is left of the content of the
    /// current one is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ApplyError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let offset = self.at;
            let wrong = |reason| ApplyError::Malformed { offset, reason };
            let Some(header) = self.header()? else {
                let pending = extensions.name.is_some()
                    || extensions.link.is_some()
                    || extensions.pax.is_some();
                return match pending {
                    true => Err(wrong("the archive ends where an entry should follow")),
                    false => Ok(None),
                };
            };
            let size = number(&header.as_old().size)
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| wrong("the size is not a number"))?;
            match header.as_old().linkflag[0] {
                b'L' => {
                    let name = name_of(self.extension(offset, size)?);
                    set_once(&mut extensions.name, name).map_err(wrong)?;
                }
                b'K' => {
                    let link = name_of(self.extension(offset, size)?);
                    set_once(&mut extensions.link, link).map_err(wrong)?;
                }
                b'x' | b'X' => {
                    let pax = Pax::parse(&self.extension(offset, size)?).map_err(wrong)?;
                    set_once(&mut extensions.pax, pax).map_err(wrong)?;
                }
                // Comments of git archive and the like; skipped by the next turn.
                b'g' => self.begin_content(offset, size)?,
                flag => {
                    return self
                        .entry(offset, &header, flag, size, extensions)
                        .map(Some);
                }
            }
        }
    }

    /// Some of the content that is left; empty when there is none.
    pub(super) fn content(&mut self) -> Result<&[u8], ApplyError> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let available = self.input.fill_buf().map_err(ApplyError::Read)?;
        if available.is_empty() {
            return Err(ApplyError::Read(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let left = usize::try_from(self.content).unwrap_or(usize::MAX);
        Ok(&available[..available.len().min(left)])
    }

    /// Marks `n` bytes of what [`content`](Self::content) gave as used.
    pub(super) fn consume(&mut self, n: usize) {
        self.input.consume(n);
        let n = n as u64;
        self.at = self.at.saturating_add(n);
        self.content = self.content.saturating_sub(n);
    }

    /// Announces `size` bytes of content and what pads them to whole blocks.
    fn begin_content(&mut self, offset: u64, size: u64) -> Result<(), ApplyError> {
        if size > i64::MAX as u64 {
            return Err(ApplyError::Malformed {
                offset,
                reason: "the size is beyond all bounds",
            });
        }
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(())
    }

    fn skip(&mut self) -> Result<(), ApplyError> {
        loop {
            let n = self.content()?.len();
            if n > 0 {
                self.consume(n);
                continue;
            }
            if self.padding == 0 {
                return Ok(());
            }
            self.content = std::mem::take(&mut self.padding);
        }
    }

    /// The next header; `None` for the end of the stream or the block of zeros that ends an archive.
    fn header(&mut self) -> Result<Option<Header>, ApplyError> {
        if self.input.fill_buf().map_err(ApplyError::Read)?.is_empty() {
            return Ok(None);
        }
        let offset = self.at;
        let mut header = Header::new_old();
        self.block(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum: i64 = bytes
            .iter()
            .enumerate()
            .map(|(i, b)| {
                if (148..156).contains(&i) {
                    32
                } else {
                    i64::from(*b)
                }
            })
            .sum();
        if number(&header.as_old().cksum) != Some(sum) {
            return Err(ApplyError::Malformed {
                offset,
                reason: "the checksum of a header is wrong",
            });
        }
        Ok(Some(header))
    }

    fn block(&mut self, block: &mut [u8; 512]) -> Result<(), ApplyError> {
        self.input.read_exact(block).map_err(ApplyError::Read)?;
        self.at = self.at.saturating_add(BLOCK);
        Ok(())
    }

    /// The content of an extended header.
    fn extension(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, ApplyError> {
        if size > MAX_EXTENSION {
            return Err(ApplyError::Malformed {
                offset,
                reason: "an extended header is longer than 1 MiB",
            });
        }
        self.begin_content(offset, size)?;
        let mut bytes = Vec::new();
        loop {
            let some = self.content()?;
            if some.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(some);
            let n = some.len();
            self.consume(n);
        }
    }

    fn entry(
        &mut self,
        offset: u64,
        header: &Header,
        flag: u8,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry, ApplyError> {
        let wrong = |reason| ApplyError::Malformed { offset, reason };
        let old = header.as_old();
        let pax = extensions.pax.unwrap_or_default();
        let path = (pax.sparse.name.clone().or(extensions.name).or(pax.path))
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = (extensions.link.or(pax.link))
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        let kind = match flag {
            // Before ustar there was no type for directories.
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => {
                return Err(ApplyError::refused(
                    &path,
                    "entries of this type are unknown",
                ));
            }
        };
        let id = |from_pax: Option<u64>, field: &[u8], reason| {
            from_pax
                .or_else(|| number(field).and_then(|n| u64::try_from(n).ok()))
                .and_then(|n| u32::try_from(n).ok())
                // To the kernel this one means "leave as it is".
                .filter(|n| *n != u32::MAX)
                .ok_or_else(|| ApplyError::refused(&path, reason))
        };
        let mut entry = Entry {
            mode: number(&old.mode)
                .and_then(|n| u32::try_from(n & 0o7777).ok())
                .ok_or_else(|| wrong("the mode is not a number"))?,
            uid: id(
                pax.uid,
                &old.uid,
                "the user id is no number below 4294967295",
            )?,
            gid: id(
                pax.gid,
                &old.gid,
                "the group id is no number below 4294967295",
            )?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => (
                    number(&old.mtime).ok_or_else(|| wrong("the time is not a number"))?,
                    0,
                ),
            },
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => device(header)
                    .ok_or_else(|| ApplyError::refused(&path, "the device number is wrong"))?,
                _ => (0, 0),
            },
            xattrs: pax.xattrs,
            size: 0,
            segments: Vec::new(),
            path,
            link,
            kind,
        };
        // Like Go's archive/tar, which wrote most layers: only files have content, whatever the
        // header of a link or directory says of its size.
        if kind != Kind::File {
            return Ok(entry);
        }
        let stored = pax.size.unwrap_or(size);
        self.begin_content(offset, stored)?;
        entry.size = stored;
        if flag == b'S' {
            (entry.size, entry.segments) = self.old_sparse(offset, header)?;
        } else if pax.sparse.map_in_content {
            entry.size = (pax.sparse.size).ok_or_else(|| wrong("a sparse file has no size"))?;
            entry.segments = self.sparse_map(offset)?;
        } else if let Some(size) = pax.sparse.size {
            entry.size = size;
            entry.segments = pax.sparse.segments;
        } else if stored > 0 {
            entry.segments.push(Segment {
                offset: 0,
                length: stored,
            });
        }
        sparse::check(&entry.segments, entry.size, self.content).map_err(wrong)?;
        Ok(entry)
    }

    /// The map of an old GNU sparse file: in its header, and in blocks between that and the content.
    fn old_sparse(
        &mut self,
        offset: u64,
        header: &Header,
    ) -> Result<(u64, Vec<Segment>), ApplyError> {
        let wrong = |reason| ApplyError::Malformed { offset, reason };
        let gnu = (header.as_gnu()).ok_or_else(|| wrong("a sparse file has no GNU header"))?;
        let size = (number(&gnu.realsize).and_then(|n| u64::try_from(n).ok()))
            .ok_or_else(|| wrong("the size of a sparse file is not a number"))?;
        let mut segments = Vec::new();
        let mut take = |maps: &[GnuSparseHeader]| -> Result<(), ApplyError> {
            for map in maps.iter().filter(|map| !map.is_empty()) {
                let (Ok(offset), Ok(length)) = (map.offset(), map.length()) else {
                    return Err(wrong("the map of a sparse file holds no numbers"));
                };
                segments.push(Segment { offset, length });
            }
            match segments.len() > sparse::MAX_SEGMENTS {
                true => Err(wrong("a sparse file has more than 65536 segments")),
                false => Ok(()),
            }
        };
        take(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.block(block.as_mut_bytes())?;
            take(block.sparse())?;
            more = block.is_extended();
            // Blocks may be empty, so their number is not bounded by that of the segments.
            if self.at - offset > MAX_EXTENSION * 2 {
                return Err(wrong("the map of a sparse file is longer than 2 MiB"));
            }
        }
        Ok((size, segments))
    }

    /// The map of a PAX 1.0 sparse file: decimal numbers, one per line, padded to a block, at the
    /// beginning of its content.
    fn sparse_map(&mut self, offset: u64) -> Result<Vec<Segment>, ApplyError> {
        let wrong = |reason| ApplyError::Malformed { offset, reason };
        let begin = self.at;
        let mut numbers = Vec::new();
        let mut expected = 1;
        let mut value: Option<u64> = None;
        while numbers.len() < expected {
            let Some(byte) = self.content()?.first().copied() else {
                return Err(wrong("the map of a sparse file is incomplete"));
            };
            self.consume(1);
            match (byte, value) {
                (b'0'..=b'9', before) => {
                    let digit = u64::from(byte - b'0');
                    value = Some(
                        (before.unwrap_or(0).checked_mul(10))
                            .and_then(|n| n.checked_add(digit))
                            .ok_or_else(|| wrong("the map of a sparse file is wrong"))?,
                    );
                }
                (b'\n', Some(number)) => {
                    value = None;
                    numbers.push(number);
                    if numbers.len() == 1 {
                        expected = (usize::try_from(number).ok())
                            .filter(|n| *n <= sparse::MAX_SEGMENTS)
                            .map(|n| n * 2 + 1)
                            .ok_or_else(|| wrong("a sparse file has more than 65536 segments"))?;
                    }
                }
                _ => return Err(wrong("the map of a sparse file is wrong")),
            }
        }
        let used = self.at - begin;
        let mut rest = used.next_multiple_of(BLOCK) - used;
        while rest > 0 {
            let n = self
                .content()?
                .len()
                .min(usize::try_from(rest).unwrap_or(0));
            if n == 0 {
                return Err(wrong("the map of a sparse file is incomplete"));
            }
            self.consume(n);
            rest -= n as u64;
        }
        Ok(numbers[1..]
            .chunks_exact(2)
            .map(|pair| Segment {
                offset: pair[0],
                length: pair[1],
            })
            .collect())
    }
}

/// A number in a header: octal text, or binary if the first bit is set (GNU). An empty field is 0.
fn number(field: &[u8]) -> Option<i64> {
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        // Two's complement, of which the first bit only marks the format.
        let sign = if first & 0x40 != 0 { -1_i128 } else { 0 };
        let head = (sign << 7) | i128::from(first & 0x7f);
        let value = rest.iter().fold(head, |n, b| (n << 8) | i128::from(*b));
        return i64::try_from(value).ok();
    }
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let text = std::str::from_utf8(&field[..end]).ok()?.trim_matches(' ');
    match text {
        "" => Some(0),
        digits if digits.bytes().all(|b| matches!(b, b'0'..=b'7')) => {
            i64::from_str_radix(digits, 8).ok()
        }
        _ => None,
    }
}

/// Major and minor number; the kernel has 12 and 20 bits for them.
fn device(header: &Header) -> Option<(u32, u32)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(h), _) => (number(&h.dev_major)?, number(&h.dev_minor)?),
        (None, Some(h)) => (number(&h.dev_major)?, number(&h.dev_minor)?),
        (None, None) => return None,
    };
    let major = u32::try_from(major).ok().filter(|n| *n < 1 << 12)?;
    let minor = u32::try_from(minor).ok().filter(|n| *n < 1 << 20)?;
    Some((major, minor))
}

/// A GNU long name ends at its NUL.
fn name_of(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("one entry has two extended headers of the same kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"+644\0"), None);
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Some(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(
            number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"),
            Some(-2)
        );
        assert_eq!(number(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), None);
    }
}
