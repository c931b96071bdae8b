//! The command line.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand};

use crate::ct::Node;
use crate::died::Outcome;
use crate::house::{House, Options};
use crate::task::{Work, run_worker};
use crate::{control, pct, pveum, serve, sweep};

/// Perl's way to end badly.
const DIED: u8 = 255;

/// A Proxmox VE node to test against: pmxcfs, API and pct, with real LXC.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Where the simulator keeps everything.
    #[arg(long, env = "PROXMOX_SIM_DIR", default_value = "/var/lib/proxmox-sim")]
    dir: Utf8PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount pmxcfs and serve the API until SIGTERM. Prints `ready`. Containers run on.
    Serve(Serve),
    /// Do what `pct` does: list, status, config, set, unlock, start, stop, shutdown, reboot, destroy.
    #[command(disable_help_flag = true)]
    Pct {
        /// As for `pct`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Do what `pveum` does: role, user, user token, acl.
    #[command(disable_help_flag = true)]
    Pveum {
        /// As for `pveum`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Tell the running simulator to misbehave.
    #[command(after_help = control::WORDS)]
    Ctl {
        /// See below.
        #[arg(trailing_var_arg = true, required = true)]
        words: Vec<String>,
    },
    /// End all its containers and remove all that it made. It must not run any more.
    Sweep,
    /// A task, in a process of its own.
    #[command(hide = true)]
    Worker { vmid: u32, work: String },
    /// What LXC and systemd run around a container.
    #[command(hide = true)]
    Hook {
        kind: String,
        /// LXC adds its own.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// The name of this node.
    #[arg(long, default_value = "pve1")]
    node: String,
    /// The name of the cluster. Without one, and with --alone, the node is on its own and always has quorum.
    #[arg(long, default_value = "sim")]
    cluster: String,
    /// Other nodes of the cluster, which are never there.
    #[arg(long = "peer", default_value = "pve2")]
    peers: Vec<String>,
    /// No cluster.
    #[arg(long)]
    alone: bool,
    /// Where pmxcfs is mounted.
    #[arg(long, default_value = "/etc/pve")]
    mount: Utf8PathBuf,
    /// LXC's directory.
    #[arg(long, default_value = "/var/lib/lxc")]
    lxc_path: Utf8PathBuf,
    /// Where containers' configurations are locked.
    #[arg(long, default_value = "/run/lock/lxc")]
    lock_dir: Utf8PathBuf,
    /// Where standard error and warnings of containers are kept.
    #[arg(long, default_value = "/run/pve")]
    run_dir: Utf8PathBuf,
    /// Where the API listens.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Its port.
    #[arg(long, default_value_t = 8006)]
    port: u16,
    /// The systemd unit of a container, before @<vmid>.
    #[arg(long, default_value = "pve-container")]
    unit: String,
}

impl From<Serve> for Options {
    fn from(serve: Serve) -> Self {
        Self {
            node: serve.node,
            cluster: (!serve.alone).then_some(serve.cluster),
            peers: if serve.alone { Vec::new() } else { serve.peers },
            mount: serve.mount,
            lxc_path: serve.lxc_path,
            lock_dir: serve.lock_dir,
            run_dir: serve.run_dir,
            address: serve.address,
            port: serve.port,
            unit: serve.unit,
        }
    }
}

/// Does what the command line says.
///
/// # Errors
///
/// What went wrong with the simulator itself; what Proxmox refuses is printed, and a status.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Command::Serve(options) = cli.command {
        serve::serve(House::make(&cli.dir, options.into())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let house = House::open(&cli.dir)?;
    match cli.command {
        Command::Serve(_) => {}
        Command::Pct { arguments } => {
            let (command, rest) = arguments
                .split_first()
                .map_or(("", &[][..]), |(c, r)| (c.as_str(), r));
            return Ok(print(pct::pct(&Node::new(house), command, rest)));
        }
        Command::Pveum { arguments } => {
            return Ok(print(pveum::pveum(&Node::new(house), &arguments)));
        }
        Command::Ctl { words } => println!("{}", control::send(&house, &words)?),
        Command::Sweep => sweep::sweep(&house)?,
        Command::Worker { vmid, work } => {
            let work: Work = serde_json::from_str(&work)?;
            run_worker(&Node::new(house), vmid, &work)?;
        }
        Command::Hook { kind, arguments } => return Ok(hook(&Node::new(house), &kind, &arguments)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Hooks do nothing for containers whose names are no numbers: those are not Proxmox's.
fn hook(node: &Node, kind: &str, arguments: &[String]) -> ExitCode {
    let name = arguments.first().map(|name| name.parse::<u32>());
    let Some(Ok(vmid)) = name else {
        return ExitCode::SUCCESS;
    };
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let ended = match kind {
        "pre-start" => node.pre_start(vmid),
        "post-stop" => node.post_stop(vmid, &variable("LXC_TARGET")),
        "stop-unit" => node.stop_unit(vmid, variable("EXIT_CODE") == "exited"),
        _ => Err(format!("unknown hook {kind}").into()),
    };
    print(ended.map(|()| String::new()))
}

fn print(ended: Outcome<String>) -> ExitCode {
    match ended {
        Ok(text) => {
            // Whoever reads may have gone.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(died) => {
            match died.status {
                500 => eprintln!("{died}"),
                status => eprintln!("{status} {died}"),
            }
            ExitCode::from(DIED)
        }
    }
}
