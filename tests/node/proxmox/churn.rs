//! Pods come and go while an administrator plays with them, beside somebody else's containers.

use anyhow::Context as _;
use nexcage_tests::churn::{self, Pods};
use nexcage_tests::{Crictl, Foreign, Pod, spec};
use serde_json::Value;

use super::place;
use crate::{Inventory, Node};

/// Pods in all; `NEXCAGE_TEST_PLAYED` may ask for another number.
const PODS: u32 = 20;

impl Pods for Node {
    fn crictl(&self) -> &Crictl {
        self.crictl()
    }

    fn run_pod(&self, name: &str) -> anyhow::Result<Pod> {
        self.run_pod(name)
    }

    fn start(&self, pod: &Pod, config: &Value) -> anyhow::Result<String> {
        self.start(pod, config)
    }
}

/// Fails if more is there afterwards than before, or somebody else's container was touched.
pub(super) fn play(start: &str) {
    Node::test(|node| {
        place::with(node, start, |site| {
            let pods = match std::env::var("NEXCAGE_TEST_PLAYED") {
                Ok(text) => text
                    .parse()
                    .with_context(|| format!("not a number: {text}"))?,
                Err(_) => PODS,
            };
            let foreign = Foreign::place(site.proxmox)?;
            // What is made once on a Proxmox node is there after the first.
            let first = node.run_pod("first")?;
            node.start(&first, &spec::shell("first", "exit 0"))?;
            node.remove_pods()?;
            let before = Inventory::take()?;
            for why in churn::play(node, site.proxmox, &foreign.numbers(), pods)? {
                println!("cut short: {why}");
            }
            node.remove_pods()?;
            before.check()?;
            foreign.check()?;
            foreign.remove()
        })
    });
}
