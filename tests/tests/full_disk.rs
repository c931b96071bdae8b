//! The disk fills up under the daemon. What needs room is refused with a code and a reason, nothing is left half done, what is
//! there can be stopped and removed, and all of it works again as soon as there is room. A disk that fails is another matter, and is told as such.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::net::UnixDatagram;

use anyhow::{Context as _, ensure};
use camino::Utf8PathBuf;
use nexcage_cri_api::v1::*;
use nexcage_tests::client::Client;
use nexcage_tests::leak::Baseline;
use nexcage_tests::{Machine, image, process, request, spec, wait};
use tonic::{Code, Response, Status};

/// An image that [`Machine::warm_up`] does not pull.
const OTHER: &str = image::NGINX;

/// Bytes of the whole disk: enough for a daemon, what it keeps for a full disk, and two small images.
const SIZE: u64 = 128 << 20;

/// Bytes that are kept for a full disk beside each database.
const RESERVE: u64 = 4 << 20;

/// An ext4 file system of its own below the machine's `state` directory.
struct Disk {
    state: Utf8PathBuf,
}

impl Disk {
    fn mount(machine: &Machine) -> anyhow::Result<Self> {
        let (file, state) = (
            machine.root().join("disk.img"),
            machine.root().join("state"),
        );
        File::create(&file)
            .and_then(|disk| disk.set_len(SIZE))
            .with_context(|| format!("cannot make {file}"))?;
        // No blocks that only root may use: the daemon is root.
        let made = ["-q", "-F", "-m", "0", file.as_str()];
        process::run("mkfs.ext4", &made, 60)?.success()?;
        process::run("mount", &["-o", "loop", file.as_str(), state.as_str()], 60)?.success()?;
        Ok(Self { state })
    }

    fn filler(&self) -> Utf8PathBuf {
        self.state.join("filler")
    }

    /// Takes all the room there is.
    fn fill(&self) -> anyhow::Result<()> {
        let path = self.filler();
        let cannot = || format!("cannot write {path}");
        let mut filler = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .with_context(cannot)?;
        for size in [1 << 20, 4096] {
            let block = vec![1; size];
            loop {
                match filler.write_all(&block) {
                    Ok(()) => {}
                    Err(e) if e.kind() == ErrorKind::StorageFull => break,
                    Err(e) => return Err(e).with_context(cannot),
                }
            }
        }
        filler.sync_all().with_context(cannot)
    }

    /// Lets the file system find an error in itself: from now on nothing can be written to it.
    fn fail(&self) -> anyhow::Result<()> {
        let remount = ["-o", "remount,abort", self.state.as_str()];
        process::run("mount", &remount, 60)?.success().map(drop)
    }

    /// Gives it back.
    fn free(&self) -> anyhow::Result<()> {
        let path = self.filler();
        fs::remove_file(&path).with_context(|| format!("cannot remove {path}"))?;
        let state = File::open(&self.state).context("cannot open the disk")?;
        rustix::fs::syncfs(state).context("cannot flush the disk")
    }
}

/// What systemd would hear of a daemon that has to give a sign of life every ten seconds.
struct Watchdog {
    socket: UnixDatagram,
}

impl Watchdog {
    /// Of the daemon that is started next.
    fn listen(machine: &Machine) -> anyhow::Result<Self> {
        let path = machine.run_dir().join("notify");
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot make {path}"))?;
        socket.set_nonblocking(true).context("cannot listen")?;
        machine.set_environment("NOTIFY_SOCKET", path.as_str());
        machine.set_environment("WATCHDOG_USEC", "10000000");
        Ok(Self { socket })
    }

    /// How many signs of life there were since the last call.
    fn heard(&self) -> anyhow::Result<usize> {
        let (mut count, mut message) = (0, [0; 4096]);
        loop {
            match self.socket.recv(&mut message) {
                Ok(length) if message[..length].starts_with(b"WATCHDOG=1") => count += 1,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(count),
                Err(e) => return Err(e).context("cannot listen"),
            }
        }
    }
}

