//! All hosts of one registry, as one pull sees them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::connect::Connections;
use super::host::{Document, Host};
use super::hosts::Registries;
use super::rounds::Rounds;
use crate::credentials::Credentials;
use crate::credentials_file::NodeCredentials;
use crate::manifest::Blob;
use crate::options::RetryPolicy;
use crate::pull::PullError;
use crate::reference::Reference;

/// Longest wait for the head of an answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// The hosts that may have an image, with the credentials of one pull. Sessions share
/// connections, which know no credentials, and nothing else.
#[derive(Debug)]
pub(crate) struct Session {
    reference: Reference,
    hosts: Vec<Host>,
    names: Vec<String>,
    retry: RetryPolicy,
}

/// What a session is made from.
#[derive(Debug)]
pub(crate) struct SessionSettings<'a> {
    pub(crate) registries: &'a Registries,
    pub(crate) connections: &'a Arc<Connections>,
    pub(crate) node_credentials: &'a NodeCredentials,
    pub(crate) retry: &'a RetryPolicy,
    pub(crate) progress_timeout: Duration,
}

impl Session {
    /// Everything needed to ask for `reference`. Nothing is sent yet.
    pub(crate) fn open(
        settings: &SessionSettings<'_>,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Self, PullError> {
        let candidates = settings
            .registries
            .candidates(reference.registry())
            .map_err(|error| PullError::Settings {
                reference: reference.to_string(),
                detail: super::failure::chain(&error),
            })?;
        let names = candidates.iter().map(|c| c.endpoint.authority()).collect();
        let deadline = settings.progress_timeout.min(ANSWER_DEADLINE);
        let node = settings.node_credentials;
        let hosts = candidates
            .into_iter()
            .map(|candidate| {
                let credentials = if candidate.mirror_of.is_some() {
                    node.find(&candidate.endpoint.authority(), reference.repository())
                } else if credentials.is_anonymous() {
                    node.find(reference.registry(), reference.repository())
                } else {
                    credentials.clone()
                };
                Host::new(
                    candidate,
                    reference.repository(),
                    settings.connections.clone(),
                    credentials,
                    deadline,
                )
            })
            .collect();
        Ok(Self {
            reference: reference.clone(),
            hosts,
            names,
            retry: settings.retry.clone(),
        })
    }

    /// What is pulled, for messages.
    pub(crate) fn subject(&self) -> String {
        self.reference.to_string()
    }

    /// Rounds through the hosts, `first` before the others.
    pub(crate) fn rounds(&self, first: usize) -> Rounds<'_> {
        Rounds::new(&self.retry, &self.names, first)
    }

    /// A host by its number.
    pub(crate) fn host(&self, host: usize) -> &Host {
        &self.hosts[host]
    }

    /// The name of a host, for messages.
    pub(crate) fn host_name(&self, host: usize) -> &str {
        &self.names[host]
    }

    /// A manifest or index by tag or digest, and the number of the host that had it.
    pub(crate) async fn manifest(
        &self,
        first: usize,
        name: &str,
        max: u64,
    ) -> Result<(usize, Document), PullError> {
        let mut rounds = self.rounds(first);
        while let Some(host) = rounds.next().await {
            match self.hosts[host].manifest(name, max).await {
                Ok(document) => return Ok((host, document)),
                Err(failure) => rounds.failed(host, failure),
            }
        }
        Err(rounds.into_error(self.subject()))
    }

    /// A small blob, whole and verified.
    pub(crate) async fn small_blob(
        &self,
        first: usize,
        blob: &Blob,
        max: u64,
    ) -> Result<Bytes, PullError> {
        let mut rounds = self.rounds(first);
        while let Some(host) = rounds.next().await {
            match self.hosts[host].small_blob(blob, max).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => rounds.failed(host, failure),
            }
        }
        Err(rounds.into_error(self.subject()))
    }
}
