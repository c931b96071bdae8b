//! Reading a log file that is being written, and replaced when kubelet rotates it.

use std::io::{self, ErrorKind, SeekFrom};
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::tail::last_lines;

/// Longer lines do not come from a runtime; they are given out in pieces, so that memory stays bounded.
const LINE_MAX: usize = 1 << 20;

/// A log file, read line by line from where it was left.
#[derive(Debug)]
pub(super) struct LogFile {
    path: Utf8PathBuf,
    /// `None` until the file is there.
    file: Option<File>,
    /// How far it was read.
    offset: u64,
    /// The beginning of a line whose end has not been read.
    rest: Vec<u8>,
}

impl LogFile {
    /// A reader at the beginning of the file, which need not be there yet.
    pub(super) fn new(path: &Utf8Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            offset: 0,
            rest: Vec::new(),
        }
    }

    /// Goes to the end, and returns the lines that the container's last `wanted` lines consist of.
    pub(super) async fn skip_to_last(&mut self, wanted: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut file = File::open(&self.path).await?;
        let end = file.metadata().await?.len();
        let lines = last_lines(&mut file, end, wanted).await?;
        // What follows the last newline comes with the next line.
        self.offset = end_of_last_line(&mut file, end).await?;
        file.seek(SeekFrom::Start(self.offset)).await?;
        self.file = Some(file);
        Ok(lines)
    }

    /// Passes on the lines that are there now, without newlines; how many there were. Follows the file to its
    /// successor when it was renamed, and begins anew when it was truncated.
    pub(super) async fn read_lines<E: From<io::Error>>(
        &mut self,
        mut line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut count = 0;
        loop {
            count += self.read_to_end(&mut line).await?;
            if !self.reopen().await? {
                return Ok(count);
            }
        }
    }

    /// Whether there is a file to read.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    async fn read_to_end<E: From<io::Error>>(
        &mut self,
        line: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let Some(file) = &mut self.file else {
            return Ok(0);
        };
        let mut count = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = file.read(&mut buffer).await?;
            if length == 0 {
                return Ok(count);
            }
            self.offset += length as u64;
            for piece in buffer
                .get(..length)
                .unwrap_or_default()
                .split_inclusive(|b| *b == b'\n')
            {
                self.rest.extend_from_slice(piece);
                let ended = self.rest.last() == Some(&b'\n');
                if ended || self.rest.len() > LINE_MAX {
                    let text = std::mem::take(&mut self.rest);
                    line(text.strip_suffix(b"\n").unwrap_or(&text))?;
                    count += 1;
                }
            }
        }
    }

    /// Opens what is at the path now, if that is not what is being read.
    async fn reopen(&mut self) -> io::Result<bool> {
        let there = match tokio::fs::metadata(&self.path).await {
            Ok(there) => there,
            // Renamed and not yet made anew.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        if let Some(file) = &self.file {
            let ours = file.metadata().await?;
            let same = (ours.dev(), ours.ino()) == (there.dev(), there.ino());
            if same && there.len() >= self.offset {
                return Ok(false);
            }
        }
        match File::open(&self.path).await {
            Ok(file) => self.file = Some(file),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        }
        self.offset = 0;
        self.rest.clear();
        Ok(true)
    }
}

/// The offset behind the last newline before `end`.
async fn end_of_last_line(file: &mut File, end: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut at = end;
    while at > 0 {
        let start = at.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start)).await?;
        let mut block = Vec::new();
        file.take(at - start).read_to_end(&mut block).await?;
        if let Some(newline) = block.iter().rposition(|b| *b == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        at = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    async fn lines(log: &mut LogFile) -> Vec<String> {
        let mut lines = Vec::new();
        let keep = |line: &[u8]| {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
            Ok::<_, io::Error>(())
        };
        log.read_lines(keep).await.unwrap();
        lines
    }

    fn append(path: &Utf8Path, text: &str) {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn nothing_is_lost_or_doubled_when_the_file_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("0.log");
        let mut log = LogFile::new(&path);
        assert!(lines(&mut log).await.is_empty() && !log.is_open());
        append(&path, "one\ntw");
        assert_eq!(lines(&mut log).await, ["one"]);
        append(&path, "o\n");
        assert_eq!(lines(&mut log).await, ["two"]);
        // As kubelet does: rename, more is written to the old file, then the runtime opens a new one.
        let old = path.with_extension("old");
        fs::rename(&path, &old).unwrap();
        append(&old, "three\n");
        assert_eq!(lines(&mut log).await, ["three"]);
        append(&old, "four\n");
        append(&path, "five\n");
        assert_eq!(lines(&mut log).await, ["four", "five"]);
        append(&path, "six\n");
        assert_eq!(lines(&mut log).await, ["six"]);
    }

    #[tokio::test]
    async fn a_truncated_file_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("0.log");
        append(&path, "one\ntwo\n");
        let mut log = LogFile::new(&path);
        assert_eq!(lines(&mut log).await, ["one", "two"]);
        fs::File::create(&path).unwrap();
        append(&path, "new\n");
        assert_eq!(lines(&mut log).await, ["new"]);
    }

    #[tokio::test]
    async fn following_goes_on_behind_the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("0.log");
        append(&path, "t stdout F one\nt stdout F two\nt stdout F th");
        let mut log = LogFile::new(&path);
        assert_eq!(log.skip_to_last(1).await.unwrap(), [b"t stdout F two"]);
        append(&path, "ree\nt stdout F four\n");
        assert_eq!(
            lines(&mut log).await,
            ["t stdout F three", "t stdout F four"]
        );
    }
}
