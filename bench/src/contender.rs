//! What is measured: several ways to make the same pod.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use camino::Utf8Path;

use crate::containerd::Containerd;
use crate::dataset::Dataset;
use crate::floor::Floor;
use crate::nexcage::{Ground, Nexcage};
use crate::proxmox::Node;
use crate::{Contest, cri, floor, process, stage};

/// The contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// nexcage on overlay, through its socket.
    Nexcage,
    /// nexcage on ZFS, through its socket.
    NexcageZfs,
    /// nexcage on overlay, whose pods are containers of a simulated Proxmox that it starts directly.
    NexcageProxmox,
    /// The same, and Proxmox starts them.
    NexcageProxmoxApi,
    /// containerd through its socket.
    Containerd,
    /// The same steps by hand.
    Floor,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Nexcage,
        Self::NexcageZfs,
        Self::NexcageProxmox,
        Self::NexcageProxmoxApi,
        Self::Containerd,
        Self::Floor,
    ];

    /// Those that are servers.
    pub(crate) const SERVERS: [Self; 5] = [
        Self::Nexcage,
        Self::NexcageZfs,
        Self::NexcageProxmox,
        Self::NexcageProxmoxApi,
        Self::Containerd,
    ];

    /// nexcage with plain LXC, on whatever storage: what is compared with others.
    pub(crate) const NEXCAGE: [Self; 2] = [Self::Nexcage, Self::NexcageZfs];

    /// How a Proxmox container is started, in the words of nexcage's configuration; none where pods are no such containers.
    pub(crate) fn proxmox_start(self) -> Option<&'static str> {
        match self {
            Self::NexcageProxmox => Some("direct"),
            Self::NexcageProxmoxApi => Some("api"),
            _ => None,
        }
    }

    /// A number for names and addresses.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nexcage => "nexcage",
            Self::NexcageZfs => "nexcage-zfs",
            Self::NexcageProxmox => "nexcage-proxmox",
            Self::NexcageProxmoxApi => "nexcage-proxmox-api",
            Self::Containerd => "containerd",
            Self::Floor => "floor",
        })
    }
}

/// One of them, ready to make pods.
pub(crate) enum Contender {
    Nexcage(Nexcage),
    Containerd(Containerd),
    Floor(Floor),
}

/// A pod with one running container.
pub(crate) enum Pod {
    Cri(cri::Pod),
    Floor(floor::Pod),
}

