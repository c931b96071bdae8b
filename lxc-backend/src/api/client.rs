//! [`Pve`] over HTTPS.

use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use proxmox_api::access::AccessClient;
use proxmox_api::access::permissions as access;
use proxmox_api::cluster::ClusterClient;
use proxmox_api::nodes::NodesClient;
use proxmox_api::nodes::node::lxc::vmid::VmidClient;
use proxmox_api::nodes::node::lxc::vmid::status::{shutdown, start, stop};
use proxmox_api::types::VmId;
use proxmox_api::version::VersionClient;
use rustix::process::Uid;
use url::Url;

use super::answer::is_lock_timeout;
use super::error::PveError;
use super::map;
use super::server::{Call, Server};
use super::task;
use super::transport::{Limits, Transport, UrlError};
use super::trust::Trust;
use super::turns::Turns;
use super::verbs::{ClusterStatus, CtStatus, CtSummary, Permissions, Pve};

/// How long a container may take to start: Proxmox itself waits for ever once LXC has begun.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How long a container may take to be killed.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What a shutdown may take beyond the time that the container has: Proxmox's lock, and the end of its task.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// Pauses before a task that did not get the container's lock is begun again. Proxmox has waited ten seconds for it each time.
const LOCK_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Where the API is, and who asks.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// The API server of this node, `https://127.0.0.1:8006`.
    pub url: Url,
    /// The certificate authority of the API server, PEM. No other is believed.
    pub ca_file: Utf8PathBuf,
    /// A file of root's that nobody else can read, with a token as `user@realm!name=uuid`.
    pub token_file: Utf8PathBuf,
    /// The name of this node in the cluster.
    pub node: String,
}

/// The API of one node. Cheap to make: files are read, and the server is talked to, when something is asked for; so the API may be
/// away for a while, and token and certificates may be replaced.
#[derive(Debug)]
pub struct ApiClient {
    node: String,
    server: Server,
    turns: Turns,
    start_limit: Duration,
}

impl ApiClient {
    /// A client.
    ///
    /// # Errors
    ///
    /// [`PveError::Setup`] if the URL is not `https://` with a host, or the node's name is none.
    pub fn new(options: ApiOptions) -> Result<Self, PveError> {
        Self::build(options, Limits::default(), START_LIMIT, Uid::ROOT)
    }

    pub(super) fn build(
        options: ApiOptions,
        limits: Limits,
        start_limit: Duration,
        token_owner: Uid,
    ) -> Result<Self, PveError> {
        if !is_node_name(&options.node) {
            return Err(PveError::Setup {
                what: format!("the name {:?} for a Proxmox node", options.node),
                source: "letters, digits and inner hyphens make one".into(),
            });
        }
        let url = options.url.as_str().trim_end_matches('/').to_owned();
        let trust = Trust::new(options.ca_file);
        let transport = Transport::new(&options.url, trust, limits);
        let transport = transport.map_err(|source: UrlError| PveError::Setup {
            what: format!("{url} (proxmox.api_url)"),
            source: source.into(),
        })?;
        Ok(Self {
            node: options.node,
            server: Server::new(url, transport, options.token_file, token_owner),
            turns: Turns::default(),
            start_limit,
        })
    }

