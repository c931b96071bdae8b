//! What this node has.

use std::io;

/// What a container without limits may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeSize {
    /// Memory in MiB.
    pub(crate) memory_mib: u64,
    /// Swap space in MiB.
    pub(crate) swap_mib: u64,
}

impl NodeSize {
    /// This machine's. Blocks.
    pub(crate) fn read() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/meminfo")?;
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal")
        })
    }

    /// From proc_meminfo(5), which counts in KiB.
    fn parse(text: &str) -> Option<Self> {
        let mib = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let number = line.strip_prefix(':')?.trim().strip_suffix("kB")?;
            Some(number.trim().parse::<u64>().ok()? / 1024)
        };
        Some(Self {
            memory_mib: mib("MemTotal")?,
            swap_mib: mib("SwapTotal").unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_mebibytes() {
        let text = "MemTotal:       16384256 kB\nMemFree:  1 kB\nSwapTotal:       2097148 kB\n";
        let expected = NodeSize {
            memory_mib: 16_000,
            swap_mib: 2047,
        };
        assert_eq!(NodeSize::parse(text), Some(expected));
        assert_eq!(NodeSize::parse("SwapTotal: 1 kB\n"), None);
        assert!(NodeSize::read().unwrap().memory_mib > 0);
    }
}
