//! The last lines of a CRI log, without reading all of it.

use std::io::{self, SeekFrom};

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::log_line::LogLine;

/// What is read first; enough for a screenful.
const FIRST_WINDOW: u64 = 64 << 10;

/// The lines of the file (without newlines) that the last `wanted` lines of the container consist of,
/// up to `end` bytes; a last line without newline is left out.
pub(super) async fn last_lines(
    file: &mut File,
    end: u64,
    wanted: usize,
) -> io::Result<Vec<Vec<u8>>> {
    let mut window = FIRST_WINDOW;
    loop {
        let start = end.saturating_sub(window);
        let text = read(file, start, end).await?;
        // The window begins in the middle of a line, unless it begins the file.
        let whole = match text.iter().position(|b| *b == b'\n') {
            Some(newline) if start > 0 => text.get(newline + 1..).unwrap_or_default(),
            None if start > 0 => &[],
            _ => &text,
        };
        let (lines, complete) = select(whole, wanted);
        if complete || start == 0 {
            return Ok(lines.into_iter().map(<[u8]>::to_vec).collect());
        }
        window = window.saturating_mul(2);
    }
}

async fn read(file: &mut File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start)).await?;
    let mut text = Vec::new();
    file.take(end - start).read_to_end(&mut text).await?;
    Ok(text)
}

/// The lines of `text` that the container's last `wanted` lines consist of, and whether all of their parts
/// are in it.
fn select(text: &[u8], wanted: usize) -> (Vec<&[u8]>, bool) {
    let Some(end) = text.iter().rposition(|b| *b == b'\n') else {
        return (Vec::new(), wanted == 0);
    };
    let mut chosen = Vec::new();
    let mut found = 0;
    // Streams whose earlier parts belong to a chosen line.
    let mut open = [false; 2];
    for line in text.get(..end).unwrap_or_default().rsplit(|b| *b == b'\n') {
        if found == wanted && open == [false; 2] {
            return (into_order(chosen), true);
        }
        match LogLine::parse(line) {
            // The earlier part of a line that was chosen.
            Some(part) if part.partial && open[part.stream.index()] => chosen.push(line),
            // The end of a line, or the last part of one that is still being written.
            Some(last) => {
                let is_wanted = found < wanted;
                open[last.stream.index()] = is_wanted;
                if is_wanted {
                    found += 1;
                    chosen.push(line);
                }
            }
            None if found < wanted => {
                found += 1;
                chosen.push(line);
            }
            None => {}
        }
    }
    (into_order(chosen), found == wanted && open == [false; 2])
}

fn into_order(mut lines: Vec<&[u8]>) -> Vec<&[u8]> {
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const LOG: &str = "t stdout F one\n\
        t stdout P two \n\
        t stderr F three\n\
        t stdout P two \n\
        t stdout F two\n\
        t stderr P four ";

    fn selected(text: &str, wanted: usize) -> Vec<&str> {
        select(text.as_bytes(), wanted)
            .0
            .into_iter()
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect()
    }

    #[test]
    fn all_parts_of_a_line_are_taken() {
        let two = ["t stdout P two ", "t stdout P two ", "t stdout F two"];
        assert_eq!(selected(LOG, 1), two);
        assert_eq!(
            selected(LOG, 2),
            [two[0], "t stderr F three", two[1], two[2]]
        );
        assert_eq!(selected(LOG, 3).len(), 5);
        assert_eq!(selected(LOG, 9).len(), 5);
        assert_eq!(selected(LOG, 0).len(), 0);
    }

    #[test]
    fn a_line_still_being_written_counts() {
        let log = "t stdout F one\nt stdout P two \nt stdout P two \n";
        assert_eq!(selected(log, 1), ["t stdout P two ", "t stdout P two "]);
        assert_eq!(selected(log, 2).len(), 3);
    }

    #[test]
    fn a_window_that_lacks_the_beginning_is_not_complete() {
        assert!(!select(b"t stdout P two \nt stdout F two\n", 1).1);
        assert!(select(b"t stdout F one\nt stdout F two\n", 1).1);
        assert!(
            !select(b"t stderr F one\nt stdout F two\n", 1).1,
            "stdout may begin before it"
        );
    }

    #[tokio::test]
    async fn long_files_are_read_from_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut text = String::new();
        for n in 0..20_000 {
            text.push_str(&format!(
                "2023-11-14T22:13:20.123456789Z stdout F line number {n}\n"
            ));
        }
        tokio::fs::write(&path, &text).await.unwrap();
        let mut file = tokio::fs::OpenOptions::new()
            .append(true)
            .read(true)
            .open(&path)
            .await
            .unwrap();
        file.write_all(b"half a li").await.unwrap();
        file.flush().await.unwrap();
        let end = file.metadata().await.unwrap().len();
        for wanted in [0, 1, 10, 5_000, 20_000, 30_000] {
            let lines = last_lines(&mut file, end, wanted).await.unwrap();
            assert_eq!(lines.len(), wanted.min(20_000));
            if let Some(last) = lines.last() {
                assert!(last.ends_with(b"line number 19999"));
            }
        }
    }

    proptest! {
        /// Against reading forwards: number each stream's lines, keep those numbered among the last.
        #[test]
        fn as_if_all_had_been_read(
            lines in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..30),
            wanted in 0usize..8,
        ) {
            let text: Vec<String> = lines
                .iter()
                .enumerate()
                .map(|(n, (err, partial))| {
                    let stream = if *err { "stderr" } else { "stdout" };
                    format!("t {stream} {} {n}", if *partial { "P" } else { "F" })
                })
                .collect();
            let mut last_part: Vec<usize> = (0..lines.len()).collect();
            for n in (0..lines.len()).rev() {
                let next = (n + 1..lines.len()).find(|m| lines[*m].0 == lines[n].0);
                if let (true, Some(next)) = (lines[n].1, next) {
                    last_part[n] = last_part[next];
                }
            }
            let mut ends = last_part.clone();
            ends.sort_unstable();
            ends.dedup();
            let kept = &ends[ends.len().saturating_sub(wanted)..];
            let expected: Vec<&str> = (0..lines.len())
                .filter(|n| kept.contains(&last_part[*n]))
                .map(|n| text[n].as_str())
                .collect();
            let joined: String = text.iter().map(|line| format!("{line}\n")).collect();
            prop_assert_eq!(selected(&joined, wanted), expected);
        }
    }
}
