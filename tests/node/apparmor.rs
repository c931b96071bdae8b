//! Containers under the AppArmor profile `nexcage-default`, and pods' LXC containers under theirs: what the first forbids, what it must
//! not, and what happens without either.

use std::fs;

use anyhow::{Context as _, ensure};
use nexcage_tests::{Pod, spec, wait};
use serde_json::{Value, json};

use crate::Node;
use crate::node::{PATIENCE, label_of};

const PROFILE: &str = "nexcage-default";
const PROFILE_OF_PODS: &str = "lxc-container-nexcage";
const PARSER: &str = "/usr/sbin/apparmor_parser";

/// What AppArmor alone keeps a container from that has `SYS_ADMIN` and no path in `/proc` masked; a line for each that worked.
const ATTEMPTS: &str = "for file in /proc/sys/kernel/shmmni /proc/sysrq-trigger; do \
                          cat $file >/tmp/old 2>/dev/null; \
                          if cat /tmp/old 2>/dev/null >$file; then echo wrote $file; fi; \
                        done; \
                        mkdir -p /mnt/x; mount -t tmpfs x /mnt/x && echo mounted; \
                        echo 5 >/proc/self/oom_score_adj && echo wrote its own; \
                        echo tried; sleep 1000";

/// A container with capabilities that would allow what the profile forbids. `profile`: 0 is `RuntimeDefault`, 1 `Unconfined`.
fn capable(name: &str, profile: u32) -> Value {
    let mut config = spec::shell(name, ATTEMPTS);
    let security = &mut config["linux"]["security_context"];
    security["capabilities"] = json!({ "add_capabilities": ["SYS_ADMIN"] });
    security["apparmor"] = json!({ "profile_type": profile });
    config
}

/// What a container has said, when it has said `word`.
fn said(node: &Node, pod: &Pod, config: &Value, word: &str) -> anyhow::Result<String> {
    let container = node.start(pod, config)?;
    let log = || node.crictl().run(&["logs", &container]);
    wait::until_true("the container has tried", PATIENCE, || {
        Ok(log()?.contains(word))
    })?;
    log()
}

#[test]
fn the_profile_forbids_what_capabilities_allow() {
    Node::test(|node| {
        let pod = node.run_pod("capable")?;
        let confined = said(node, &pod, &capable("confined", 0), "tried")?;
        ensure!(
            !confined.contains("wrote /proc") && !confined.contains("mounted"),
            "not forbidden: {confined}"
        );
        ensure!(confined.contains("wrote its own"), "too strict: {confined}");
        // Otherwise something else than the profile forbids it.
        let unconfined = said(node, &pod, &capable("unconfined", 1), "tried")?;
        ensure!(
            unconfined.contains("wrote /proc/sys") && unconfined.contains("mounted"),
            "forbidden without the profile, too: {unconfined}"
        );
        Ok(())
    });
}

/// crun stacks the profile on its own for them, and they get a name that is not the profile's.
#[test]
fn processes_with_no_new_privs_signal_and_see_each_other() {
    Node::test(|node| {
        let pod = node.run_pod("no-new-privs")?;
        let script = "sleep 1000 & kill -9 $!; wait $!; echo child $?; \
                      readlink /proc/1/exe; trap 'exit 3' TERM; echo done; \
                      while true; do sleep 1; done";
        let mut config = spec::shell("shell", script);
        config["linux"]["security_context"]["no_new_privs"] = true.into();
        let container = node.start(&pod, &config)?;
        let log = || node.crictl().run(&["logs", &container]);
        wait::until_true("the script has run", PATIENCE, || {
            Ok(log()?.contains("done"))
        })?;
        let log = log()?;
        ensure!(
            log.contains("child 137") && log.contains("/bin/"),
            "a process may not signal or see another: {log}"
        );
        let label = label_of(node.pid(&container)?)?;
        ensure!(label.contains(PROFILE), "it is not confined: {label}");

        // From an exec, and from crun.
        let signal = ["exec", "--sync", &container, "kill", "-0", "1"];
        node.crictl().run(&signal)?;
        let stop = ["stop", "--timeout", "30", &container];
        node.crictl().run(&stop)?;
        let status = node.status(&container)?;
        ensure!(
            status["exitCode"] == 3,
            "it was not asked to end, but killed: {status}"
        );
        Ok(())
    });
}

#[test]
fn a_profile_that_was_removed_is_loaded_again() {
    Node::test(|node| {
        unload(PROFILE_OF_PODS)?;
        let pod = node.run_pod("removed")?;
        let label = label_of(node.init(&pod)?)?;
        ensure!(
            label == format!("{PROFILE_OF_PODS} (enforce)"),
            "the pod is not confined: {label}"
        );
        unload(PROFILE)?;
        let container = node.start(&pod, &spec::shell("shell", "sleep 1000"))?;
        let label = label_of(node.pid(&container)?)?;
        ensure!(label.starts_with(PROFILE), "it is not confined: {label}");
        Ok(())
    });
}

#[test]
fn nothing_is_started_unconfined_instead() {
    Node::test(|node| {
        let pod = node.run_pod("unparsed")?;
        let hidden = format!("{PARSER}.hidden");
        fs::rename(PARSER, &hidden).context("cannot hide the parser")?;
        let refused = without_a_parser(node, &pod);
        fs::rename(&hidden, PARSER).context("cannot bring back the parser")?;
        refused?;
        let later = node.run_pod("later")?;
        node.start(&later, &spec::shell("later", "sleep 1000"))
            .map(drop)
    });
}

fn without_a_parser(node: &Node, pod: &Pod) -> anyhow::Result<()> {
    unload(PROFILE)?;
    is_refused(node.start(pod, &spec::shell("shell", "sleep 1000")))?;
    unload(PROFILE_OF_PODS)?;
    is_refused(node.run_pod("unconfined").map(|pod| pod.id))?;
    let info = node.crictl().json(&["info"])?;
    let conditions = info["status"]["conditions"].to_string();
    ensure!(
        conditions.contains("AppArmorNotReady"),
        "the status does not tell: {conditions}"
    );
    // Whoever asks to be unconfined needs no profile.
    let mut config = spec::shell("unconfined", "sleep 1000");
    config["linux"]["security_context"]["apparmor"] = json!({ "profile_type": 1 });
    node.start(pod, &config).map(drop)
}

fn is_refused(started: anyhow::Result<String>) -> anyhow::Result<()> {
    let error = match started {
        Ok(id) => anyhow::bail!("{id} was started"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(
        error.contains("apparmor_parser is not installed"),
        "the reason is not named: {error}"
    );
    Ok(())
}

/// As `aa-remove-unknown` does with profiles that have no file.
fn unload(profile: &str) -> anyhow::Result<()> {
    fs::write("/sys/kernel/security/apparmor/.remove", profile)
        .with_context(|| format!("cannot unload the profile {profile}"))
}
