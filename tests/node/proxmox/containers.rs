//! Containers of a pod come and go, and Proxmox's container of it stays.

use std::fs;

use anyhow::{Context as _, ensure};
use camino::Utf8Path;
use nexcage_tests::{process, spec};

use super::site::{Ct, Site};

/// One that prepares, two at a time, one that is restarted.
pub(super) fn come_and_go(site: &Site<'_>) -> anyhow::Result<()> {
    let node = site.node;
    let pod = node.run_pod("several")?;
    let ct = site.ct(&pod)?;
    let stays = |when: &str| {
        let now = site.ct(&pod)?;
        ensure!(now == ct, "{when} {ct:?} became {now:?}");
        anyhow::Ok(())
    };
    let init = node.start(&pod, &spec::shell("init", "echo prepared"))?;
    let code = site.exits(&init)?;
    ensure!(code == 0, "the init container exited with {code}");
    stays("after the init container")?;

    let first = node.start(&pod, &spec::shell("first", spec::COUNT))?;
    let mut config = spec::shell("second", spec::COUNT);
    let second = node.start(&pod, &config)?;
    let [first_pid, second_pid] = [node.pid(&first)?, node.pid(&second)?];
    for (container, pid) in [(&first, first_pid), (&second, second_pid)] {
        is_counted(&ct, container, pid)?;
    }
    stays("with two containers")?;

    process::kill(second_pid);
    let code = site.exits(&second)?;
    ensure!(
        code == 137,
        "a container that was killed exited with {code}"
    );
    // As kubelet restarts it.
    config["metadata"]["attempt"] = 1.into();
    let again = node.start(&pod, &config)?;
    is_counted(&ct, &again, node.pid(&again)?)?;
    node.crictl().run(&["rm", &second])?;
    stays("after a restart")?;
    ensure!(
        process::runs(first_pid) && node.pid(&first)? == first_pid,
        "the other container was restarted, too"
    );
    site.pct_lists(&[(ct.vmid, "several")])
}

/// What a container uses is the pod's use to Proxmox, since its cgroup is in that of Proxmox's container.
fn is_counted(ct: &Ct, container: &str, pid: i32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let cgroup = text.trim().strip_prefix("0::/").unwrap_or_default();
    let expected = ct.cgroup.join(container);
    ensure!(
        Utf8Path::new("/sys/fs/cgroup").join(cgroup) == expected,
        "{container} is in {cgroup}, not in {expected}"
    );
    Ok(())
}
