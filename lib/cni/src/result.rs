//! Results of ADD (specification, section 5).

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

/// The part of a result that is of use here; the same in all versions spoken.
#[derive(Deserialize)]
struct Addresses {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    /// The namespace; empty or absent for an interface on the host.
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct Ip {
    /// In CIDR notation.
    address: String,
    /// Index into `interfaces`.
    interface: Option<i64>,
}

/// The addresses of `ifname` inside, in the result's order. An address that names no interface is the pod's.
pub(crate) fn addresses(result: &Value, ifname: &str) -> Result<Vec<IpAddr>, String> {
    if !result.is_object() {
        return Err("a result is a JSON object".into());
    }
    let result = Addresses::deserialize(result).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    for (i, ip) in result.ips.iter().enumerate() {
        let address = parse_cidr(&ip.address).ok_or_else(|| {
            format!(
                "ips[{i}].address: {:?} is not an address in CIDR notation",
                ip.address
            )
        })?;
        let ours = match ip.interface {
            // Some plugins write -1 for none.
            None | Some(-1) => true,
            Some(at) => {
                let interface = usize::try_from(at)
                    .ok()
                    .and_then(|at| result.interfaces.get(at));
                let interface = interface.ok_or_else(|| {
                    format!("ips[{i}].interface: there is no interface {at} in the result")
                })?;
                interface.name == ifname && !interface.sandbox.is_empty()
            }
        };
        if ours {
            found.push(address);
        }
    }
    Ok(found)
}

fn parse_cidr(text: &str) -> Option<IpAddr> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    (length.parse::<u8>().ok()? <= most).then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_addresses_of_the_pods_interface_count() {
        let result = json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "br0", "mac": "00:11:22:33:44:55"},
                {"name": "eth0", "sandbox": "/run/netns/x"},
                {"name": "eth0", "sandbox": ""},
                {"name": "net1", "sandbox": "/run/netns/x"},
            ],
            "ips": [
                {"address": "10.0.0.1/24", "interface": 0},
                {"address": "10.0.0.2/24", "interface": 1},
                {"address": "10.0.0.3/24", "interface": 2},
                {"address": "10.0.0.4/24", "interface": 3},
                {"address": "fd00::2/64", "interface": 1},
            ],
        });
        let ips = addresses(&result, "eth0").unwrap();
        assert_eq!(
            ips,
            [
                "10.0.0.2".parse::<IpAddr>().unwrap(),
                "fd00::2".parse().unwrap()
            ]
        );
    }

    #[test]
    fn an_address_without_an_interface_is_the_pods() {
        let result = json!({"ips": [{"version": "4", "address": "10.0.0.2/24"}]});
        assert_eq!(addresses(&result, "eth0").unwrap().len(), 1);
    }

    #[test]
    fn a_wrong_result_is_told_by_its_place() {
        let e = addresses(
            &json!({"ips": [{"address": "10.0.0.2/24", "interface": 7}]}),
            "eth0",
        );
        assert!(e.unwrap_err().contains("ips[0].interface"));
        let e = addresses(&json!({"ips": [{"address": "10.0.0.2"}]}), "eth0");
        assert!(e.unwrap_err().contains("ips[0].address"));
        assert!(addresses(&json!({"ips": [{"address": "10.0.0.2/33"}]}), "eth0").is_err());
        assert!(addresses(&json!([]), "eth0").is_err());
    }

    proptest! {
        #[test]
        fn no_result_panics(result in crate::network::tests::any_json()) {
            let _ = addresses(&result, "eth0");
        }

        #[test]
        fn no_address_panics(address in ".{0,40}", interface in any::<i64>()) {
            let ips = json!({"ips": [{"address": address, "interface": interface}], "interfaces": [{"name": "eth0"}]});
            let _ = addresses(&ips, "eth0");
        }
    }
}