    fn container<'a>(&self, call: Call<'a>, vmid: u32) -> Result<VmidClient<Call<'a>>, PveError> {
        let number = VmId::try_from(i128::from(vmid)).map_err(|source| PveError::Refused {
            doing: call.doing().to_owned(),
            status: 400,
            message: format!("{vmid} is no VMID: {source}"),
        })?;
        Ok(NodesClient::new(call).node(&self.node).lxc().vmid(number))
    }

    /// Begins a task and waits for its end; begins it again if somebody held the container's lock.
    async fn change(&self, vmid: u32, change: Change) -> Result<(), PveError> {
        let doing = change.doing(vmid);
        let limit = match change {
            Change::Start => self.start_limit,
            Change::Stop => STOP_LIMIT,
            Change::Shutdown(time) => time.saturating_add(SHUTDOWN_GRACE),
        };
        let work = async {
            let _turn = self.turns.wait(vmid).await;
            let mut pauses = LOCK_PAUSES.iter();
            loop {
                match self.attempt(vmid, change, &doing).await {
                    Err(PveError::Locked { doing, message }) if is_lock_timeout(&message) => {
                        let Some(pause) = pauses.next() else {
                            return Err(PveError::Locked { doing, message });
                        };
                        tokio::time::sleep(*pause).await;
                    }
                    other => return other,
                }
            }
        };
        let result = tokio::time::timeout(limit, work).await;
        result.unwrap_or_else(|_| {
            Err(PveError::Deadline {
                doing: change.doing(vmid),
                limit,
            })
        })
    }

    async fn attempt(&self, vmid: u32, change: Change, doing: &str) -> Result<(), PveError> {
        let call = self.server.call(doing);
        let status = self.container(call, vmid)?.status();
        let begun = match change {
            Change::Start => status.start().post(start::PostParams::default()).await,
            Change::Stop => status.stop().post(stop::PostParams::default()).await,
            Change::Shutdown(time) => {
                // Proxmox counts in whole seconds.
                let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
                let params = shutdown::PostParams {
                    timeout: i128::from(seconds).try_into().ok(),
                    ..shutdown::PostParams::default()
                };
                status.shutdown().post(params).await
            }
        };
        match begun {
            Ok(upid) => task::wait(&self.server, &self.node, doing, &upid).await,
            // An earlier try may have got through, or an administrator was first.
            Err(PveError::Refused { message, .. }) if message == change.settled(vmid) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What is done to a container.
#[derive(Clone, Copy, Debug)]
enum Change {
    Start,
    Stop,
    /// Within this time.
    Shutdown(Duration),
}

impl Change {
    /// An imperative.
    fn doing(self, vmid: u32) -> String {
        match self {
            Self::Start => format!("start container {vmid}"),
            Self::Stop => format!("stop container {vmid}"),
            Self::Shutdown(_) => format!("shut container {vmid} down"),
        }
    }

    /// What Proxmox says if there is nothing to do.
    fn settled(self, vmid: u32) -> String {
        match self {
            Self::Start => format!("CT {vmid} already running"),
            Self::Stop | Self::Shutdown(_) => format!("CT {vmid} not running"),
        }
    }
}

#[async_trait]
impl Pve for ApiClient {
    async fn version(&self) -> Result<String, PveError> {
        let call = self.server.call("tell its version");
        Ok(VersionClient::new(call).get().await?.version)
    }

    async fn cluster(&self) -> Result<ClusterStatus, PveError> {
        let call = self.server.call("tell the state of the cluster");
        Ok(map::cluster(ClusterClient::new(call).status().get().await?))
    }

    async fn permissions(&self) -> Result<Permissions, PveError> {
        let call = self.server.call("tell the privileges of the API token");
        let params = access::GetParams::default();
        let held = AccessClient::new(call).permissions().get(params).await?;
        map::permissions(held).map_err(|error| call.not_understood(error))
    }

    async fn containers(&self) -> Result<Vec<CtSummary>, PveError> {
        let doing = format!("list the containers of {}", self.node);
        let call = self.server.call(&doing);
        let list = NodesClient::new(call).node(&self.node).lxc().get().await?;
        let list = list.into_iter().map(map::summary);
        list.collect::<Result<_, _>>()
            .map_err(|error| call.not_understood(error))
    }

    async fn status(&self, vmid: u32) -> Result<CtStatus, PveError> {
        let doing = format!("tell the status of container {vmid}");
        let call = self.server.call(&doing);
        let status = self.container(call, vmid)?.status().current();
        map::status(status.get().await?).map_err(|error| call.not_understood(error))
    }

    async fn start(&self, vmid: u32) -> Result<(), PveError> {
        self.change(vmid, Change::Start).await
    }

    async fn stop(&self, vmid: u32) -> Result<(), PveError> {
        self.change(vmid, Change::Stop).await
    }

    async fn shutdown(&self, vmid: u32, timeout: Duration) -> Result<(), PveError> {
        self.change(vmid, Change::Shutdown(timeout)).await
    }
}

/// What Proxmox takes for the name of a node.
fn is_node_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