impl Contender {
    /// Starts it and pulls images.
    pub(crate) async fn prepare(
        kind: Kind,
        contest: &Contest,
        images: &[&str],
    ) -> anyhow::Result<Self> {
        let Contest { run, .. } = contest;
        let ground = match kind {
            Kind::Nexcage => Ground::Plain,
            Kind::NexcageZfs => {
                let pool = contest.pool.as_ref();
                Ground::Zfs(Dataset::make(pool.context("nexcage-zfs needs a --pool")?)?)
            }
            Kind::NexcageProxmox | Kind::NexcageProxmoxApi => {
                let program = contest.proxmox_sim.as_ref();
                let program = program.with_context(|| format!("{kind} needs a --proxmox-sim"))?;
                Ground::Proxmox(Node::start(kind, program)?)
            }
            Kind::Containerd => {
                let runtime = &contest.containerd_runtime;
                let daemon = Containerd::start(runtime, run.registry, images).await?;
                return Ok(Self::Containerd(daemon));
            }
            Kind::Floor => return Ok(Self::Floor(Floor::prepare(run.registry)?)),
        };
        let daemon = Nexcage::start(kind, ground, &run.nexcage, run.registry, images).await?;
        Ok(Self::Nexcage(daemon))
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Nexcage(daemon) => daemon.kind(),
            Self::Containerd(_) => Kind::Containerd,
            Self::Floor(_) => Kind::Floor,
        }
    }

    /// The client of its socket; by hand there is none.
    pub(crate) fn client(&self) -> Option<&cri::Client> {
        match self {
            Self::Nexcage(daemon) => Some(&daemon.client),
            Self::Containerd(daemon) => Some(&daemon.client),
            Self::Floor(_) => None,
        }
    }

    /// Its daemon's process; by hand there is none.
    pub(crate) fn daemon(&self) -> Option<u32> {
        match self {
            Self::Nexcage(daemon) => Some(daemon.pid()),
            Self::Containerd(daemon) => Some(daemon.pid()),
            Self::Floor(_) => None,
        }
    }

    /// From nothing to a running container. Says how long it took until there was a sandbox: RunPodSandbox, or what by hand is
    /// the same.
    pub(crate) async fn start(&self, number: u32) -> anyhow::Result<(Pod, Duration)> {
        match self {
            Self::Floor(floor) => {
                let (pod, sandbox) = floor.start(number)?;
                Ok((Pod::Floor(pod), sandbox))
            }
            Self::Nexcage(Nexcage { client, .. }) | Self::Containerd(Containerd { client, .. }) => {
                // Boxed, as CRI's messages are large.
                let (pod, sandbox) = Box::pin(client.start(number)).await?;
                Ok((Pod::Cri(pod), sandbox))
            }
        }
    }

    /// How long simulated tasks took that have started containers since then; none where nobody is asked to.
    pub(crate) fn tasks_since(&self, time: SystemTime) -> anyhow::Result<Vec<Duration>> {
        match self {
            Self::Nexcage(daemon) => daemon.tasks_since(time),
            Self::Containerd(_) | Self::Floor(_) => Ok(Vec::new()),
        }
    }

    /// What tells a pod's processes from all others: ids and names that stand in their command lines.
    pub(crate) async fn marks(&self, pod: &Pod) -> anyhow::Result<Vec<String>> {
        Ok(match (self, pod) {
            (Self::Nexcage(daemon), Pod::Cri(pod)) => {
                let lxc = daemon.client.lxc_container(pod).await?;
                // Of a Proxmox container it is a number, and an argument of its own.
                vec![
                    pod.sandbox.clone(),
                    pod.container.clone(),
                    format!(" {lxc}"),
                ]
            }
            (_, Pod::Cri(pod)) => vec![pod.sandbox.clone(), pod.container.clone()],
            (_, Pod::Floor(pod)) => vec![pod.name.clone()],
        })
    }

    /// Runs a command in the container and waits for it.
    pub(crate) async fn exec(&self, pod: &Pod) -> anyhow::Result<()> {
        match (self, pod) {
            (Self::Floor(floor), Pod::Floor(pod)) => floor.exec(pod),
            (_, Pod::Cri(pod)) if let Some(client) = self.client() => {
                client.exec(pod, &stage::EXEC).await
            }
            _ => unreachable!("a pod goes back to who made it"),
        }
    }

    /// From a running container to nothing.
    pub(crate) async fn remove(&self, pod: Pod) -> anyhow::Result<()> {
        match (self, pod) {
            (Self::Floor(floor), Pod::Floor(pod)) => floor.remove(&pod),
            (_, Pod::Cri(pod)) if let Some(client) = self.client() => client.remove(&pod).await,
            _ => unreachable!("a pod goes back to who made it"),
        }
    }

    /// Ends it.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Nexcage(daemon) => daemon.end().await,
            Self::Containerd(daemon) => daemon.end().await,
            Self::Floor(_) => Ok(()),
        }
    }
}

impl Pod {
    /// Waits until the container can be asked to end.
    pub(crate) fn wait_until_ready(&self) -> anyhow::Result<()> {
        match self {
            Self::Cri(pod) => wait_until_ready(&pod.log, 1),
            Self::Floor(pod) => wait_until_ready(&pod.log(), 1),
        }
    }
}

/// Waits until containers have said in their log so many times that they can be asked to end. A signal that comes before that is
/// lost on the first process of a PID namespace.
pub(crate) fn wait_until_ready(log: &Utf8Path, times: usize) -> anyhow::Result<()> {
    process::until("the container is ready", || {
        Ok(fs::read_to_string(log).is_ok_and(|text| text.matches("ready").count() >= times))
    })
}
