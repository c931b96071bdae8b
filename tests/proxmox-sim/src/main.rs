//! A Proxmox VE node to test against; see the library.

use std::process::ExitCode;

use clap::Parser as _;
use nexcage_proxmox_sim::cli::{Cli, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("proxmox-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
