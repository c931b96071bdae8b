//! Pods as containers of a simulated Proxmox node, with what only a whole node has: systemd's scopes, limits, usage, AppArmor.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use camino::Utf8Path;
use nexcage_lxc::{ApiClient, ApiOptions, Pve as _};
use nexcage_tests::{Place, Proxmox, process, spec};
use serde_json::{Value, json};

use crate::node::PATIENCE;
use crate::{Node, critest, settings};

const MIB: u64 = 1 << 20;

/// What the container of the test takes.
const TAKEN: u64 = 200 * MIB;

#[test]
fn proxmox_and_kubernetes_see_the_same_usage() {
    for start in ["direct", "api"] {
        Node::test(|node| with(node, start, |proxmox| usage(node, proxmox)));
    }
}

/// A container that takes 200 MiB of anonymous memory and one CPU.
fn usage(node: &Node, proxmox: &Proxmox) -> anyhow::Result<()> {
    let pod = node.run_pod_with("hungry", |config| {
        config["linux"]["resources"] =
            json!({ "memory_limit_in_bytes": 512 * MIB, "cpu_quota": 150_000, "cpu_period": 100_000 });
    })?;
    let command = format!("exec dd if=/dev/zero of=/dev/null bs={TAKEN}");
    node.start(&pod, &spec::shell("hungry", &command))?;
    let inspected = node.crictl().json(&["inspectp", &pod.id])?;
    let vmid = inspected["info"]["container"].as_str();
    let vmid: u32 = vmid
        .and_then(|vmid| vmid.parse().ok())
        .with_context(|| format!("no VMID in {}", inspected["info"]))?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (first, shown) = runtime.block_on(async {
        let api = ApiClient::new(ApiOptions {
            url: proxmox.api_url().parse()?,
            ca_file: proxmox.ca_file(),
            token_file: proxmox.token_file(),
            node: "pve1".to_owned(),
        })?;
        // The use of CPUs is measured between two questions.
        let first = api.status(vmid).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        anyhow::Ok((first, api.status(vmid).await?))
    })?;
    ensure!(first.running && shown.running, "Proxmox shows it stopped");
    let near = |bytes: u64| (TAKEN..TAKEN + 40 * MIB).contains(&bytes);
    ensure!(near(shown.memory_bytes), "Proxmox shows {shown:?}");
    ensure!(
        shown.max_memory_bytes == 512 * MIB,
        "Proxmox shows {shown:?}"
    );
    let cpus = shown.cpu;
    ensure!(
        (0.7..1.2).contains(&cpus),
        "Proxmox shows {cpus} CPUs: {shown:?}"
    );

    let stats = node
        .crictl()
        .json(&["statsp", "-o", "json", "--id", &pod.id])?;
    let linux = &stats["stats"][0]["linux"];
    let number = |value: &Value| value["value"].as_str().and_then(|v| v.parse::<u64>().ok());
    let working_set = number(&linux["memory"]["workingSetBytes"])
        .with_context(|| format!("no memory in {stats}"))?;
    ensure!(near(working_set), "kubelet sees {working_set} bytes");
    let cores = number(&linux["cpu"]["usageCoreNanoSeconds"]).context("no CPU time")?;
    ensure!(cores > 5_000_000_000, "kubelet sees {cores} ns of CPU");
    Ok(())
}

/// The same results as with plain LXC. Takes as long as all that comes before.
#[test]
#[ignore = "cargo xtask test node --full"]
fn critest_ends_as_expected_started_directly() {
    Node::test(|node| with(node, "direct", |_| critest::play("proxmox-direct")));
}

#[test]
#[ignore = "cargo xtask test node --full"]
fn critest_ends_as_expected_started_by_proxmox() {
    Node::test(|node| with(node, "api", |_| critest::play("proxmox-api")));
}

/// Makes the node a Proxmox node whose pods are its containers, does the work, and takes everything back.
fn with(
    node: &Node,
    start: &str,
    work: impl FnOnce(&Proxmox) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let package = install_package()?;
    give_ids_to_root()?;
    let proxmox = Proxmox::start_in(Place {
        directory: "/var/lib/proxmox-sim".into(),
        mount: "/etc/pve".into(),
        lxc_path: "/var/lib/lxc".into(),
    })?;
    let sections = proxmox.config(start)?;
    let done = settings::with(
        node,
        |config| {
            for (key, value) in sections.as_object().into_iter().flatten() {
                config[key] = value.clone();
            }
        },
        || {
            node.pull()?;
            work(&proxmox)
        },
    );
    drop(proxmox);
    fs::remove_dir_all("/var/lib/proxmox-sim").context("cannot remove the simulator's files")?;
    process::run("dpkg", &["--purge", package], PATIENCE)?.success()?;
    done
}

/// The package by whose version nexcage knows what Proxmox can do. Gives its name.
fn install_package() -> anyhow::Result<&'static str> {
    const NAME: &str = "pve-container";
    let tree = Utf8Path::new("/run/pve-container");
    let control = "Package: pve-container\nVersion: 6.1.10\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n\
        Description: stands for the simulator\n";
    fs::create_dir_all(tree.join("DEBIAN"))
        .and_then(|()| fs::write(tree.join("DEBIAN/control"), control))
        .with_context(|| format!("cannot write {tree}"))?;
    let file = "/run/pve-container.deb";
    process::run("dpkg-deb", &["--build", tree.as_str(), file], PATIENCE)?.success()?;
    process::run("dpkg", &["--install", file], PATIENCE)?.success()?;
    Ok(NAME)
}

/// As lxc-pve does: started by Proxmox, LXC maps ids by newuidmap.
fn give_ids_to_root() -> anyhow::Result<()> {
    for file in [Path::new("/etc/subuid"), Path::new("/etc/subgid")] {
        let text = fs::read_to_string(file).unwrap_or_default();
        if !text.lines().any(|line| line.starts_with("root:")) {
            fs::write(file, format!("{text}root:100000:65536\n"))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}