/// Expects a refusal for want of room.
fn exhausted<T>(what: &str, answer: Result<Response<T>, Status>) -> anyhow::Result<()> {
    let Err(status) = answer else {
        anyhow::bail!("{what} on a full disk: accepted");
    };
    let (code, message) = (status.code(), status.message());
    ensure!(
        code == Code::ResourceExhausted,
        "{what} on a full disk: {code:?}: {message}"
    );
    ensure!(
        message.contains("No space left") || message.contains("is full"),
        "{what} on a full disk does not say why: {message}"
    );
    Ok(())
}

/// A test on a daemon whose state is on a small disk, between two proofs that nothing is left.
fn on_a_small_disk(test: impl AsyncFnOnce(&Machine, &Disk, Client) -> anyhow::Result<()>) {
    Machine::test(|machine| {
        let disk = Disk::mount(machine)?;
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let client = Client::connect(machine).await?;
            test(machine, &disk, client).await
        })?;
        machine.crictl().remove_everything()?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}

#[test]
fn a_pull_is_refused_and_leaves_nothing() {
    on_a_small_disk(async |machine, disk, mut client| {
        machine.pull_busybox()?;
        let baseline = Baseline::take(machine);
        let request = PullImageRequest {
            image: Some(ImageSpec {
                image: OTHER.to_owned(),
                ..ImageSpec::default()
            }),
            ..PullImageRequest::default()
        };
        disk.fill()?;
        exhausted("PullImage", client.images.pull_image(request.clone()).await)?;
        is_ready(&mut client).await?;
        let images = machine.crictl().json(&["images", "-o", "json"])?;
        ensure!(
            !images.to_string().contains("nginx"),
            "an image that was not pulled is listed: {images}"
        );
        disk.free()?;
        baseline
            .check(machine)
            .context("after a pull that failed")?;
        client.images.pull_image(request).await?;
        Ok(())
    });
}

#[test]
fn pods_and_containers_are_refused_and_leave_nothing() {
    on_a_small_disk(async |machine, disk, mut client| {
        machine.pull_busybox()?;
        let baseline = Baseline::take(machine);

        disk.fill()?;
        let request = RunPodSandboxRequest {
            config: Some(request::pod("refused")),
            ..RunPodSandboxRequest::default()
        };
        exhausted(
            "RunPodSandbox",
            client.runtime.run_pod_sandbox(request).await,
        )?;
        none(machine, "pods")?;
        disk.free()?;
        baseline.check(machine).context("after a pod that failed")?;

        let pod = machine.run_pod("roomy")?;
        disk.fill()?;
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(request::container("refused")),
            sandbox_config: Some(request::pod("roomy")),
        };
        exhausted(
            "CreateContainer",
            client.runtime.create_container(request).await,
        )?;
        none(machine, "ps")?;
        disk.free()?;
        // Whatever the container has left shows at the end, when the pod is gone.
        machine.start(&pod, &spec::shell("late", spec::COUNT))?;
        Ok(())
    });
}

#[test]
fn what_ends_meanwhile_is_known() {
    on_a_small_disk(async |machine, disk, _| {
        machine.pull_busybox()?;
        let pod = machine.run_pod("ending")?;
        let wait_for = "until test -e /dev/shm/go; do sleep 0.1; done; exit 7";
        let short = machine.start(&pod, &spec::shell("short", wait_for))?;
        machine.start(&pod, &spec::shell("long", spec::COUNT))?;

        // In memory, since its root filesystem is on the disk.
        machine.exec(
            &short,
            &["sh", "-c", "(sleep 2; touch /dev/shm/go) >/dev/null 2>&1 &"],
        )?;
        disk.fill()?;
        let status = wait::until("the end is recorded", 20, || {
            let status = machine.container_status(&short)?;
            Ok((status["state"] == "CONTAINER_EXITED").then_some(status))
        })?;
        ensure!(status["exitCode"] == 7, "{status}");
        disk.free()
    });
}

