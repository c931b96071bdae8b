//! A Proxmox VE node to test against, for a root user on Debian with LXC.
//!
//! It is a fake with behaviour, made after the sources of Proxmox VE 9.2 and not after what asks it; README.md tells what is faithful and
//! what is not. One process serves three things that belong together:
//!
//! * `pmxcfs`: the file system of `/etc/pve`, with its rules, kept in SQLite;
//! * `api`: HTTPS with tokens and privileges; what takes time is a `task`, in a process of its own;
//! * `control`: a socket by which tests take quorum away, stop the API and so on.
//!
//! `pct` and `pveum` are processes of their own that use the mounted pmxcfs, as the real ones do. `ct` is what both the API and `pct` do with
//! containers, by `lxc`, which is real LXC. `conf` and `access` are configurations, pure.
//!
//! Start reading at `cli`, then `serve`.

pub mod access;
pub mod api;
pub mod arguments;
pub mod ca;
pub mod cli;
pub mod conf;
pub mod control;
pub mod ct;
pub mod died;
pub mod digest;
pub mod house;
pub mod lxc;
pub mod misbehave;
pub mod pct;
pub mod pmxcfs;
pub mod program;
pub mod pveum;
pub mod serve;
pub mod storage;
pub mod sweep;
pub mod task;
