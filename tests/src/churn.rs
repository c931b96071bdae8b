//! Pods come and go on a Proxmox node, while a script plays an administrator who stops and destroys their containers at random.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{Crictl, Machine, Pod, Proxmox, spec, wait};

/// Pods at one time.
const AT_ONCE: u32 = 4;

/// The administrator's pause between two deeds is shorter than this many milliseconds.
const PAUSE: u64 = 400;

/// Seconds that the administrator may work on one container, on an emulated machine.
const PATIENCE: u64 = 120;

/// What the daemon says when somebody works on a container.
const LOCKED: &str = "has been locked by somebody else";

/// Whatever runs pods.
pub trait Pods: Sync {
    /// crictl for its daemon.
    fn crictl(&self) -> &Crictl;

    /// Runs a pod with a network of its own.
    ///
    /// # Errors
    ///
    /// If it does not run.
    fn run_pod(&self, name: &str) -> anyhow::Result<Pod>;

    /// Creates and starts a container in a pod and gives its id.
    ///
    /// # Errors
    ///
    /// If it does not start.
    fn start(&self, pod: &Pod, config: &Value) -> anyhow::Result<String>;
}

impl Pods for Machine {
    fn crictl(&self) -> &Crictl {
        self.crictl()
    }

    fn run_pod(&self, name: &str) -> anyhow::Result<Pod> {
        self.run_pod(name)
    }

    fn start(&self, pod: &Pod, config: &Value) -> anyhow::Result<String> {
        self.start(pod, config)
    }
}

/// What became of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lives {
    /// Their container ran a command.
    ran: usize,
    /// Why others did not come so far.
    cut_short: Vec<String>,
}

/// What the administrator did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Deeds {
    /// Containers chosen, whether or not anything could be done to them.
    tried: usize,
    stopped: usize,
    destroyed: usize,
}

/// Makes and removes `count` pods, some at a time, beside the administrator, who leaves `foreign` containers alone. Says why pods were
/// cut short.
///
/// # Errors
///
/// If a pod cannot be removed, or more of them failed than the administrator has laid hands on, or he came too late for all.
pub fn play(
    pods: &impl Pods,
    proxmox: &Proxmox,
    foreign: &[u32],
    count: u32,
) -> anyhow::Result<Vec<String>> {
    let (going_on, over) = mpsc::channel::<()>();
    let (lives, deeds) = std::thread::scope(|scope| {
        let admin = scope.spawn(move || administer(proxmox, foreign, &over));
        let lives = come_and_go(pods, count);
        drop(going_on);
        let deeds = admin.join().ok().context("the administrator panicked")?;
        anyhow::Ok((lives?, deeds?))
    })?;
    let (ran, cut_short) = (lives.ran, lives.cut_short.len());
    println!("{count} pods: {ran} ran, {cut_short} were cut short, by {deeds:?}");
    ensure!(ran > 0, "no pod ran:\n{}", lives.cut_short.join("\n"));
    ensure!(
        cut_short <= deeds.tried,
        "{cut_short} pods failed, {deeds:?}:\n{}",
        lives.cut_short.join("\n")
    );
    ensure!(
        deeds.stopped > 0 && deeds.destroyed > 0,
        "the administrator did little: {deeds:?}"
    );
    Ok(lives.cut_short)
}

/// Lets some pods at a time live, until there were `count`.
fn come_and_go(pods: &impl Pods, count: u32) -> anyhow::Result<Lives> {
    let next = AtomicU32::new(0);
    let some = || -> anyhow::Result<Lives> {
        let mut lives = Lives::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(lives);
            }
            match live(pods, number).with_context(|| format!("pod {number}"))? {
                Ok(()) => lives.ran += 1,
                Err(error) => lives.cut_short.push(format!("pod {number}: {error:#}")),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(some)).collect();
        threads
            .into_iter()
            .try_fold(Lives::default(), |sum, thread| {
                let lives = thread.join().ok().context("a pod's thread panicked")??;
                Ok(Lives {
                    ran: sum.ran + lives.ran,
                    cut_short: [sum.cut_short, lives.cut_short].concat(),
                })
            })
    })
}

/// One pod's life, and why its container could not run a command. Whatever is done to it, it can be removed.
fn live(pods: &impl Pods, number: u32) -> anyhow::Result<anyhow::Result<()>> {
    let name = format!("churn-{number}");
    let pod = match pods.run_pod(&name) {
        Ok(pod) => pod,
        Err(error) => return Ok(Err(error)),
    };
    let crictl = pods.crictl();
    let container = pods.start(&pod, &spec::shell(&name, spec::COUNT));
    let ran = container.and_then(|id| crictl.run(&["exec", "--sync", &id, "true"]));
    remove(crictl, &pod)?;
    Ok(ran.map(drop))
}

/// Removes a pod; again, as kubelet does, if the administrator has worked on its container for longer than the daemon waits.
fn remove(crictl: &Crictl, pod: &Pod) -> anyhow::Result<()> {
    wait::until("the pod is removed", PATIENCE, || {
        let removed = crictl.try_run(&["rmp", "--force", &pod.id])?;
        match removed.stderr.contains(LOCKED) {
            true => Ok(None),
            false => removed.success().map(|_| Some(())),
        }
    })
}

/// Stops or destroys containers of pods, one after the other, until it is over.
fn administer(proxmox: &Proxmox, foreign: &[u32], over: &Receiver<()>) -> anyhow::Result<Deeds> {
    let mut deeds = Deeds::default();
    loop {
        let pause = Duration::from_millis(rand::random_range(0..PAUSE));
        match over.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(deeds),
        }
        let mut numbers = proxmox.numbers()?;
        numbers.retain(|vmid| proxmox.pods().contains(vmid) && !foreign.contains(vmid));
        if numbers.is_empty() {
            continue;
        }
        let vmid = numbers[rand::random_range(0..numbers.len())].to_string();
        deeds.tried += 1;
        // Any of it may come too late.
        if rand::random() {
            let stopped = proxmox.try_pct(&["stop", &vmid])?;
            deeds.stopped += usize::from(stopped.code == Some(0));
        } else {
            proxmox.try_pct(&["set", &vmid, "--protection", "0"])?;
            let destroyed = proxmox.try_pct(&["destroy", &vmid, "--force"])?;
            deeds.destroyed += usize::from(destroyed.code == Some(0));
        }
    }
}
