//! Debian's own plugins: bridge, host-local and portmap. Needs root.
//!
//! All happens between two network namespaces that are made for it, one of which plays the host; so the bridge,
//! the packet filter's rules and the routes go with them.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests, which may start ip(8) by hand"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_cni::{Attachment, Cni, CniOptions};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(5);

/// A named network namespace, gone when dropped.
struct Netns(String);

impl Netns {
    fn new(role: &str) -> Self {
        let name = format!("nxtcni-{role}-{}", std::process::id());
        run(&["ip", "netns", "add", &name]);
        Self(name)
    }

    fn path(&self) -> Utf8PathBuf {
        Utf8Path::new("/run/netns").join(&self.0)
    }

    /// Moves the calling thread into it.
    fn enter(&self) {
        let file = File::open(self.path()).unwrap();
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network).unwrap();
    }

    fn ip(&self, args: &[&str]) -> String {
        run(&[&["ip", "-n", &self.0], args].concat())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Runs a program in the calling thread's namespace.
fn run(line: &[&str]) -> String {
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
    assert!(output.status.success(), "{line:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_pod_gets_a_network_and_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making network namespaces needs root");
        return;
    }
    // Children and files follow the namespace of the thread that starts them, and a runtime of one thread starts all
    // from its own.
    let played = std::thread::spawn(|| {
        let host = Netns::new("host");
        host.enter();
        run(&["ip", "link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(on(&host));
    });
    if let Err(panic) = played.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn on(host: &Netns) {
    let dir = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(dir.path()).unwrap();
    let bridge = json!({
        "type": "bridge", "bridge": "nxtcni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
        "ipam": {
            "type": "host-local", "dataDir": root.join("ipam"),
            "ranges": [[{"subnet": "10.213.77.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    fs::create_dir(root.join("conf")).unwrap();
    let configure = |plugins: &[&Value]| {
        let conf = json!({"cniVersion": "1.0.0", "name": "nxtcni", "plugins": plugins});
        fs::write(root.join("conf/10-pods.conflist"), conf.to_string()).unwrap();
    };
    configure(&[&bridge, &portmap]);
    let cni = Cni::new(CniOptions {
        plugin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
        conf_dir: root.join("conf"),
        cache_dir: root.join("cache"),
        deadline: Duration::from_secs(30),
    });
    let leases = || {
        let files = fs::read_dir(root.join("ipam/nxtcni")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("10.")).count()
    };

    let status = cni.status().await.unwrap();
    assert_eq!(status.plugins, ["bridge", "portmap"]);
    assert_eq!(status.cni_version, "1.0.0");

    let pod = Netns::new("pod");
    let id = format!("nxtcni{}", std::process::id());
    let attachment = Attachment {
        container_id: id.clone(),
        netns: Some(pod.path()),
        ifname: "eth0".into(),
        args: vec![
            ("IgnoreUnknown".into(), "1".into()),
            ("K8S_POD_NAME".into(), "web".into()),
        ],
        capabilities: json!({
            "portMappings": [{"hostPort": 12080, "containerPort": 8080, "protocol": "tcp"}],
        })
        .as_object()
        .unwrap()
        .clone(),
    };
    let attached = cni.add(&attachment).await.unwrap();
    assert_eq!(attached.ips.len(), 1, "{attached:?}");
    assert!(
        attached.ips[0].to_string().starts_with("10.213.77."),
        "{attached:?}"
    );
    assert!(
        pod.ip(&["addr", "show", "eth0"])
            .contains(&attached.ips[0].to_string())
    );
    assert_eq!(leases(), 1);
    serve_hello(pod.path());
    assert_eq!(hello((attached.ips[0], 8080).into()), "hello");
    assert_eq!(hello(([10, 213, 77, 1], 12080).into()), "hello");

    // A second ADD of the same pod begins anew. Without portmap: its CHECK, in Debian 12, looks for IPv6 rules
    // that a pod with IPv4 alone does not have.
    configure(&[&bridge]);
    let again = cni.add(&attachment).await.unwrap();
    assert_eq!((again.ips.len(), leases()), (1, 1));
    let rules = run(&["iptables-save"]);
    assert!(!rules.contains("12080"), "{rules}");
    cni.check(&attachment).await.unwrap();
    pod.ip(&["route", "del", "default"]);
    assert!(
        cni.check(&attachment).await.is_err(),
        "CHECK did not miss the route"
    );

    cni.del(&attachment).await.unwrap();
    assert_eq!(leases(), 0);
    let rules = run(&["iptables-save"]);
    assert!(!rules.contains(&id) && !rules.contains("12080"), "{rules}");

    // The namespace goes first. The bridge plugin then leaves its masquerading rule (it asks the interface for the
    // addresses); address and port are free again all the same.
    configure(&[&bridge, &portmap]);
    cni.add(&attachment).await.unwrap();
    assert_eq!(leases(), 1);
    drop(pod);
    cni.del(&attachment).await.unwrap();
    assert_eq!(leases(), 0);
    assert!(cni.cached().await.unwrap().is_empty());
    let rules = run(&["iptables-save"]);
    assert!(!rules.contains("12080"), "{rules}");
    assert!(!host.ip(&["link"]).contains("veth"));
}

/// Answers one connection after the other on port 8080 of the namespace, as long as the test runs.
fn serve_hello(netns: Utf8PathBuf) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let file = File::open(netns).unwrap();
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network).unwrap();
        let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
        ready.send(()).unwrap();
        // Two connections are made.
        for _ in 0..2 {
            listener.accept().unwrap().0.write_all(b"hello").unwrap();
        }
    });
    is_ready.recv().unwrap();
}

/// What is said there.
fn hello(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&address, SOON).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}
