//! A raw CRI client, for what crictl would never send.

use anyhow::Context as _;
use camino::Utf8Path;
use nexcage_cri_api::v1::image_service_client::ImageServiceClient;
use nexcage_cri_api::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::Machine;

/// Both services of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    /// Pods and containers.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images.
    pub images: ImageServiceClient<Channel>,
}

impl Client {
    /// Connects to the daemon of `machine`.
    ///
    /// # Errors
    ///
    /// If nobody listens.
    pub async fn connect(machine: &Machine) -> anyhow::Result<Self> {
        Self::connect_to(&machine.socket()).await
    }

    /// Connects to the daemon that listens on `socket`.
    ///
    /// # Errors
    ///
    /// If nobody does.
    pub async fn connect_to(socket: &Utf8Path) -> anyhow::Result<Self> {
        let channel = Endpoint::try_from(format!("unix://{socket}"))
            .context("the socket's path is no URI")?
            .connect()
            .await
            .context("cannot connect to the daemon")?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
        })
    }
}
