//! Lines of a CRI log, and writing them out.
//!
//! A line is `<RFC 3339 time> <stdout|stderr> <F|P>[:tag...] <content>`; `P` says that the container's
//! line goes on in the next one of the same stream.

use super::error::CliError;
use super::output::write_all;

/// Where the container wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Both have state of their own in arrays of two.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// One line of the file, without its newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogLine<'a> {
    /// As it stands in the file.
    pub(super) time: &'a [u8],
    pub(super) stream: Stream,
    /// The container's line goes on.
    pub(super) partial: bool,
    pub(super) content: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// Reads a line; `None` if it is not of this format.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let (time, rest) = split(line)?;
        let (stream, rest) = split(rest)?;
        // The content may be empty, with or without the space before it.
        let (tags, content) = split(rest).unwrap_or((rest, &[]));
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let partial = match tags.split(|b| *b == b':').next()? {
            b"F" => false,
            b"P" => true,
            _ => return None,
        };
        (!time.is_empty()).then_some(Self {
            time,
            stream,
            partial,
            content,
        })
    }
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = line.iter().position(|b| *b == b' ')?;
    Some((line.get(..space)?, line.get(space + 1..)?))
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// As the container wrote it.
    Plain,
    /// With the time before it.
    Timestamps,
    /// As an object, all of them to standard output.
    Json,
}

/// Writes the container's output as it was: what went to standard output to `out`, the rest to `err`.
#[derive(Debug)]
pub(super) struct Printer<O, E> {
    out: O,
    err: E,
    style: Style,
    /// Which stream is in the middle of a line.
    mid_line: [bool; 2],
}

impl<O: std::io::Write, E: std::io::Write> Printer<O, E> {
    pub(super) fn new(out: O, err: E, style: Style) -> Self {
        Self {
            out,
            err,
            style,
            mid_line: [false; 2],
        }
    }

    /// Writes one line of the file, given without its newline. A line that is not a CRI log's
    /// is passed on as it is, for somebody else wrote it there.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), CliError> {
        if self.style == Style::Json {
            return write_all(&mut self.out, &object(line));
        }
        let Some(parsed) = LogLine::parse(line) else {
            return write_all(&mut self.out, &[line, b"\n"].concat());
        };
        let mid_line = &mut self.mid_line[parsed.stream.index()];
        let mut text = Vec::with_capacity(line.len() + 1);
        if self.style == Style::Timestamps && !*mid_line {
            text.extend_from_slice(parsed.time);
            text.push(b' ');
        }
        text.extend_from_slice(parsed.content);
        if !parsed.partial {
            text.push(b'\n');
        }
        *mid_line = parsed.partial;
        match parsed.stream {
            Stream::Stdout => write_all(&mut self.out, &text),
            Stream::Stderr => write_all(&mut self.err, &text),
        }
    }
}

/// A line as an object, with its newline. What is no text is shown as well as it can be.
fn object(line: &[u8]) -> Vec<u8> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let parsed = LogLine::parse(line);
    let value = serde_json::json!({
        "time": parsed.map(|line| text(line.time)),
        "stream": parsed.map(|line| match line.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }),
        "partial": parsed.is_some_and(|line| line.partial),
        "text": text(parsed.map_or(line, |line| line.content)),
    });
    format!("{value}\n").into_bytes()
}

/// What the fuzz target `log_line` calls: prints a whole log.
pub(crate) fn fuzz(log: &[u8]) {
    for style in [Style::Timestamps, Style::Json] {
        let mut printer = Printer::new(Vec::new(), Vec::new(), style);
        for line in log.split(|byte| *byte == b'\n') {
            let _ = printer.line(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(style: Style, lines: &[&str]) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut printer = Printer::new(&mut out, &mut err, style);
        lines
            .iter()
            .for_each(|line| printer.line(line.as_bytes()).unwrap());
        (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn parts_of_a_line_are_joined_stream_by_stream() {
        let lines = [
            "t1 stdout P one ",
            "t2 stderr F oops",
            "t3 stdout P two ",
            "t4 stdout F three",
            "t5 stdout F ",
            "t6 stdout F",
            "t7 stdout F:tag four",
        ];
        assert_eq!(
            printed(Style::Plain, &lines),
            ("one two three\n\n\nfour\n".into(), "oops\n".into())
        );
        assert_eq!(
            printed(Style::Timestamps, &lines),
            (
                "t1 one two three\nt5 \nt6 \nt7 four\n".into(),
                "t2 oops\n".into()
            )
        );
    }

    #[test]
    fn what_is_not_a_log_line_is_passed_on() {
        let lines = ["", "hello", "t stdlog F x", "t stdout X x", " stdout F x"];
        let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(
            printed(Style::Timestamps, &lines),
            (expected, String::new())
        );
    }

    #[test]
    fn programs_get_an_object_for_each_line() {
        let lines = ["t1 stdout P a\tb", "t2 stderr F é", "not a log line"];
        let (out, err) = printed(Style::Json, &lines);
        insta::assert_snapshot!(out, @r#"
        {"partial":true,"stream":"stdout","text":"a\tb","time":"t1"}
        {"partial":false,"stream":"stderr","text":"é","time":"t2"}
        {"partial":false,"stream":null,"text":"not a log line","time":null}
        "#);
        assert_eq!(err, "");
    }

    proptest! {
        #[test]
        fn no_line_panics(line: Vec<u8>) {
            let _ = LogLine::parse(&line);
        }

        #[test]
        fn a_written_line_is_read_back(
            time in "[0-9TZ:.+-]{1,35}",
            to_stderr: bool,
            partial: bool,
            tags in "(:[a-z]{1,4}){0,2}",
            content in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let stream = if to_stderr { Stream::Stderr } else { Stream::Stdout };
            let name = if to_stderr { "stderr" } else { "stdout" };
            let tag = if partial { "P" } else { "F" };
            let mut line = format!("{time} {name} {tag}{tags} ").into_bytes();
            line.extend_from_slice(&content);
            let parsed = LogLine { time: time.as_bytes(), stream, partial, content: &content };
            prop_assert_eq!(LogLine::parse(&line), Some(parsed));
        }
    }
}
