//! The API token: `user@realm!name=uuid` in a file that root alone can read.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use http::HeaderValue;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Uid;

use super::error::PveError;

/// Longest file read, in bytes. Proxmox takes user ids of 64 characters and names of 128.
const MAX_FILE: u64 = 4 << 10;

/// A token as it is sent. `Debug` shows whose it is, never its secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    id: String,
    header: HeaderValue,
}

impl Token {
    /// Reads the file, which must belong to `owner` and be closed to everybody else.
    pub(super) fn read(file: &Utf8Path, owner: Uid) -> Result<Self, PveError> {
        read(file, owner)
            .and_then(|text| Self::parse(&text))
            .map_err(|source| PveError::Setup {
                what: format!("the API token file {file} (proxmox.token_file)"),
                source: source.into(),
            })
    }

    /// `user@realm!name=uuid`, as `pveum user token add` prints it in two pieces.
    pub(super) fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let (id, secret) = text.rsplit_once('=').ok_or(TokenError::Form)?;
        if !is_token_id(id) || !is_uuid(secret) {
            return Err(TokenError::Form);
        }
        let mut header =
            HeaderValue::from_str(&format!("PVEAPIToken={text}")).map_err(|_| TokenError::Form)?;
        header.set_sensitive(true);
        Ok(Self {
            id: id.to_owned(),
            header,
        })
    }

    /// The value of the header `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why a file is not taken for a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    #[error("it is no regular file")]
    Kind,
    #[error("it belongs to user {found}, not to user {wanted}: chown {wanted} {file}")]
    Owner {
        file: Utf8PathBuf,
        found: u32,
        wanted: u32,
    },
    #[error("its mode is {mode:04o}, so that others than its owner can read it: chmod 600 {file}")]
    Mode { file: Utf8PathBuf, mode: u32 },
    #[error("it holds something else than one line user@realm!name=uuid")]
    Form,
}

fn read(file: &Utf8Path, owner: Uid) -> Result<String, TokenError> {
    // Without O_NONBLOCK a FIFO would block for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = open(file.as_std_path(), flags, Mode::empty());
    let open = std::fs::File::from(open.map_err(|e| TokenError::Read(e.into()))?);
    let metadata = open.metadata().map_err(TokenError::Read)?;
    if !metadata.is_file() {
        return Err(TokenError::Kind);
    }
    if metadata.uid() != owner.as_raw() {
        return Err(TokenError::Owner {
            file: file.to_owned(),
            found: metadata.uid(),
            wanted: owner.as_raw(),
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let file = file.to_owned();
        return Err(TokenError::Mode { file, mode });
    }
    let mut text = String::new();
    match open.take(MAX_FILE + 1).read_to_string(&mut text) {
        Ok(length) if length as u64 <= MAX_FILE => Ok(text),
        Ok(_) => Err(TokenError::Form),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(TokenError::Form),
        Err(e) => Err(TokenError::Read(e)),
    }
}

/// `user@realm!name`. The user's part may hold nearly anything.
fn is_token_id(id: &str) -> bool {
    let Some((user, name)) = id.rsplit_once('!') else {
        return false;
    };
    let Some((user, realm)) = user.rsplit_once('@') else {
        return false;
    };
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, ':' | '/' | ';');
    !user.is_empty() && user.chars().all(plain) && is_name(realm) && is_name(name)
}

/// What Proxmox takes for the name of a realm or a token: at least two characters, a letter first.
fn is_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;
    use rustix::process::geteuid;

    use super::*;

    const GOOD: &str = "nexcage@pve!node=01234567-89ab-cdef-0123-456789abcdef";

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::try_from(dir.path().join("token")).unwrap();
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        (dir, file)
    }

    fn refusal(text: &str, mode: u32, owner: Uid) -> String {
        let (_dir, file) = file(text, mode);
        let error = Token::read(&file, owner).unwrap_err();
        assert!(error.to_string().contains(file.as_str()), "{error}");
        assert!(!error.is_retryable());
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(!source.contains("456789abcdef"), "{source}");
        source
    }

    #[test]
    fn a_good_file_is_taken_with_and_without_a_line_end() {
        for text in [GOOD.to_owned(), format!("{GOOD}\n")] {
            for mode in [0o600, 0o400] {
                let (_dir, file) = file(&text, mode);
                let token = Token::read(&file, geteuid()).unwrap();
                assert_eq!(
                    token.header().as_bytes(),
                    format!("PVEAPIToken={GOOD}").as_bytes()
                );
            }
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let token = Token::parse(GOOD).unwrap();
        let shown = format!("{token:?} {:?}", token.header());
        assert!(shown.contains("nexcage@pve!node"), "{shown}");
        assert!(!shown.contains("01234567"), "{shown}");
    }

    #[test]
    fn others_must_not_read_it() {
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let why = refusal(GOOD, mode, geteuid());
            assert!(why.contains(&format!("{mode:04o}")), "{why}");
            assert!(why.contains("chmod 600"), "{why}");
        }
    }

    #[test]
    fn it_must_belong_to_the_right_user() {
        let other = Uid::from_raw(geteuid().as_raw() + 1);
        let why = refusal(GOOD, 0o600, other);
        assert!(why.contains("chown"), "{why}");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "root@pam",
            "root@pam!x",
            "root@pam=01234567-89ab-cdef-0123-456789abcdef",
            "root!xy=01234567-89ab-cdef-0123-456789abcdef",
            "@pam!xy=01234567-89ab-cdef-0123-456789abcdef",
            "root@pam!xy=01234567-89ab-cdef-0123-456789abcde",
            "root@pam!xy=01234567-89ab-cdef-0123-456789abcdeg",
            "root@pam!xy=0123456789abcdef0123456789abcdef",
            "ro ot@pam!xy=01234567-89ab-cdef-0123-456789abcdef",
            "PVEAPIToken=root@pam!xy 01234567-89ab-cdef-0123-456789abcdef",
            "root@pam!xy=01234567-89ab-cdef-0123-456789abcdef\n\n",
            "root@pam!xy=01234567-89ab-cdef-0123-456789abcdef\r\n",
            " root@pam!xy=01234567-89ab-cdef-0123-456789abcdef",
        ] {
            let why = refusal(text, 0o600, geteuid());
            assert!(why.contains("user@realm!name=uuid"), "{text:?}: {why}");
        }
        let long = refusal(&"x".repeat(5000), 0o600, geteuid());
        assert!(long.contains("user@realm!name=uuid"), "{long}");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().to_owned()).unwrap();
        for file in [path.clone(), path.join("missing"), "/dev/null".into()] {
            assert!(Token::read(&file, geteuid()).is_err(), "{file}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_sent_as_it_is(text in "[a-z!@=.]{0,12}@[a-z]{1,3}![a-z]{1,3}=[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\n?") {
            if let Ok(token) = Token::parse(&text) {
                let sent = format!("PVEAPIToken={}", text.trim_end());
                let header = token.header();
                prop_assert_eq!(header.as_bytes(), sent.as_bytes());
                prop_assert!(header.is_sensitive());
            }
        }
    }
}
