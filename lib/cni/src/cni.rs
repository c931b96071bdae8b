//! The verbs.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::attachment::{Attachment, is_netns};
use crate::cache::{Cache, Cached, Entry, Found, State};
use crate::error::{CniError, Verb};
use crate::network::{self, Network};
use crate::plugin::{Plugin, Plugins};
use crate::version::{Version, listed};
use crate::{execution, result};

/// Where things are.
#[derive(Clone, Debug)]
pub struct CniOptions {
    /// Where plugins are; the first directory that has one wins.
    pub plugin_dirs: Vec<Utf8PathBuf>,
    /// Where network configurations are; the first file by name is the network.
    pub conf_dir: Utf8PathBuf,
    /// Where attachments are written down; made if missing. Must survive what the plugins' own state survives.
    pub cache_dir: Utf8PathBuf,
    /// Time one call of a plugin may take.
    pub deadline: Duration,
}

/// Sets up and takes down pod networks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cni {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    conf_dir: Utf8PathBuf,
    cache: Cache,
    plugins: Plugins,
}

/// The network that pods get now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: String,
    /// Its configuration file.
    pub file: Utf8PathBuf,
    /// The version of the protocol that is spoken with all its plugins.
    pub cni_version: String,
    /// The types of its plugins, in order.
    pub plugins: Vec<String>,
}

/// What ADD gave a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    /// Addresses of the pod's interface, in the plugins' order; at least one.
    pub ips: Vec<IpAddr>,
    /// The last plugin's result (specification, section 5).
    pub result: Value,
}

/// A network whose plugins are installed and agree on a version.
struct Ready {
    network: Network,
    version: Version,
    /// In the order of `network.plugins`.
    plugins: Vec<Plugin>,
}

impl Cni {
    /// Nothing is read or started yet.
    pub fn new(options: CniOptions) -> Self {
        Self {
            inner: Arc::new(Inner {
                conf_dir: options.conf_dir,
                cache: Cache::new(options.cache_dir),
                plugins: Plugins::new(options.plugin_dirs, options.deadline),
            }),
        }
    }

    /// Whether pods can get a network now: there is a configuration, its plugins are installed and speak its version, and, from
    /// version 1.1 on, say themselves that they are ready (STATUS).
    ///
    /// # Errors
    ///
    /// What stands in the way.
    pub async fn status(&self) -> Result<NetworkStatus, CniError> {
        let ready = self.current().await?;
        if ready.version.has_gc_and_status() {
            for (conf, plugin) in ready.network.plugins.iter().zip(&ready.plugins) {
                let conf = execution::configuration(
                    &ready.network,
                    conf,
                    ready.version,
                    &Map::new(),
                    None,
                );
                self.inner
                    .plugins
                    .call(plugin, Verb::Status, None, None, &conf)
                    .await?;
            }
        }
        Ok(NetworkStatus {
            name: ready.network.name,
            file: ready.network.file,
            cni_version: ready.version.to_string(),
            plugins: ready.plugins.iter().map(|p| p.kind().to_owned()).collect(),
        })
    }

    /// Attaches `a` to the network (ADD, plugin by plugin). `lo` is up in the namespace, or it is none of the network's business.
    ///
    /// What an earlier ADD of the same attachment has left is undone first. When this fails, DEL has been called for what was
    /// begun; if that failed too, the attachment is still among [`cached`](Self::cached) and [`del`](Self::del) goes on.
    /// Dropping the future leaves it there as well.
    ///
    /// # Errors
    ///
    /// Any [`CniError`].
    pub async fn add(&self, a: &Attachment) -> Result<Attached, CniError> {
        a.validate()?;
        let netns = a.living_netns()?.to_owned();
        self.del(a).await?;
        let ready = self.current().await?;
        let mut entry = Entry {
            attachment: a.clone(),
            network: ready.network.clone(),
            cni_version: ready.version,
            state: State::Adding,
        };
        self.store(entry.clone()).await?;
        nexcage_failpoint::hit("cni.cached");
        match self.add_all(&ready, a, &netns).await {
            Ok(attached) => {
                nexcage_failpoint::hit("cni.added");
                entry.state = State::Added(attached.result.clone());
                self.store(entry).await?;
                nexcage_failpoint::hit("cni.recorded");
                Ok(attached)
            }
            Err(error) => {
                if let Err(undo) = self.del(a).await {
                    let undo: &dyn std::error::Error = &undo;
                    tracing::warn!(
                        container_id = a.container_id,
                        error = undo,
                        "a failed CNI ADD is not fully undone yet"
                    );
                }
                Err(error)
            }
        }
    }

