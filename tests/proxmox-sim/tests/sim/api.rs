//! What nexcage asks of the API, without any container that runs.

use nexcage_lxc::{Pve as _, PveError};

use crate::house::{House, ROLE};

#[tokio::test]
async fn nexcage_understands_what_it_is_told() {
    let Some(mut house) = House::new() else {
        return;
    };
    let client = house.client(&format!("{ROLE} Sys.Audit"));
    house.good("pveum acl modify / --roles Nexcage --users nexcage@pve --propagate 0");
    assert!(client.version().await.unwrap().starts_with("9."));
    let cluster = client.cluster().await.unwrap();
    assert_eq!(
        (cluster.name.as_deref(), cluster.quorate),
        (Some("sim"), true)
    );
    assert_eq!(
        cluster.nodes.into_iter().collect::<Vec<_>>(),
        [("pve1".into(), true), ("pve2".into(), true)]
    );
    let held = client.permissions().await.unwrap();
    assert!(held.has("/vms/900000", "VM.PowerMgmt") && held.has("/nodes/pve1", "Sys.Audit"));
    assert!(!held.has("/storage", "VM.Audit"));

    let vmid = house.container("");
    std::fs::write(house.pve("nodes/pve2/lxc/200.conf"), "arch: amd64\n").unwrap();
    let list = client.containers().await.unwrap();
    assert_eq!(list.len(), 1, "those of other nodes are not listed");
    assert_eq!(
        (list[0].vmid, list[0].running, &*list[0].tags[0]),
        (vmid, false, "nexcage")
    );
    let status = client.status(vmid).await.unwrap();
    assert_eq!(status.max_memory_bytes, 128 << 20);
    assert_eq!((status.running, status.lock), (false, None));
    let error = client.status(vmid + 50).await.unwrap_err();
    assert!(matches!(error, PveError::NotFound { .. }), "{error:?}");
    // What is stopped is stopped.
    client.stop(vmid).await.unwrap();
    house.finish();
}

#[tokio::test]
async fn a_node_of_its_own() {
    let Some(house) = House::with(&["--alone"]) else {
        return;
    };
    let client = house.client("Sys.Audit");
    house.good("pveum acl modify / --roles Nexcage --users nexcage@pve");
    let cluster = client.cluster().await.unwrap();
    assert_eq!((cluster.name, cluster.quorate), (None, true));
    assert!(
        house
            .run("ctl quorum off")
            .stderr
            .contains("without a cluster")
    );
    house.finish();
}

#[tokio::test]
async fn missing_privileges_are_named() {
    let Some(mut house) = House::new() else {
        return;
    };
    let client = house.client("VM.Audit");
    let vmid = house.container("");
    let error = client.start(vmid).await.unwrap_err();
    let path = format!("/vms/{vmid}");
    assert_eq!(
        error.missing_privilege(),
        Some((&*path, "VM.PowerMgmt")),
        "{error}"
    );
    let error = client.cluster().await.unwrap_err();
    assert_eq!(
        error.missing_privilege(),
        Some(("/", "Sys.Audit")),
        "{error}"
    );
    house.good("pveum role modify Nexcage --privs VM.PowerMgmt");
    let error = client.status(vmid).await.unwrap_err();
    assert_eq!(
        error.missing_privilege(),
        Some((&*path, "VM.Audit")),
        "{error}"
    );
    assert_eq!(
        client.containers().await.unwrap().len(),
        0,
        "what one may not see is not listed"
    );
    house.finish();
}

#[tokio::test]
async fn tokens_are_rotated() {
    let Some(house) = House::new() else { return };
    let client = house.client(ROLE);
    client.version().await.unwrap();
    house.good("pveum user token remove nexcage@pve node");
    let error = client.version().await.unwrap_err();
    assert!(matches!(error, PveError::Unauthorized { .. }), "{error:?}");
    house.write_token();
    client.version().await.unwrap();
    house.finish();
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_no_matter() {
    let Some(house) = House::new() else { return };
    let client = house.client(ROLE);
    client.version().await.unwrap();
    // pveproxy's patience is five seconds.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    client.version().await.unwrap();
    house.finish();
}
