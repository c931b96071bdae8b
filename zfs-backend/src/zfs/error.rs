//! What OpenZFS's programs mean by their messages.

use std::io;

use nexcage_command::{CommandError, ProgramError};

/// A program of OpenZFS could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ZfsError {
    /// Not installed.
    #[error(transparent)]
    Missing(#[from] ProgramError),
    /// It said no, or did not answer in time.
    #[error(transparent)]
    Refused(CommandError),
    /// It wrote what this crate does not understand.
    #[error("`{command}` wrote {line:?}, which is not what was asked for")]
    Output {
        /// The command line.
        command: String,
        /// The line.
        line: String,
    },
    /// The fake's refusal.
    #[cfg(test)]
    #[error("{0:?}: {1}")]
    Fake(Refusal, String),
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such dataset, snapshot or pool.
    NotFound,
    /// There is one of that name.
    Exists,
    /// Mounted somewhere, or held.
    Busy,
    /// Something was cloned from it.
    Clones,
    /// It has snapshots, or datasets below it.
    Children,
    /// There are later snapshots.
    Newer,
    /// The pool or a quota is full.
    NoSpace,
    /// The pool is imported read-only.
    ReadOnly,
    /// The pool lost its devices.
    Suspended,
    /// A property does not exist or cannot have that value.
    Property,
    /// The kernel has no OpenZFS.
    NoModule,
    /// The program did not end in time.
    Deadline,
    /// Something else.
    Other,
}

/// Parts of messages of libzfs (`lib/libzfs/libzfs_util.c`, `libzfs_dataset.c`, `cmd/zfs/zfs_main.c`), by
/// what they mean. The first that is found counts.
const MESSAGES: &[(&str, Refusal)] = &[
    ("dependent clones", Refusal::Clones),
    ("is cloned", Refusal::Clones),
    ("has children", Refusal::Children),
    ("more recent snapshots", Refusal::Newer),
    ("does not exist", Refusal::NotFound),
    ("no such pool", Refusal::NotFound),
    ("could not find any snapshots", Refusal::NotFound),
    ("already exists", Refusal::Exists),
    ("snapshot name", Refusal::Exists),
    ("suspended", Refusal::Suspended),
    ("read-only", Refusal::ReadOnly),
    ("read only", Refusal::ReadOnly),
    ("out of space", Refusal::NoSpace),
    ("No space left", Refusal::NoSpace),
    ("quota exceeded", Refusal::NoSpace),
    ("busy", Refusal::Busy),
    ("modules are not loaded", Refusal::NoModule),
    ("/dev/zfs", Refusal::NoModule),
    ("bad property", Refusal::Property),
    ("invalid property", Refusal::Property),
    ("must be", Refusal::Property),
    ("bad numeric value", Refusal::Property),
    ("too small", Refusal::Property),
    ("too large", Refusal::Property),
    ("size is greater", Refusal::Property),
    ("feature must be", Refusal::Property),
];

impl ZfsError {
    /// What it means.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(CommandError::Deadline { .. }) => Refusal::Deadline,
            Self::Refused(e) => e.stderr().map_or(Refusal::Other, meaning),
            Self::Missing(_) => Refusal::NoModule,
            Self::Output { .. } => Refusal::Other,
            #[cfg(test)]
            Self::Fake(refusal, _) => *refusal,
        }
    }

    /// Whether it is `refusal`.
    pub(crate) fn is(&self, refusal: Refusal) -> bool {
        self.refusal() == refusal
    }
}

fn meaning(stderr: &str) -> Refusal {
    let found = MESSAGES.iter().find(|(part, _)| stderr.contains(part));
    found.map_or(Refusal::Other, |(_, refusal)| *refusal)
}

impl From<ZfsError> for io::Error {
    fn from(e: ZfsError) -> Self {
        let kind = match e.refusal() {
            Refusal::NotFound => io::ErrorKind::NotFound,
            Refusal::Exists => io::ErrorKind::AlreadyExists,
            Refusal::Busy | Refusal::Clones | Refusal::Suspended => io::ErrorKind::ResourceBusy,
            Refusal::Children => io::ErrorKind::DirectoryNotEmpty,
            Refusal::NoSpace => io::ErrorKind::StorageFull,
            Refusal::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            Refusal::Property => io::ErrorKind::InvalidInput,
            Refusal::NoModule => io::ErrorKind::Unsupported,
            Refusal::Deadline => io::ErrorKind::TimedOut,
            Refusal::Newer | Refusal::Other => io::ErrorKind::Other,
        };
        io::Error::new(kind, e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood() {
        for (said, meant) in [
            (
                "cannot open 'tank/x': dataset does not exist",
                Refusal::NotFound,
            ),
            (
                "cannot open 'tank/x': no such pool 'tank'",
                Refusal::NotFound,
            ),
            (
                "could not find any snapshots to destroy; check snapshot names.",
                Refusal::NotFound,
            ),
            (
                "cannot create 'tank/x': dataset already exists",
                Refusal::Exists,
            ),
            ("cannot destroy 'tank/x': dataset is busy", Refusal::Busy),
            (
                "cannot unmount '/x': pool or dataset is busy",
                Refusal::Busy,
            ),
            (
                "cannot destroy 'tank/x@s': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\ntank/y",
                Refusal::Clones,
            ),
            (
                "cannot destroy snapshot tank/x@s: snapshot is cloned",
                Refusal::Clones,
            ),
            (
                "cannot destroy 'tank/x': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\ntank/y",
                Refusal::Clones,
            ),
            (
                "cannot destroy 'tank/x': filesystem has children\nuse '-r' to destroy the following datasets:\ntank/x@s",
                Refusal::Children,
            ),
            (
                "cannot rollback to 'tank/x@s': more recent snapshots or bookmarks exist\nuse '-r' to force deletion of the following snapshots and bookmarks:\ntank/x@t",
                Refusal::Newer,
            ),
            ("cannot create 'tank/x': out of space", Refusal::NoSpace),
            (
                "cannot create 'tank/x': pool is read-only",
                Refusal::ReadOnly,
            ),
            (
                "cannot open 'tank': pool I/O is currently suspended",
                Refusal::Suspended,
            ),
            (
                "cannot create 'tank/x': 'recordsize' must be power of 2 from 512B to 16M",
                Refusal::Property,
            ),
            (
                "cannot set property for 'tank/x': invalid property 'recordsze'",
                Refusal::Property,
            ),
            ("The ZFS modules are not loaded.", Refusal::NoModule),
            ("internal error: out of memory", Refusal::Other),
        ] {
            assert_eq!(meaning(said), meant, "{said}");
        }
    }
}
