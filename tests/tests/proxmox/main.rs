//! Pods as Proxmox containers, on a simulated node with real LXC: what an administrator sees and does, and what the node fails to do.

mod admin;
mod churn;
mod commands;
mod node;
mod outages;

use node::Node;
