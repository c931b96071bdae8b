//! Pods come and go while an administrator plays with them.

use anyhow::ensure;
use nexcage_tests::churn;

use crate::Node;

/// What crictl prints of an error that has no kind.
const UNEXPLAINED: &str = "code = Unknown";

#[test]
fn nothing_is_left_of_pods_whose_containers_are_stopped_and_destroyed_at_random() {
    for (start, pods) in [("direct", 100), ("api", 40)] {
        Node::test(start, |node| {
            let foreign = node.foreign.numbers();
            let mut reasons = churn::play(node.machine, node.proxmox, &foreign, pods)?;
            reasons.retain(|why| why.contains(UNEXPLAINED));
            ensure!(
                reasons.is_empty(),
                "not told what has ended:\n{}",
                reasons.join("\n")
            );
            Ok(())
        });
    }
}
