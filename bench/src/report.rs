//! What is printed and what is kept.

use std::fs;

use anyhow::Context as _;
use camino::Utf8Path;
use serde::Serialize;
use serde_json::{Value, json};

use crate::process::first_line;
use crate::summary::Summary;

/// Prints rows in aligned columns; all but the first column are numbers.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter()
            .filter_map(|row| row.get(at))
            .map(String::len)
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line += &if at == 0 {
                format!("{cell:width$}")
            } else {
                format!("  {cell:>width$}")
            };
        }
        println!("{}", line.trim_end());
    }
}

/// The median and the 99th percentile, of milliseconds; empty if it was not measured, so that what comes after stays in its
/// columns.
pub(crate) fn cells(summary: Option<&Summary>) -> [String; 2] {
    summary.map_or_else(Default::default, |summary| {
        [summary.p50, summary.p99].map(|ms| format!("{ms:.1} ms"))
    })
}

/// Says so where the processor is emulated: times are worth something only beside each other.
pub(crate) fn caution() {
    if emulated() {
        println!(
            "  emulated: everything takes about ten times as long as it should; only the ratios count"
        );
    }
}

/// Whether the processor is emulated.
pub(crate) fn emulated() -> bool {
    virtualization() == "qemu"
}

/// Says whether an aim is reached.
pub(crate) fn aim(what: &str, value: f64, most: f64, unit: &str) {
    let reached = if value <= most { "reached" } else { "MISSED" };
    println!("  {what}: {value:.2}{unit}, aim at most {most:.2}{unit}: {reached}");
}

/// Says something that there is no aim for.
pub(crate) fn fact(what: &str, value: f64, unit: &str) {
    println!("  {what}: {value:.2}{unit}");
}

/// Writes `<results>/<time>-<name>.json`: what was measured, and on what.
pub(crate) fn keep(results: &Utf8Path, name: &str, measured: impl Serialize) -> anyhow::Result<()> {
    let now = jiff::Zoned::now();
    let file = results.join(format!("{}-{name}.json", now.strftime("%Y-%m-%dT%H-%M-%S")));
    let document =
        json!({ "time": now.timestamp().to_string(), "machine": machine(), "measured": measured });
    fs::create_dir_all(results).with_context(|| format!("cannot make {results}"))?;
    fs::write(&file, format!("{document:#}\n")).with_context(|| format!("cannot write {file}"))?;
    println!("\nall numbers: {file}");
    Ok(())
}

fn machine() -> Value {
    let uname = rustix::system::uname();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1));
    json!({
        "kernel": uname.release().to_string_lossy(),
        "processor": model,
        "virtualization": virtualization(),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "lxc": first_line("lxc-start", &["--version"]),
        "crun": first_line("crun", &["--version"]),
        "conmon": first_line("conmon", &["--version"]),
        "containerd": first_line("containerd", &["--version"]),
        "runc": first_line("runc", &["--version"]),
        "skopeo": first_line("skopeo", &["--version"]),
        "umoci": first_line("umoci", &["--version"]),
        "zfs": first_line("zfs", &["version"]),
    })
}

/// In systemd's words: `kvm`, or `qemu` where it emulates the processor too; `?` where there is none, or no systemd.
fn virtualization() -> String {
    first_line("systemd-detect-virt", &[])
}
