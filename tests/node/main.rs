//! Tests that run as root in a node of their own, with systemd as init, cgroup v2, AppArmor and OpenZFS.
//!
//! `cargo xtask test node` makes the node, runs this program there and takes the node away. The whole node is ours: the
//! daemon is the node's service, and a leak is whatever is there afterwards and was not before ([`Inventory`]).
//!
//! Tests that are ignored are parts of scenarios, which the chore drives from outside: a node that loses its power
//! cannot tell the tale. `xtask/src/node/tier/scenarios.rs` has the other half.

mod apparmor;
mod churn;
mod critest;
mod inventory;
mod node;
mod package;
mod power;
mod proxmox;
mod settings;
mod storage;
mod systemd;
mod upgrade;
mod users;

use inventory::Inventory;
use node::Node;
