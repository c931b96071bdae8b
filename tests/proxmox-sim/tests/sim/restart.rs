//! A simulator that ends and is started again: what is kept, and what goes on meanwhile.

use nexcage_lxc::Pve as _;

use crate::house::{House, ROLE};

#[tokio::test]
async fn containers_outlive_the_simulator() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let client = house.client(ROLE);
    let vmid = house.container("");
    client.start(vmid).await.unwrap();
    house.settle(vmid);
    for crash in [false, true] {
        house.end(crash);
        house.serve(&[]);
        assert!(
            client.status(vmid).await.unwrap().running,
            "the same token and authority"
        );
    }
    client
        .shutdown(vmid, std::time::Duration::from_secs(20))
        .await
        .unwrap();
    house.finish();
}

#[tokio::test]
async fn configurations_are_kept() {
    let Some(mut house) = House::new() else {
        return;
    };
    let vmid = house.container("");
    let conf = house.pve(&format!("nodes/pve1/lxc/{vmid}.conf"));
    let before = std::fs::read_to_string(&conf).unwrap();
    house.end(true);
    assert!(
        std::fs::read_to_string(&conf).is_err(),
        "nobody serves the mount"
    );
    house.serve(&[]);
    assert_eq!(std::fs::read_to_string(&conf).unwrap(), before);
    house.finish();
}

#[tokio::test]
async fn several_run_side_by_side() {
    let (Some(one), Some(mut two)) = (House::new(), House::new()) else {
        return;
    };
    let vmid = two.container("");
    assert!(!one.pve(&format!("lxc/{vmid}.conf")).exists());
    assert!(
        one.run(&format!("pct status {vmid}"))
            .stderr
            .contains("does not exist")
    );
    one.finish();
    two.good(&format!("pct config {vmid}"));
    two.finish();
}
