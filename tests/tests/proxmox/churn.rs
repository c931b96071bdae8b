//! Pods come and go while an administrator plays with them.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use crate::Node;

/// Pods in all, and at one time.
const PODS: u32 = 100;
const AT_ONCE: u32 = 4;

#[test]
fn nothing_is_left_of_pods_whose_containers_are_stopped_and_destroyed_at_random() {
    Node::test("direct", |node| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let admin = scope.spawn(|| play(node, &done));
            let made = (0..PODS / AT_ONCE).try_for_each(|round| come_and_go(node, round));
            done.store(true, Ordering::Relaxed);
            let played = admin.join().ok().context("the administrator panicked")?;
            made.and(played)
        })
    });
}

/// Some pods at one time. Whatever is done to them, they can be removed.
fn come_and_go(node: &Node<'_>, round: u32) -> anyhow::Result<()> {
    let names: Vec<_> = (0..AT_ONCE).map(|i| format!("churn-{round}-{i}")).collect();
    std::thread::scope(|scope| {
        let pods = names.iter().map(|name| {
            scope.spawn(move || {
                // It may be stopped before it is there.
                let Ok(pod) = node.machine.run_pod(name) else {
                    return Ok(());
                };
                let _ = node.machine.start(
                    &pod,
                    &nexcage_tests::spec::shell("counter", nexcage_tests::spec::COUNT),
                );
                let removed = node.machine.crictl().run(&["rmp", "--force", &pod.id]);
                removed.map(drop)
            })
        });
        let pods: Vec<_> = pods.collect();
        pods.into_iter().try_for_each(|pod| {
            let ended = pod.join().ok().context("a pod's thread panicked")?;
            ended.with_context(|| format!("round {round}"))
        })
    })
}

/// Stops or destroys containers of pods, one after the other, until there are no more pods.
fn play(node: &Node<'_>, done: &AtomicBool) -> anyhow::Result<()> {
    let ours = node.proxmox.first()..node.proxmox.first() + 100;
    while !done.load(Ordering::Relaxed) {
        let numbers = node.proxmox.numbers()?;
        let of_pods: Vec<_> = numbers
            .into_iter()
            .filter(|vmid| ours.contains(vmid) && *vmid != node.proxmox.first() + 3)
            .collect();
        let Some(vmid) = of_pods.first().map(ToString::to_string) else {
            std::thread::yield_now();
            continue;
        };
        // Any of it may come too late.
        if rand::random() {
            node.proxmox.try_pct(&["stop", &vmid])?;
        } else {
            node.proxmox.try_pct(&["set", &vmid, "--protection", "0"])?;
            node.proxmox.try_pct(&["destroy", &vmid, "--force"])?;
        }
    }
    Ok(())
}