#[test]
fn what_is_there_can_be_stopped_and_removed() {
    on_a_small_disk(async |machine, disk, mut client| {
        machine.pull_busybox()?;
        let (first, second) = (machine.run_pod("first")?, machine.run_pod("second")?);
        let container = machine.start(&first, &spec::shell("first", spec::COUNT))?;
        machine.start(&second, &spec::shell("second", spec::COUNT))?;

        disk.fill()?;
        for step in [
            &["stop", "--timeout", "1", &container][..],
            &["rm", &container],
            &["stopp", &first.id],
            &["rmp", &first.id],
            &["rmp", "--force", &second.id],
            &["rmi", image::BUSYBOX],
        ] {
            machine.crictl().run(step).context("on a full disk")?;
            // What is given up or becomes free, somebody else takes.
            disk.fill()?;
            let request = RunPodSandboxRequest {
                config: Some(request::pod("refused")),
                ..RunPodSandboxRequest::default()
            };
            exhausted(
                "RunPodSandbox",
                client.runtime.run_pod_sandbox(request).await,
            )?;
            is_ready(&mut client).await?;
        }
        none(machine, "pods")?;
        none(machine, "ps")?;
        none(machine, "images")?;

        disk.free()?;
        machine.pull_busybox()?;
        let pod = machine.run_pod("third")?;
        machine.start(&pod, &spec::shell("third", spec::COUNT))?;
        for database in ["state.db", "images/images.db", "overlay/overlay.db"] {
            let reserve = disk.state.join(format!("{database}-reserve"));
            let found = fs::metadata(&reserve).with_context(|| format!("no {reserve}"))?;
            ensure!(found.len() == RESERVE, "{reserve}: {} bytes", found.len());
        }
        Ok(())
    });
}

#[test]
fn a_daemon_starts_and_removes() {
    Machine::test(|machine| {
        let disk = Disk::mount(machine)?;
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        machine.pull_busybox()?;
        let pod = machine.run_pod("left")?;
        machine.start(&pod, &spec::shell("left", spec::COUNT))?;

        disk.fill()?;
        daemon.kill()?;
        let daemon = machine.start_daemon().context("on a full disk")?;
        disk.fill()?;
        machine.crictl().remove_everything()?;
        disk.free()?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}

#[test]
fn a_disk_that_is_full_or_failed_does_not_end_the_daemon() {
    Machine::test(|machine| {
        let disk = Disk::mount(machine)?;
        let watchdog = Watchdog::listen(machine)?;
        let daemon = machine.start_daemon()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut client = runtime.block_on(Client::connect(machine))?;

        disk.fill()?;
        watchdog.heard()?;
        let mut signs = 0;
        // Five seconds apart; a proof that the database can be written is good for thirty.
        wait::until_true("the daemon gives eight signs of life", 120, || {
            signs += watchdog.heard()?;
            Ok(signs >= 8)
        })?;
        runtime.block_on(is_ready(&mut client))?;
        disk.free()?;

        disk.fail()?;
        wait::until_true("the runtime is not ready", 120, || {
            let problem = runtime.block_on(runtime_problem(&mut client))?;
            Ok(problem.is_some_and(|(reason, message)| {
                reason == "DatabaseNotReady" && message.contains("disk I/O error")
            }))
        })?;
        // A new daemon could not even start here. One sign may have been given just before.
        watchdog.heard()?;
        let mut signs = 0;
        wait::until_true("the daemon gives three more signs of life", 60, || {
            signs += watchdog.heard()?;
            Ok(signs >= 3)
        })?;
        // What is in memory is told.
        none(machine, "pods")?;
        daemon.kill()
    });
}

/// Expects the runtime to be ready: kubelet removes no pods on a node whose runtime is not.
async fn is_ready(client: &mut Client) -> anyhow::Result<()> {
    let problem = runtime_problem(client).await?;
    ensure!(problem.is_none(), "on a full disk: {problem:?}");
    Ok(())
}

/// Why the runtime is not ready: reason and message.
async fn runtime_problem(client: &mut Client) -> anyhow::Result<Option<(String, String)>> {
    let answer = client.runtime.status(StatusRequest::default()).await?;
    let conditions = answer.into_inner().status.unwrap_or_default().conditions;
    let runtime = conditions
        .into_iter()
        .find(|condition| condition.r#type == "RuntimeReady")
        .context("no condition RuntimeReady")?;
    Ok((!runtime.status).then_some((runtime.reason, runtime.message)))
}

/// Nothing is listed.
fn none(machine: &Machine, what: &str) -> anyhow::Result<()> {
    let arguments = match what {
        "ps" => vec!["ps", "--all", "--quiet"],
        "images" => vec!["images", "--quiet"],
        _ => vec!["pods", "--quiet"],
    };
    let listed = machine.crictl().run(&arguments)?;
    ensure!(listed.is_empty(), "crictl {what} lists {listed}");
    Ok(())
}
