//! conmon's command line.

use camino::Utf8Path;

use crate::create::CreateContainer;
use crate::files::Files;
use crate::options::OciRuntimeOptions;
use crate::runtime::global_args;

/// Arguments of conmon for a container. `runtime` is crun, or what runs it with the arguments that come first.
pub(crate) fn arguments(
    options: &OciRuntimeOptions,
    files: &Files,
    container: &CreateContainer,
    runtime: &Utf8Path,
    runtime_args: &[String],
) -> Vec<String> {
    let CreateContainer { id, bundle, .. } = container;
    let mut args = vec![
        // Answers with "data" on the sync pipe.
        "--api-version".to_owned(),
        format!("--cid={id}"),
        format!("--cuuid={id}"),
        format!("--runtime={runtime}"),
    ];
    let global = global_args(options);
    args.extend(
        runtime_args
            .iter()
            .chain(&global)
            .map(|arg| format!("--runtime-arg={arg}")),
    );
    args.extend([
        format!("--bundle={bundle}"),
        format!("--persist-dir={}", files.monitor),
        format!("--exit-dir={}", options.exit_dir),
        format!("--socket-dir-path={}", files.sockets),
        format!("--conmon-pidfile={}", files.conmon_pid),
        format!("--container-pidfile={}", files.container_pid),
        format!("--log-path=k8s-file:{}", container.log_path),
        // Waiting for the disk would hold up the exit file.
        "--no-sync-log".to_owned(),
    ]);
    if container.terminal {
        args.push("--terminal".to_owned());
    }
    if container.stdin {
        args.push("--stdin".to_owned());
        if !container.stdin_once {
            args.push("--leave-stdin-open".to_owned());
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::CgroupManager;
    use crate::testing::options;

    fn container() -> CreateContainer {
        CreateContainer {
            id: "c0ffee".to_owned(),
            bundle: "/run/nexcage/bundles/c0ffee".into(),
            log_path: "/var/log/pods/default_web_1234/app/0.log".into(),
            terminal: false,
            stdin: false,
            stdin_once: false,
            monitor_cgroup: None,
            container_cgroup: "/sys/fs/cgroup/pod/ct/c0ffee".into(),
        }
    }

    fn lines(
        options: &OciRuntimeOptions,
        container: &CreateContainer,
        before: &[String],
    ) -> String {
        let files = Files::of(options, &container.id).unwrap();
        let program = match before {
            [] => options.crun.path(),
            _ => Utf8Path::new("/usr/bin/unshare"),
        };
        arguments(options, &files, container, program, before).join("\n")
    }

    #[test]
    fn plain() {
        insta::assert_snapshot!(lines(&options(), &container(), &[]));
    }

    #[test]
    fn terminal_and_stdin() {
        let mut container = container();
        container.terminal = true;
        container.stdin = true;
        insta::assert_snapshot!(lines(&options(), &container, &[]));
    }

    #[test]
    fn stdin_of_one_client() {
        let mut container = container();
        container.stdin = true;
        container.stdin_once = true;
        insta::assert_snapshot!(lines(&options(), &container, &[]));
    }

    #[test]
    fn hybrid_host() {
        let mut options = options();
        options.cgroup_manager = CgroupManager::Disabled;
        let before = [
            "--mount".to_owned(),
            "--".to_owned(),
            "/bin/crun".to_owned(),
        ];
        insta::assert_snapshot!(lines(&options, &container(), &before));
    }
}
