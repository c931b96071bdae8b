//! Status and usage: `vmstatus`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::Node;
use crate::conf::Volume;
use crate::died::{Died, Outcome};
use crate::lxc::{Usage, init_pid};

/// CPU times as they were last seen, since the load is what was used between two looks. Each worker of Proxmox has its own; here there is one.
#[derive(Debug, Default)]
pub struct CpuTimes(Mutex<HashMap<u32, Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    used_ms: u64,
    load: f64,
}

/// Shorter than this, in milliseconds of all CPUs, is not measured.
const SHORTEST_MS: f64 = 1000.0;

/// Without a size Proxmox assumes this, in bytes.
const ASSUMED_DISK: u64 = 4 << 30;

impl CpuTimes {
    /// The part of its CPUs that a container uses; 0 at the first look.
    fn load(&self, vmid: u32, used_ms: u64, all_cpus: f64, cpus: f64) -> f64 {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let fresh = Seen {
            at: now,
            used_ms,
            load: 0.0,
        };
        let seen = known.entry(vmid).or_insert(fresh);
        let passed = now.duration_since(seen.at).as_secs_f64() * 1000.0 * all_cpus;
        if passed > SHORTEST_MS {
            #[expect(clippy::cast_precision_loss, reason = "milliseconds between two looks")]
            let used = used_ms.saturating_sub(seen.used_ms) as f64;
            *seen = Seen {
                load: used / passed * all_cpus / cpus,
                ..fresh
            };
        }
        seen.load
    }
}

impl Node {
    /// What Proxmox shows of a container.
    ///
    /// # Errors
    ///
    /// Its usage cannot be read. Never for a container without a configuration: that is an empty one, as for Proxmox.
    pub fn status(&self, vmid: u32, times: &CpuTimes) -> Outcome<Map<String, Value>> {
        let conf = self.load(vmid).unwrap_or_default().current;
        let count = count_cpus();
        let all_cpus = f64::from(count);
        let cores = conf.get("cores").or(conf.get("cpulimit"));
        let cpus = cores
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|cpus| *cpus > 0.0);
        let cpus = cpus.unwrap_or(all_cpus);
        let running = self.is_running(vmid);
        let lxc_path = &self.house.options().lxc_path;
        let pid = running
            .then(|| init_pid(lxc_path, vmid).ok().flatten())
            .flatten();
        let name = conf
            .get("hostname")
            .map_or_else(|| format!("CT{vmid}"), str::to_owned);
        let rootfs = conf
            .get("rootfs")
            .and_then(|text| Volume::parse("rootfs", text).ok());
        let size = rootfs
            .and_then(|volume| volume.size)
            .unwrap_or(ASSUMED_DISK);
        let mut status = Map::from_iter([
            ("vmid".to_owned(), json!(vmid)),
            ("type".to_owned(), json!("lxc")),
            (
                "status".to_owned(),
                json!(if running { "running" } else { "stopped" }),
            ),
            ("name".to_owned(), json!(name)),
            // Out of the file, so text.
            (
                "cpus".to_owned(),
                cores.map_or(json!(count), |cores| json!(cores)),
            ),
            (
                "maxmem".to_owned(),
                json!(conf.number("memory").unwrap_or(512) << 20),
            ),
            (
                "maxswap".to_owned(),
                json!(conf.number("swap").unwrap_or(0) << 20),
            ),
        ]);
        for key in [
            "mem",
            "swap",
            "uptime",
            "cpu",
            "netin",
            "netout",
            "diskread",
            "diskwrite",
            "disk",
        ] {
            status.insert(key.to_owned(), json!(0));
        }
        status.insert("maxdisk".to_owned(), json!(size));
        for key in ["tags", "lock"] {
            if let Some(value) = conf.get(key) {
                status.insert(key.to_owned(), json!(value));
            }
        }
        if conf.is("template") {
            status.insert("template".to_owned(), json!(1));
        }
        if let Some(pid) = pid {
            let usage = self.usage(vmid)?;
            self.running_status((vmid, pid), usage, (cpus, all_cpus), times, &mut status);
        }
        Ok(status)
    }

    /// On cgroup v2, which real nodes have, what cannot be read is an error: Proxmox then shows nothing of any container of the node.
    fn usage(&self, vmid: u32) -> Outcome<Usage> {
        let lxc_path = &self.house.options().lxc_path;
        let usage = self.hierarchies.usage(lxc_path, vmid);
        usage.or_else(|error| {
            // It may have ended just now.
            if self.hierarchies.is_unified() && self.is_running(vmid) {
                let words = format!("can't read usage of CT {vmid} - {error}");
                return Err(Died::new(words));
            }
            eprintln!("CT {vmid}: {error}");
            Ok(Usage::default())
        })
    }

    fn running_status(
        &self,
        (vmid, pid): (u32, u32),
        usage: Usage,
        (cpus, all_cpus): (f64, f64),
        times: &CpuTimes,
        status: &mut Map<String, Value>,
    ) {
        let mut set = |key: &str, value: Value| drop(status.insert(key.to_owned(), value));
        set("pid", json!(pid));
        set("uptime", json!(uptime(pid).unwrap_or(0)));
        if let Ok(root) = rustix::fs::statvfs(format!("/proc/{pid}/root/")) {
            let used = root.f_blocks.saturating_sub(root.f_bfree);
            set("disk", json!(used * root.f_frsize));
            set("maxdisk", json!(root.f_blocks * root.f_frsize));
        }
        set("mem", json!(usage.memory));
        set("swap", json!(usage.swap));
        set("diskread", json!(usage.disk_read));
        set("diskwrite", json!(usage.disk_write));
        set("cpu", json!(times.load(vmid, usage.cpu_ms, all_cpus, cpus)));
        let (received, sent) = traffic(vmid);
        // Of the host's end: what it receives, the container has sent.
        set("netout", json!(received));
        set("netin", json!(sent));
        // Proxmox looks for the pressure where it puts containers itself.
        for (key, file, line) in [
            ("pressurecpusome", "cpu.pressure", "some"),
            ("pressurecpufull", "cpu.pressure", "full"),
            ("pressureiosome", "io.pressure", "some"),
            ("pressureiofull", "io.pressure", "full"),
            ("pressurememorysome", "memory.pressure", "some"),
            ("pressurememoryfull", "memory.pressure", "full"),
        ] {
            let path = self
                .hierarchies
                .v2_root()
                .join(format!("lxc/{vmid}/{file}"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            set(key, json!(pressure(&text, line)));
        }
    }
}

/// CPUs of the machine.
fn count_cpus() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(count).unwrap_or(1)
}

