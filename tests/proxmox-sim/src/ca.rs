//! The cluster's certificate authority and the node's certificate, as `pvecm updatecerts` makes them, but with elliptic curves.

use std::fs;
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::house::House;

/// Makes both if they are not there, in pmxcfs. They stay until the simulator is swept.
///
/// # Errors
///
/// pmxcfs cannot be written.
pub fn make(house: &House) -> anyhow::Result<()> {
    if house.pve("pve-root-ca.pem").exists() {
        return Ok(());
    }
    let key = KeyPair::generate()?;
    let params = authority()?;
    let certificate = params.self_signed(&key)?;
    let write = |name: &str, text: String| {
        let file = house.pve(name);
        fs::write(&file, text).with_context(|| format!("cannot write {file}"))
    };
    write("priv/pve-root-ca.key", key.serialize_pem())?;
    let node = &house.options().node;
    let node_key = KeyPair::generate()?;
    let leaf = leaf(house)?.signed_by(&node_key, &Issuer::from_params(&params, &key))?;
    write(
        &format!("nodes/{node}/pve-ssl.key"),
        node_key.serialize_pem(),
    )?;
    write(&format!("nodes/{node}/pve-ssl.pem"), leaf.pem())?;
    // Last: while it is missing, all is made again.
    write("pve-root-ca.pem", certificate.pem())
}

fn authority() -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Proxmox Virtual Environment");
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, uuid.trim());
    params
        .distinguished_name
        .push(DnType::OrganizationName, "PVE Cluster Manager CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(house: &House) -> anyhow::Result<CertificateParams> {
    let options = house.options();
    let names = [
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        "localhost".to_owned(),
        options.address.to_string(),
        options.node.clone(),
    ];
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, "PVE Cluster Node");
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Proxmox Virtual Environment");
    params
        .distinguished_name
        .push(DnType::CommonName, options.node.as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// TLS with the node's certificate.
///
/// # Errors
///
/// There is none.
pub fn server_config(house: &House) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let node = &house.options().node;
    let read = |name: &str| {
        let file = house.pve(&format!("nodes/{node}/{name}"));
        fs::read(&file).with_context(|| format!("cannot read {file}"))
    };
    let certificate = CertificateDer::from_pem_slice(&read("pve-ssl.pem")?)?;
    let key = PrivateKeyDer::from_pem_slice(&read("pve-ssl.key")?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(Arc::new(config))
}
