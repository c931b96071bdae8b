//! What LXC calls at moments in a container's life.

use std::ffi::OsString;
use std::process::ExitCode;

use camino::Utf8PathBuf;

/// `hook post-stop <cgroup> <include>`, and whatever LXC adds to it: the container's name, `lxc` and the hook's name.
pub(super) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Option<Vec<String>> = args.take(3).map(|word| word.into_string().ok()).collect();
    let words = words.unwrap_or_default();
    let [kind, cgroup, include] = words.as_slice() else {
        return usage();
    };
    if kind != "post-stop" {
        return usage();
    }
    let (cgroup, include) = (Utf8PathBuf::from(cgroup), Utf8PathBuf::from(include));
    match nexcage_lxc::post_stop(&cgroup, &include) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hook post-stop {cgroup} {include}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: hook post-stop <cgroup> <include>");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(words: &[&str]) -> ExitCode {
        run(words.iter().map(|word| OsString::from(*word)))
    }

    #[test]
    fn the_words_that_lxc_adds_change_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let include = temp.path().join("900000.conf");
        std::fs::write(&include, "").unwrap();
        let words = [
            "post-stop",
            "/sys/fs/cgroup/nxt-no-such-pod/ct",
            include.to_str().unwrap(),
            "900000",
            "lxc",
            "post-stop",
        ];
        assert_eq!(called(&words), ExitCode::SUCCESS);
        assert!(!include.exists());
        assert_eq!(called(&words), ExitCode::SUCCESS);
    }

    #[test]
    fn what_is_no_hook_is_refused() {
        for words in [
            &[][..],
            &["post-stop"],
            &["post-stop", "/c"],
            &["pre-start", "/c", "/i"],
        ] {
            assert_eq!(called(words), ExitCode::from(2));
        }
    }
}
