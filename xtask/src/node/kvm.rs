//! Whether KVM can be used here.

use std::fs;
use std::process::{Child, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use camino::Utf8Path;

use super::image::Image;
use super::machine::with_this_thread;
use super::qemu::Qemu;
use crate::cache;

/// A kernel says its first word within a second, if it can.
const PROBE: Duration = Duration::from_secs(10);

/// Whether the node's kernel says anything under KVM: `/dev/kvm` may be there and still run no stock kernel, as in a
/// nested machine. The answer is remembered until this machine is booted again.
pub(super) fn works(qemu: &Qemu, image: &Image) -> anyhow::Result<bool> {
    if !fs::exists("/dev/kvm").unwrap_or(false) {
        return Ok(false);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("the boot's id")?;
    let memory = cache::root().join("kvm-works");
    let known = fs::read_to_string(&memory).unwrap_or_default();
    if let Some(answer) = known.strip_prefix(&format!("{} ", boot.trim())) {
        return Ok(answer == "true");
    }
    let said = cache::root().join(format!(".kvm-probe-{}", std::process::id()));
    let answer = probe(qemu, image, &said);
    let _ = fs::remove_file(&said);
    let answer = answer?;
    fs::write(&memory, format!("{} {answer}", boot.trim()))
        .with_context(|| format!("cannot write {memory}"))?;
    Ok(answer)
}

fn probe(qemu: &Qemu, image: &Image, said: &Utf8Path) -> anyhow::Result<bool> {
    let mut program = qemu.system();
    program
        .args(["-accel", "kvm", "-cpu", "host", "-m", "512"])
        .args(["-display", "none", "-nodefaults", "-no-reboot"])
        .args(["-kernel", image.kernel().as_str()])
        .args(["-append", "console=ttyS0 panic=-1"])
        .args(["-serial", &format!("file:{said}")]);
    let mut process = with_this_thread(&program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start QEMU")?;
    // Without a root file system it panics and QEMU ends; with a KVM that fails, QEMU stands still.
    let works = wait_for_word(&mut process, said);
    let _ = process.kill();
    process.wait().context("cannot wait for QEMU")?;
    Ok(works)
}

fn wait_for_word(qemu: &mut Child, said: &Utf8Path) -> bool {
    let begun = Instant::now();
    let spoke = || fs::read(said).is_ok_and(|text| contains(&text, b"Linux version"));
    while begun.elapsed() < PROBE && !spoke() {
        if !matches!(qemu.try_wait(), Ok(None)) {
            return spoke();
        }
        park_timeout(Duration::from_millis(100));
    }
    spoke()
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
