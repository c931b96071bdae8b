//! Pods come and go while an administrator plays with them.

use nexcage_tests::churn;

use crate::Node;

#[test]
fn nothing_is_left_of_pods_whose_containers_are_stopped_and_destroyed_at_random() {
    for (start, pods) in [("direct", 100), ("api", 40)] {
        Node::test(start, |node| {
            churn::play(node.machine, node.proxmox, &node.foreign.numbers(), pods)
        });
    }
}
