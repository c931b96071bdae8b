//! Running a simulator: pmxcfs, the API and the control socket, until it is told to end.

use std::io::Write as _;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::access::{Secrets, Users};
use crate::api::{self, Api};
use crate::ca;
use crate::control::Control;
use crate::ct::Node;
use crate::house::House;
use crate::misbehave::Misbehaviour;
use crate::pmxcfs::{Cluster, Pmxcfs, Tree};

/// Runs a simulator. `ready` is printed when everything is there.
///
/// # Errors
///
/// Something cannot be mounted, made or listened on.
pub fn serve(house: House) -> anyhow::Result<()> {
    let tree = Tree::open(&house.database())?;
    let pmxcfs = Pmxcfs::mount(tree, cluster(&house), &house.options().mount)
        .with_context(|| format!("cannot mount {}", house.options().mount))?;
    ca::make(&house)?;
    first_files(&house)?;
    Misbehaviour::default().write(&house)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(house, pmxcfs));
    // Requests that hang are not waited for.
    runtime.shutdown_background();
    result
}

async fn run(house: House, pmxcfs: Pmxcfs) -> anyhow::Result<()> {
    let (up, mut wanted) = watch::channel(true);
    let address = (house.options().address, house.options().port);
    let listener = listen(address).await?;
    let node = Node::new(house.clone());
    let tls = TlsAcceptor::from(ca::server_config(&house)?);
    let control = Control::new(house, pmxcfs, up);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let api = async {
        let mut listener = Some(listener);
        loop {
            let free = match listener.take() {
                Some(listener) => listener,
                None => listen(address).await?,
            };
            // Both are dropped whole: connections end with the API.
            tokio::select! {
                () = api::serve(Api::new(node.clone()), free, tls.clone()) => {}
                down = wanted.wait_for(|up| !up) => drop(down?),
            }
            wanted.wait_for(|up| *up).await?;
        }
    };
    println!("ready");
    std::io::stdout().flush()?;
    // Whatever ends first ends the simulator.
    tokio::select! {
        ended = api => ended,
        ended = control.serve() => ended,
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    }
}

async fn listen(address: (std::net::IpAddr, u16)) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {}:{}", address.0, address.1))
}

fn cluster(house: &House) -> Cluster {
    let options = house.options();
    let nodes = options.peers.iter().enumerate();
    let peers = nodes.map(|(number, name)| (name.clone(), format!("192.0.2.{}", number + 2)));
    let own = (options.node.clone(), options.address.to_string());
    Cluster {
        node: options.node.clone(),
        name: options.cluster.clone(),
        nodes: peers.chain([own]).collect(),
    }
}

/// What a new node has.
fn first_files(house: &House) -> anyhow::Result<()> {
    for (name, text) in [
        ("user.cfg", Users::default().write()),
        ("priv/token.cfg", Secrets::default().write()),
        (
            "storage.cfg",
            "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup\n".to_owned(),
        ),
        ("datacenter.cfg", "keyboard: en-us\n".to_owned()),
    ] {
        let file = house.pve(name);
        if !file.exists() {
            std::fs::write(&file, text).with_context(|| format!("cannot write {file}"))?;
        }
    }
    Ok(())
}
