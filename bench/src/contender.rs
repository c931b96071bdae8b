//! What is measured: several ways to make the same pod.

use std::fmt;
use std::fs;

use anyhow::Context as _;

use crate::containerd::Containerd;
use crate::dataset::Dataset;
use crate::floor::Floor;
use crate::nexcage::Nexcage;
use crate::{Contest, cri, floor, process};

/// The contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// nexcage on overlay, through its socket.
    Nexcage,
    /// nexcage on ZFS, through its socket.
    NexcageZfs,
    /// containerd through its socket.
    Containerd,
    /// The same steps by hand.
    Floor,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [
        Self::Nexcage,
        Self::NexcageZfs,
        Self::Containerd,
        Self::Floor,
    ];

    /// Those that are servers.
    pub(crate) const SERVERS: [Self; 3] = [Self::Nexcage, Self::NexcageZfs, Self::Containerd];

    /// nexcage, on whatever storage.
    pub(crate) const NEXCAGE: [Self; 2] = [Self::Nexcage, Self::NexcageZfs];

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
        Ok(match kind {
            Kind::Nexcage => {
                Self::Nexcage(Nexcage::start(&run.nexcage, run.registry, images).await?)
            }
            Kind::NexcageZfs => {
                let pool = contest.pool.as_ref();
                let dataset = Dataset::make(pool.context("nexcage-zfs needs a --pool")?)?;
                Self::Nexcage(Nexcage::start_on(dataset, &run.nexcage, run.registry, images).await?)
            }
            Kind::Containerd => Self::Containerd(
                Containerd::start(&contest.containerd_runtime, run.registry, images).await?,
            ),
            Kind::Floor => Self::Floor(Floor::prepare(run.registry)?),
        })
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

    /// From nothing to a running container.
    pub(crate) async fn start(&self, number: u32) -> anyhow::Result<Pod> {
        match self {
            Self::Floor(floor) => floor.start(number).map(Pod::Floor),
            // Boxed, as CRI's messages are large.
            Self::Nexcage(Nexcage { client, .. }) | Self::Containerd(Containerd { client, .. }) => {
                Box::pin(client.start(number)).await.map(Pod::Cri)
            }
        }
    }

    /// Runs a command in the container and waits for it.
    pub(crate) async fn exec(&self, pod: &Pod) -> anyhow::Result<()> {
        match (self, pod) {
            (Self::Floor(floor), Pod::Floor(pod)) => floor.exec(pod),
            (_, Pod::Cri(pod)) if let Some(client) = self.client() => client.exec(pod).await,
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
    /// Waits until the container can be asked to end. A signal that comes before that is lost on the first process of a
    /// PID namespace.
    pub(crate) fn wait_until_ready(&self) -> anyhow::Result<()> {
        let log = match self {
            Self::Cri(pod) => &pod.log,
            Self::Floor(pod) => &pod.log(),
        };
        process::until("the container is ready", || {
            Ok(fs::read_to_string(log).is_ok_and(|text| text.contains("ready")))
        })
    }

    /// What tells its processes from all others: ids that stand in their command lines.
    pub(crate) fn marks(&self) -> Vec<String> {
        match self {
            Self::Cri(pod) => vec![pod.sandbox.clone(), pod.container.clone()],
            Self::Floor(pod) => vec![pod.name.clone()],
        }
    }
}
