//! Pods' networks.

use nexcage_cni::{CniError, NetworkStatus};

use super::Doctor;
use super::finding::Finding;
use crate::error::Chain;
use crate::runtime::cni;

pub(super) async fn network(doctor: &Doctor) -> Finding {
    judge(cni(&doctor.config).status().await)
}

fn judge(status: Result<NetworkStatus, CniError>) -> Finding {
    const CHECK: &str = "network";
    match status {
        Ok(network) => Finding::ok(
            CHECK,
            format!(
                "{} in {}, with {}",
                network.name,
                network.file,
                network.plugins.join(", ")
            ),
        ),
        Err(error) => Finding::failed(
            CHECK,
            Chain(&error).to_string(),
            "until then only pods with the host's network start",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    #[tokio::test]
    async fn a_directory_without_a_configuration_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let conf_dir = camino::Utf8PathBuf::try_from(dir.path().join("net.d")).unwrap();
        let mut config = nexcage_config::Config::default();
        config.network.conf_dir = nexcage_config::AbsolutePath::new(conf_dir.clone()).unwrap();
        let finding = network(&Doctor::of(config)).await;
        assert_eq!(finding.state, State::Failed);
        assert!(finding.reason.contains(conf_dir.as_str()), "{finding:?}");
    }

    #[test]
    fn a_network_is_shown() {
        let status = NetworkStatus {
            name: "pods".into(),
            file: "/etc/cni/net.d/10-pods.conflist".into(),
            cni_version: "1.0.0".into(),
            plugins: vec!["bridge".into(), "portmap".into()],
        };
        let finding = judge(Ok(status));
        assert_eq!(
            finding.reason,
            "pods in /etc/cni/net.d/10-pods.conflist, with bridge, portmap"
        );
    }
}