/// Seconds since a process was started.
fn uptime(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let start: u64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: u64 = uptime.split('.').next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second();
    Some(seconds.saturating_sub(start / ticks))
}

/// Bytes received and sent by the host's ends of a container's interfaces.
fn traffic(vmid: u32) -> (u64, u64) {
    let table = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    traffic_in(&table, vmid)
}

fn traffic_in(table: &str, vmid: u32) -> (u64, u64) {
    let lines = table.lines().filter_map(|line| {
        let (name, counters) = line.trim().split_once(':')?;
        name.strip_prefix(&format!("veth{vmid}i"))?;
        let counters: Vec<u64> = counters.split_whitespace().flat_map(str::parse).collect();
        Some((*counters.first()?, *counters.get(8)?))
    });
    lines.fold((0, 0), |(received, sent), (r, s)| (received + r, sent + s))
}

/// `avg10` of a line of a pressure file, as text, as Perl has it.
fn pressure<'a>(text: &'a str, line: &str) -> Option<&'a str> {
    let line = text.lines().find(|found| found.starts_with(line))?;
    line.split_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_added_up() {
        let table = "Inter-|   Receive\n face |bytes\n  veth100i0: 10 0 0 0 0 0 0 0 20 0\nveth100i1:1 0 0 0 0 0 0 0 2 0\n\
                     veth1001i0: 5 0 0 0 0 0 0 0 5 0\n    lo: 7 0 0 0 0 0 0 0 7 0\n";
        assert_eq!(traffic_in(table, 100), (11, 22));
        assert_eq!(traffic_in(table, 10), (0, 0));
    }

    #[test]
    fn pressure_is_an_average() {
        let text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0 avg300=0 total=1\n";
        assert_eq!(pressure(text, "some"), Some("1.50"));
        assert_eq!(pressure(text, "full"), Some("0.25"));
        assert_eq!(pressure("", "some"), None);
    }

    #[test]
    fn load_is_measured_between_looks() {
        let times = CpuTimes::default();
        let zero = times.load(100, 5000, 2.0, 1.0);
        let soon = times.load(100, 6000, 2.0, 1.0);
        assert!(zero.abs() < 1e-9 && soon.abs() < 1e-9);
        crate::program::pause(std::time::Duration::from_millis(600));
        let load = times.load(100, 5300, 2.0, 1.0);
        // 300 ms in 600 ms, of one CPU.
        assert!((0.2..=0.5).contains(&load), "{load}");
    }
}
