//! How a container ended.

use std::io;

use camino::Utf8PathBuf;

use crate::error::OciError;
use crate::lifecycle::remove_tree;
use crate::{OciRuntime, scratch};

/// What conmon left when the container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// Exit code; 128 and the signal's number if a signal ended it.
    pub exit_code: i32,
    /// When.
    pub finished_at: jiff::Timestamp,
    /// The kernel killed one of its processes for lack of memory.
    pub oom_killed: bool,
}

impl OciRuntime {
    /// How the container ended; `None` while it runs, or when its conmon was killed. One small file is read from
    /// tmpfs: quick enough for an async thread.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the file is not conmon's, `InvalidInput` for an id that cannot be.
    pub fn exit_record(&self, id: &str) -> io::Result<Option<ExitRecord>> {
        let files = self
            .files(id)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let text = match std::fs::read_to_string(&files.exit) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(exit_code) = exit_code(&text).map_err(|e| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", files.exit))
        })?
        else {
            return Ok(None);
        };
        let finished_at = jiff::Timestamp::try_from(files.exit.metadata()?.modified()?)
            .map_err(io::Error::other)?;
        Ok(Some(ExitRecord {
            exit_code,
            finished_at,
            oom_killed: files.oom.try_exists()?,
        }))
    }

    /// Removes what `exit_record` reads and all else that conmon left. To be called after `delete`. `Ok` when there is
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`OciError::File`].
    pub async fn forget(&self, id: &str) -> Result<(), OciError> {
        let files = self.files(id)?;
        let mut doomed = vec![files.exit.clone(), files.socket_link.clone()];
        doomed.extend(
            self.unfinished_exits(id)
                .await
                .map_err(|source| OciError::File {
                    id: id.to_owned(),
                    path: self.options.exit_dir.clone(),
                    source,
                })?,
        );
        for path in doomed {
            match tokio::fs::remove_file(&path).await {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(OciError::File {
                        id: id.to_owned(),
                        path,
                        source,
                    });
                }
                _ => {}
            }
        }
        scratch::sweep(&files.monitor)
            .await
            .map_err(|source| OciError::File {
                id: id.to_owned(),
                path: files.monitor.clone(),
                source,
            })?;
        // Last, because it is what makes `list` name the container.
        remove_tree(id, &files.monitor).await?;
        nexcage_failpoint::hit("oci.forgotten");
        Ok(())
    }

    /// Exit files that conmon was writing when it was killed: `<id>.` and six letters or digits.
    async fn unfinished_exits(&self, id: &str) -> io::Result<Vec<Utf8PathBuf>> {
        let directory = &self.options.exit_dir;
        let mut entries = match tokio::fs::read_dir(directory).await {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut found = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name
                .strip_prefix(id)
                .is_some_and(|rest| rest.starts_with('.'))
            {
                found.push(directory.join(&*name));
            }
        }
        Ok(found)
    }
}

/// The number in an exit file; `None` while it is still empty.
fn exit_code(text: &str) -> Result<Option<i32>, std::num::ParseIntError> {
    match text.trim() {
        "" => Ok(None),
        number => number.parse().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::options;
    use proptest::prelude::*;

    fn runtime(dir: &tempfile::TempDir) -> OciRuntime {
        let dir = camino::Utf8Path::from_path(dir.path()).unwrap();
        let mut options = options();
        options.exit_dir = dir.join("exits");
        options.monitor_dir = dir.join("m");
        std::fs::create_dir_all(options.exit_dir.as_std_path()).unwrap();
        std::fs::create_dir_all(options.monitor_dir.join("c1").as_std_path()).unwrap();
        OciRuntime::new(options)
    }

    #[test]
    fn a_record_is_code_time_and_oom_mark() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = runtime(&dir);
        assert_eq!(runtime.exit_record("c1").unwrap(), None);

        let before = jiff::Timestamp::now();
        std::fs::write(dir.path().join("exits/c1"), "137").unwrap();
        let record = runtime.exit_record("c1").unwrap().unwrap();
        assert_eq!((record.exit_code, record.oom_killed), (137, false));
        // File times come from the kernel's coarse clock, a few milliseconds behind.
        assert!(record.finished_at.duration_since(before).as_secs().abs() <= 1);

        std::fs::write(dir.path().join("m/c1/oom"), "").unwrap();
        assert!(runtime.exit_record("c1").unwrap().unwrap().oom_killed);
    }

    #[test]
    fn an_empty_file_is_no_record_and_another_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = runtime(&dir);
        std::fs::write(dir.path().join("exits/c1"), "").unwrap();
        assert_eq!(runtime.exit_record("c1").unwrap(), None);
        std::fs::write(dir.path().join("exits/c1"), "soon").unwrap();
        let e = runtime.exit_record("c1").unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn forgetting_twice_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = runtime(&dir);
        for file in ["exits/c1", "exits/c1.X3ab2Z", "exits/c12"] {
            std::fs::write(dir.path().join(file), "0").unwrap();
        }
        assert_eq!(runtime.list().await.unwrap(), ["c1"]);
        runtime.forget("c1").await.unwrap();
        runtime.forget("c1").await.unwrap();
        assert_eq!(runtime.exit_record("c1").unwrap(), None);
        assert!(runtime.list().await.unwrap().is_empty());
        let left = std::fs::read_dir(dir.path().join("exits")).unwrap();
        let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["c12"]);
    }

    proptest! {
        #[test]
        fn every_number_is_read(code in any::<i32>()) {
            prop_assert_eq!(exit_code(&format!("{code}\n")), Ok(Some(code)));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = exit_code(&text);
        }
    }
}
