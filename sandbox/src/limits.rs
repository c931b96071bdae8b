//! A pod's limits as cgroup v2 has them.

use camino::Utf8Path;

use crate::backend::PodResources;
use crate::cgroupfs::{self, CgroupError};

/// CFS period when only a quota is given, in microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// Sets the limits on a cgroup; what is `None` is left as it is.
pub(crate) fn write(cgroup: &Utf8Path, resources: &PodResources) -> Result<(), CgroupError> {
    for (file, value) in files(resources) {
        let path = cgroup.join(file);
        cgroupfs::write(&path, &value).map_err(CgroupError::io("write", path.as_path()))?;
    }
    Ok(())
}

/// Control files and their values.
fn files(resources: &PodResources) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    if let Some(bytes) = resources.memory_bytes {
        files.push(("memory.max", bytes.to_string()));
    }
    if let Some(bytes) = resources.swap_bytes {
        files.push(("memory.swap.max", bytes.to_string()));
    }
    if let Some(quota) = resources.cpu_quota_us {
        let period = resources.cpu_period_us.unwrap_or(DEFAULT_PERIOD_US);
        files.push(("cpu.max", format!("{quota} {period}")));
    }
    if let Some(shares) = resources.cpu_shares {
        files.push(("cpu.weight", weight(shares).to_string()));
    }
    files
}

/// `cpu.weight` (1 to 10000) for cgroup v1 shares (2 to 262144), on the straight line that the Kubernetes enhancement
/// proposal 2254 and crun use.
fn weight(shares: u64) -> u64 {
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
            ("memory.max", "1073741824".to_owned()),
            ("memory.swap.max", "0".to_owned()),
            ("cpu.max", "50000 100000".to_owned()),
            ("cpu.weight", "39".to_owned()),
        ];
        assert_eq!(files(&resources), expected);
        assert!(files(&PodResources::default()).is_empty());
    }

    #[test]
    fn weights_stay_in_range() {
        assert_eq!(weight(0), 1);
        assert_eq!(weight(2), 1);
        assert_eq!(weight(262_144), 10_000);
        assert_eq!(weight(u64::MAX), 10_000);
    }
}
