//! What a node is like after its power failed or it was rebooted: the inner halves of two scenarios.

use std::fs;
use std::thread;

use anyhow::{Context as _, ensure};
use camino::Utf8Path;
use nexcage_tests::{image, process, spec};

use crate::node::{KEPT, PATIENCE};
use crate::{Inventory, Node};

/// What was there when no pod was.
const BEFORE: &str = "before";

/// The pods that must be known afterwards.
const POD: &str = "pod";

fn kept(name: &str) -> camino::Utf8PathBuf {
    Utf8Path::new(KEPT).join(name)
}

/// Runs a pod that goes down with the node.
#[test]
#[ignore = "first part of a scenario"]
fn before_the_end() {
    let run = || {
        let node = Node::warm()?;
        Inventory::take()?.write(&kept(BEFORE))?;
        node.pull()?;
        let pod = node.run_pod("doomed")?;
        node.start(&pod, &spec::shell("counter", spec::COUNT))?;
        fs::write(kept(POD), &pod.id)
            .and_then(|()| fs::File::open(kept(POD))?.sync_all())
            .context("cannot keep the pod's id")
    };
    run().unwrap_or_else(|error: anyhow::Error| panic!("{error:#}"));
}

/// Pulls and removes images, makes and removes pods, until the node ends.
#[test]
#[ignore = "middle of a scenario; never ends"]
fn until_the_end() {
    let images = thread::spawn(|| {
        let node = Node::here().unwrap();
        loop {
            // What fails here fails because the node ends.
            let _ = node.crictl().try_run(&["pull", image::NGINX]);
            let _ = node.crictl().try_run(&["rmi", image::NGINX]);
        }
    });
    let node = Node::here().unwrap();
    let mut round = 0;
    while !images.is_finished() {
        round += 1;
        let pod = node.run_pod(&format!("churn{round}"));
        if let Ok(pod) = pod {
            let _ = node.start(&pod, &spec::shell("counter", spec::COUNT));
            let _ = node.crictl().try_run(&["rmp", "--force", &pod.id]);
        }
    }
}

/// The pool is there, the daemon serves, nothing runs that is not known, nothing is listed that does not work, and
/// all of it can be removed.
#[test]
#[ignore = "last part of a scenario"]
fn the_node_is_in_order() {
    let check = || {
        let health = process::run("zpool", &["list", "-H", "-o", "health", "tank"], PATIENCE)?;
        let health = health.success()?;
        ensure!(health.trim() == "ONLINE", "the pool is {health}");
        let errors = process::run("zpool", &["status", "-x", "tank"], PATIENCE)?.success()?;
        ensure!(errors.contains("is healthy"), "{errors}");

        let node = Node::here()?;
        node.wait_until_it_serves()?;
        pods_have_ended(&node)?;
        images_are_whole(&node)?;
        node.remove_everything()?;
        Inventory::read(&kept(BEFORE))?.check()
    };
    check().unwrap_or_else(|error: anyhow::Error| panic!("{error:#}"));
}

fn pods_have_ended(node: &Node) -> anyhow::Result<()> {
    let pods = node.crictl().json(&["pods", "--output", "json"])?;
    let pods = pods["items"].as_array().context("no list of pods")?;
    for pod in pods {
        ensure!(
            pod["state"] == "SANDBOX_NOTREADY",
            "a pod survived the node's end: {pod}"
        );
    }
    let doomed = fs::read_to_string(kept(POD)).context("cannot read the pod's id")?;
    ensure!(
        pods.iter().any(|pod| pod["id"] == doomed.as_str()),
        "{doomed} is forgotten: {pods:#?}"
    );
    let containers = node.crictl().json(&["ps", "--all", "--output", "json"])?;
    for container in containers["containers"].as_array().into_iter().flatten() {
        ensure!(
            container["state"] == "CONTAINER_EXITED" || container["state"] == "CONTAINER_CREATED",
            "a container survived the node's end: {container}"
        );
    }
    println!("{} pods, all of them ended", pods.len());
    Ok(())
}

/// Each image that is listed can be run.
fn images_are_whole(node: &Node) -> anyhow::Result<()> {
    let images = node.crictl().json(&["images", "--output", "json"])?;
    let images = images["images"].as_array().context("no list of images")?;
    for (number, image) in images.iter().enumerate() {
        let id = image["id"].as_str().context("an image without id")?;
        let pod = node.run_pod(&format!("image{number}"))?;
        let mut config = spec::shell("shell", "exit 0");
        config["image"]["image"] = id.into();
        node.start(&pod, &config)
            .with_context(|| format!("the image {image} is listed"))?;
    }
    println!("{} images, all of them whole", images.len());
    Ok(())
}
