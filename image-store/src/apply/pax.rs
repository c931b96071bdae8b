//! PAX extended headers (POSIX.1-2017, pax, "pax Extended Header"): records `length key=value\n`.
//!
//! The records are cut by their lengths, because values such as capabilities are binary and may
//! hold a newline.

use super::sparse::Segment;

/// What one extended header says of the entry that follows it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    /// Name and value, in the order of the records.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// The keys `GNU.sparse.*` (GNU tar manual, "Storing Sparse Files").
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    /// 1.0 keeps its map in front of the content.
    pub(super) map_in_content: bool,
    pub(super) name: Option<Vec<u8>>,
    /// Length of the file with its holes.
    pub(super) size: Option<u64>,
    /// The map of 0.0 and 0.1.
    pub(super) segments: Vec<Segment>,
    /// Of 0.0: an offset whose length has not come yet.
    offset: Option<u64>,
}

impl Pax {
    /// Reads the content of an extended header.
    pub(super) fn parse(mut rest: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !rest.is_empty() {
            let (record, after) = record(rest).ok_or("a PAX record has a wrong length")?;
            let equals = record
                .iter()
                .position(|b| *b == b'=')
                .ok_or("a PAX record has no =")?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            pax.take(key, value)?;
            rest = after;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // An empty value takes back what an earlier record said.
        let text = (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text,
            b"linkpath" => self.link = text,
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => self.mtime = time(value)?,
            b"GNU.sparse.major" => self.sparse.map_in_content = value == b"1",
            b"GNU.sparse.name" => self.sparse.name = text,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number(value)?,
            b"GNU.sparse.map" => self.sparse.segments = map(value)?,
            b"GNU.sparse.offset" => self.sparse.offset = number(value)?,
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take();
                let (Some(offset), Some(length)) = (offset, number(value)?) else {
                    return Err("a PAX sparse map is incomplete");
                };
                self.sparse.segments.push(Segment { offset, length });
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// The first record without its length and newline, and what comes after it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let whole = data.get(..length)?;
    let body = whole.get(space + 1..)?.strip_suffix(b"\n")?;
    Some((body, &data[length..]))
}

fn number(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    std::str::from_utf8(value)
        .ok()
        .and_then(|t| t.parse().ok())
        .map(Some)
        .ok_or("a PAX record holds no number where one belongs")
}

fn map(value: &[u8]) -> Result<Vec<Segment>, &'static str> {
    let mut numbers = Vec::new();
    for text in value.split(|b| *b == b',').filter(|t| !t.is_empty()) {
        numbers.extend(number(text)?);
    }
    if numbers.len() % 2 != 0 {
        return Err("a PAX sparse map is incomplete");
    }
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| Segment {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

/// Seconds since 1970 with an optional sign and fraction.
fn time(value: &[u8]) -> Result<Option<(i64, u32)>, &'static str> {
    const WRONG: &str = "a PAX record holds no time where one belongs";
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).map_err(|_| WRONG)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| WRONG)?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(WRONG);
    }
    let digits = fraction.get(..9).unwrap_or(fraction);
    let nanos: u32 = format!("{digits:0<9}").parse().map_err(|_| WRONG)?;
    if nanos > 0 && whole.starts_with('-') {
        // -1.25 is 0.75 s after -2.
        let seconds = seconds.checked_sub(1).ok_or(WRONG)?;
        return Ok(Some((seconds, 1_000_000_000 - nanos)));
    }
    Ok(Some((seconds, nanos)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_cut_by_length() {
        let mut data = b"12 path=a\nb\n".to_vec();
        data.extend_from_slice(b"40 SCHILY.xattr.security.capability=\n=\n\n");
        let pax = Pax::parse(&data).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(
            pax.xattrs,
            [(b"security.capability".to_vec(), b"\n=\n".to_vec())]
        );
    }

    #[test]
    fn times_have_signs_and_fractions() {
        for (text, want) in [
            ("0", (0, 0)),
            ("1.5", (1, 500_000_000)),
            ("1700000000.123456789123", (1_700_000_000, 123_456_789)),
            ("-1.25", (-2, 750_000_000)),
            ("-0.5", (-1, 500_000_000)),
        ] {
            assert_eq!(time(text.as_bytes()).unwrap(), Some(want), "{text}");
        }
        for text in ["x", "1.x", "1.2.3", ".", "- 1"] {
            assert!(time(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_records_are_refused() {
        for text in [
            "5 a=b\n",
            "7 a=b\n",
            "6 a=bc\n",
            "x a=b\n",
            "6 a b\n",
            "11 size=-1\n",
            "10 size=x\n",
            "28 GNU.sparse.numbytes=12\n\n",
            "22 GNU.sparse.map=1,2,3\n",
        ] {
            assert!(Pax::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pax::parse(&data);
        }
    }
}