    /// Detaches `a` (DEL, in reverse order), with the configuration and the result of its ADD.
    ///
    /// `Ok` if there is nothing to undo. All plugins are called even if one fails, and the attachment is forgotten only when all have
    /// succeeded, so that this may be called until it does. A namespace that is gone is no error: plugins then get an
    /// empty `CNI_NETNS`.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub async fn del(&self, a: &Attachment) -> Result<(), CniError> {
        a.validate()?;
        let entry = match self.find(a).await? {
            Found::Nothing => return self.forget(a).await,
            Found::Entry(entry) => *entry,
            Found::Damaged(reason) => {
                tracing::warn!(
                    reason,
                    "a cached CNI result is damaged; the current configuration is used for DEL"
                );
                match self.load_network().await {
                    Ok(network) => self.entry_of(a, network).await?,
                    Err(CniError::NoNetwork { .. }) => return self.forget(a).await,
                    Err(e) => return Err(e),
                }
            }
        };
        self.del_all(a, &entry).await?;
        nexcage_failpoint::hit("cni.deleted");
        self.forget(a).await
    }

    /// Gives up on an attachment without calling plugins: for a pod that must go although a plugin it needs for DEL is
    /// not there any more. What the plugins keep for it, such as its address, stays until their own garbage
    /// collection.
    ///
    /// # Errors
    ///
    /// [`CniError::Cache`], [`CniError::Attachment`].
    pub async fn forget(&self, a: &Attachment) -> Result<(), CniError> {
        a.validate()?;
        let (id, ifname) = (a.container_id.clone(), a.ifname.clone());
        self.blocking(move |inner| inner.cache.remove(&id, &ifname))
            .await
    }

    /// Whether `a` is still as ADD left it (CHECK). `Ok` too where the network has no CHECK: before version 0.4, or
    /// by `disableCheck`.
    ///
    /// # Errors
    ///
    /// [`CniError::NotFound`] if it was never attached, or what is wrong.
    pub async fn check(&self, a: &Attachment) -> Result<(), CniError> {
        a.validate()?;
        let not_found = || CniError::NotFound {
            container_id: a.container_id.clone(),
            ifname: a.ifname.clone(),
        };
        let Found::Entry(entry) = self.find(a).await? else {
            return Err(not_found());
        };
        let Entry {
            attachment,
            network,
            cni_version,
            ..
        } = &*entry;
        let result = entry.result().ok_or_else(not_found)?;
        if network.disable_check || !cni_version.has_check() {
            return Ok(());
        }
        let netns = a.living_netns()?;
        for plugin in &network.plugins {
            let program = self.inner.plugins.find(plugin.kind())?;
            let capabilities = &attachment.capabilities;
            let conf =
                execution::configuration(network, plugin, *cni_version, capabilities, Some(result));
            self.inner
                .plugins
                .call(&program, Verb::Check, Some(attachment), Some(netns), &conf)
                .await?;
        }
        Ok(())
    }

    /// Removes what belongs to no pod: detaches all cached attachments that are not in `valid` (container id and interface), then lets
    /// plugins collect their own garbage (GC, from version 1.1 on unless `disableGC`).
    ///
    /// No ADD may run meanwhile whose attachment is not in `valid`.
    ///
    /// # Errors
    ///
    /// The first failure; the rest is done all the same.
    pub async fn gc(&self, valid: &[(String, String)]) -> Result<(), CniError> {
        let mut first = Ok(());
        for cached in self.cached().await? {
            let a = &cached.attachment;
            let is_valid =
                |(id, ifname): &(String, String)| (id, ifname) == (&a.container_id, &a.ifname);
            if !valid.iter().any(is_valid) {
                first = first.and(self.del(a).await);
            }
        }
        let ready = match self.current().await {
            Ok(ready) => ready,
            Err(CniError::NoNetwork { .. }) => return first,
            Err(e) => return first.and(Err(e)),
        };
        if !ready.version.has_gc_and_status() || ready.network.disable_gc {
            return first;
        }
        for (conf, plugin) in ready.network.plugins.iter().zip(&ready.plugins) {
            let conf =
                execution::configuration(&ready.network, conf, ready.version, &Map::new(), None);
            let conf = execution::with_valid_attachments(conf, valid);
            let called = self
                .inner
                .plugins
                .call(plugin, Verb::Gc, None, None, &conf)
                .await;
            first = first.and(called.map(drop));
        }
        first
    }

    /// All attachments that were begun and not yet undone, for the reconciler.
    ///
    /// # Errors
    ///
    /// [`CniError::Cache`].
    pub async fn cached(&self) -> Result<Vec<Cached>, CniError> {
        self.blocking(|inner| inner.cache.list()).await
    }

    /// ADD through all plugins, each with the result of the one before.
    async fn add_all(
        &self,
        ready: &Ready,
        a: &Attachment,
        netns: &Utf8Path,
    ) -> Result<Attached, CniError> {
        let mut last = None;
        let mut ips = Vec::new();
        for (conf, plugin) in ready.network.plugins.iter().zip(&ready.plugins) {
            let conf = execution::configuration(
                &ready.network,
                conf,
                ready.version,
                &a.capabilities,
                last.as_ref(),
            );
            let plugins = &self.inner.plugins;
            let answer = plugins
                .call(plugin, Verb::Add, Some(a), Some(netns), &conf)
                .await?;
            ips = result::addresses(&answer, &a.ifname).map_err(|reason| CniError::Answer {
                plugin: plugin.kind().to_owned(),
                verb: Verb::Add,
                reason,
            })?;
            last = Some(answer);
        }
        match last {
            Some(result) if !ips.is_empty() => Ok(Attached { ips, result }),
            _ => Err(CniError::NoAddress {
                network: ready.network.name.clone(),
                container_id: a.container_id.clone(),
                ifname: a.ifname.clone(),
            }),
        }
    }

    /// DEL through all plugins, backwards.
    async fn del_all(&self, a: &Attachment, entry: &Entry) -> Result<(), CniError> {
        let given = a.netns.as_deref().or(entry.attachment.netns.as_deref());
        let netns = given.filter(|path| is_netns(path));
        let previous = entry.result().filter(|_| entry.cni_version.has_check());
        let mut first = Ok(());
        for plugin in entry.network.plugins.iter().rev() {
            let capabilities = &entry.attachment.capabilities;
            let version = entry.cni_version;
            let conf =
                execution::configuration(&entry.network, plugin, version, capabilities, previous);
            let called = match self.inner.plugins.find(plugin.kind()) {
                Ok(program) => {
                    let plugins = &self.inner.plugins;
                    plugins
                        .call(&program, Verb::Del, Some(&entry.attachment), netns, &conf)
                        .await
                }
                Err(e) => Err(e),
            };
            first = first.and(called.map(drop));
        }
        first
    }

    /// The network of the configuration directory, ready to use.
    async fn current(&self) -> Result<Ready, CniError> {
        let network = self.load_network().await?;
        self.settle(network).await
    }

    async fn load_network(&self) -> Result<Network, CniError> {
        self.blocking(|inner| network::load(&inner.conf_dir)).await
    }

    /// What would have been cached for `a` under `network`.
    async fn entry_of(&self, a: &Attachment, network: Network) -> Result<Entry, CniError> {
        let ready = self.settle(network).await?;
        Ok(Entry {
            attachment: a.clone(),
            network: ready.network,
            cni_version: ready.version,
            state: State::Adding,
        })
    }

    /// Finds the plugins, and the newest version that the file allows and all of them speak.
    async fn settle(&self, network: Network) -> Result<Ready, CniError> {
        let mut versions = network.versions.clone();
        let mut plugins = Vec::new();
        for conf in &network.plugins {
            let plugin = self.inner.plugins.find(conf.kind())?;
            let supported = self.inner.plugins.versions(&plugin).await?;
            let before = versions.clone();
            versions.retain(|version| supported.contains(version));
            if versions.is_empty() {
                return Err(CniError::Version {
                    plugin: plugin.path().to_owned(),
                    supported: listed(&supported),
                    file: network.file.clone(),
                    wanted: listed(&before),
                });
            }
            plugins.push(plugin);
        }
        let version = versions.first().copied();
        let version = version.ok_or_else(|| CniError::Config {
            file: network.file.clone(),
            key: "cniVersion".into(),
            reason: "is missing".into(),
        })?;
        Ok(Ready {
            network,
            version,
            plugins,
        })
    }

    async fn store(&self, entry: Entry) -> Result<(), CniError> {
        self.blocking(move |inner| inner.cache.store(&entry)).await
    }

    async fn find(&self, a: &Attachment) -> Result<Found, CniError> {
        let (id, ifname) = (a.container_id.clone(), a.ifname.clone());
        self.blocking(move |inner| inner.cache.find(&id, &ifname))
            .await
    }

    /// Runs `work` where it may wait for a disk.
    async fn blocking<T, F>(&self, work: F) -> Result<T, CniError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, CniError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|e| Err(CniError::Interrupted(e)))
    }
}
