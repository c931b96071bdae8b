//! A pod's limits as cgroup v2 has them.

use camino::Utf8Path;

use crate::backend::PodResources;
use crate::cgroupfs::{self, CgroupError};

/// CFS period when only a quota is given, in microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// `cpu.weight` of a cgroup that nobody has given one.
const DEFAULT_WEIGHT: u64 = 100;

/// What the kernel writes for no limit.
const MAX: &str = "max";

/// Sets the limits on a new cgroup, which has none.
pub(crate) fn write(cgroup: &Utf8Path, resources: &PodResources) -> Result<(), CgroupError> {
    for (file, value) in files(resources) {
        if let Some(value) = value {
            write_one(cgroup, file, &value)?;
        }
    }
    Ok(())
}

/// Makes the limits of a cgroup those that are given; what is `None` becomes unlimited again, and so does what others have limited.
pub(crate) fn replace(cgroup: &Utf8Path, resources: &PodResources) -> Result<(), CgroupError> {
    for (file, value) in files(resources) {
        match value {
            Some(value) => write_one(cgroup, file, &value)?,
            // Without swap in the kernel there is no such file.
            None if !cgroup.join(file).exists() => {}
            None if file == "cpu.weight" => write_one(cgroup, file, &DEFAULT_WEIGHT.to_string())?,
            None => write_one(cgroup, file, MAX)?,
        }
    }
    Ok(())
}

fn write_one(cgroup: &Utf8Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = cgroup.join(file);
    cgroupfs::write(&path, value).map_err(CgroupError::io("write", path.as_path()))
}

/// Control files and their values.
fn files(resources: &PodResources) -> [(&'static str, Option<String>); 5] {
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let period = resources.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
    let quota = resources.cpu_quota_us;
    [
        // No pod's, but Proxmox sets it with the memory that an administrator gives to a container.
        ("memory.high", None),
        ("memory.max", number(resources.memory_bytes)),
        ("memory.swap.max", number(resources.swap_bytes)),
        ("cpu.max", quota.map(|quota| format!("{quota} {period}"))),
        ("cpu.weight", number(resources.cpu_shares.map(cpu_weight))),
    ]
}

/// `cpu.weight` (1 to 10000) for cgroup v1 shares (2 to 262144), on the straight line that the Kubernetes enhancement
/// proposal 2254 and crun use.
pub fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files() {
        let resources = PodResources {
            memory_bytes: Some(1 << 30),
            swap_bytes: Some(0),
            cpu_quota_us: Some(50_000),
            cpu_period_us: None,
            cpu_shares: Some(1024),
        };
        let expected = [
            ("memory.high", None),
            ("memory.max", Some("1073741824".to_owned())),
            ("memory.swap.max", Some("0".to_owned())),
            ("cpu.max", Some("50000 100000".to_owned())),
            ("cpu.weight", Some("39".to_owned())),
        ];
        assert_eq!(files(&resources), expected);
        let none = files(&PodResources::default());
        assert!(none.iter().all(|(_, value)| value.is_none()), "{none:?}");
    }

    #[test]
    fn limits_that_are_gone_are_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Utf8Path::from_path(dir.path()).unwrap();
        // The kernel makes them, and keeps what is written last; there is no swap here.
        let files = ["memory.high", "memory.max", "cpu.max", "cpu.weight"];
        let make = || files.map(|file| std::fs::write(cgroup.join(file), "").unwrap());
        let all = || files.map(|file| std::fs::read_to_string(cgroup.join(file)).unwrap());
        let limited = PodResources {
            memory_bytes: Some(4096),
            cpu_quota_us: Some(1000),
            cpu_shares: Some(2),
            ..PodResources::default()
        };
        make();
        replace(cgroup, &limited).unwrap();
        assert_eq!(all(), ["max", "4096", "1000 100000", "1"]);
        make();
        replace(cgroup, &PodResources::default()).unwrap();
        assert_eq!(all(), ["max", "max", "max", "100"]);
        assert!(!cgroup.join("memory.swap.max").exists());
    }

    #[test]
    fn weights_stay_in_range() {
        assert_eq!(cpu_weight(0), 1);
        assert_eq!(cpu_weight(2), 1);
        assert_eq!(cpu_weight(262_144), 10_000);
        assert_eq!(cpu_weight(u64::MAX), 10_000);
    }
}
