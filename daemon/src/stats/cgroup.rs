//! Files of cgroup v2 (kernel documentation, admin-guide/cgroup-v2).

use camino::Utf8Path;

use super::{MemoryUsage, Pressure, PressureLine, Pressures};

/// `usage_usec` of `cpu.stat`, in nanoseconds. There without the cpu controller too.
pub(crate) fn cpu_ns(dir: &Utf8Path) -> Option<u64> {
    let text = std::fs::read_to_string(dir.join("cpu.stat")).ok()?;
    keyed(&text, "usage_usec").map(|us| us.saturating_mul(1000))
}

/// Memory, where the memory controller is enabled.
pub(crate) fn memory(dir: &Utf8Path) -> Option<MemoryUsage> {
    let usage = number(dir, "memory.current")?;
    let stat = std::fs::read_to_string(dir.join("memory.stat")).ok()?;
    let of = |key| keyed(&stat, key);
    let working_set = usage.saturating_sub(of("inactive_file").unwrap_or(0));
    let limit = number(dir, "memory.max");
    let swap = number(dir, "memory.swap.current");
    let swap_limit = number(dir, "memory.swap.max");
    Some(MemoryUsage {
        usage,
        working_set,
        rss: of("anon").unwrap_or(0),
        available: limit.map(|limit| limit.saturating_sub(working_set)),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        swap,
        swap_available: swap_limit
            .zip(swap)
            .map(|(limit, used)| limit.saturating_sub(used)),
    })
}

/// Pressure stall information, where the kernel keeps it.
pub(crate) fn pressures(dir: &Utf8Path) -> Pressures {
    let read = |file: &str| {
        let text = std::fs::read_to_string(dir.join(file)).ok()?;
        parse_pressure(&text)
    };
    Pressures {
        cpu: read("cpu.pressure"),
        memory: read("memory.pressure"),
        io: read("io.pressure"),
    }
}

/// A file that holds one number; `max` and anything else is `None`.
fn number(dir: &Utf8Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(dir.join(file))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// The value of `key` in a flat-keyed file.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok()).flatten()
    })
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (kind, fields) = line.split_once(' ')?;
        match kind {
            "some" => pressure.some = parse_pressure_line(fields)?,
            "full" => pressure.full = parse_pressure_line(fields)?,
            _ => {}
        }
    }
    Some(pressure)
}

fn parse_pressure_line(fields: &str) -> Option<PressureLine> {
    let mut line = PressureLine::default();
    for field in fields.split(' ') {
        let (name, value) = field.split_once('=')?;
        match name {
            "avg10" => line.avg10 = hundredths(value)?,
            "avg60" => line.avg60 = hundredths(value)?,
            "avg300" => line.avg300 = hundredths(value)?,
            "total" => line.total_ns = value.parse::<u64>().ok()?.saturating_mul(1000),
            _ => {}
        }
    }
    Some(line)
}

/// `1.25` as 125.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.')?;
    if part.len() != 2 {
        return None;
    }
    whole
        .parse::<u32>()
        .ok()?
        .checked_mul(100)?
        .checked_add(part.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> (tempfile::TempDir, camino::Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let path = camino::Utf8PathBuf::try_from(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    #[test]
    fn memory_is_read_as_kubelet_reads_it() {
        let (_keep, dir) = dir(&[
            ("memory.current", "1000\n"),
            (
                "memory.stat",
                "anon 300\nfile 700\ninactive_file 400\npgfault 7\npgmajfault 1\n",
            ),
            ("memory.max", "2000\n"),
            ("memory.swap.current", "5\n"),
            ("memory.swap.max", "max\n"),
        ]);
        let memory = memory(&dir).unwrap();
        assert_eq!(
            (memory.usage, memory.working_set, memory.rss),
            (1000, 600, 300)
        );
        assert_eq!(memory.available, Some(1400));
        assert_eq!((memory.swap, memory.swap_available), (Some(5), None));
    }

    #[test]
    fn without_the_controller_there_is_no_memory() {
        let (_keep, dir) = dir(&[("cpu.stat", "usage_usec 12\nuser_usec 10\n")]);
        assert_eq!(memory(&dir), None);
        assert_eq!(cpu_ns(&dir), Some(12_000));
    }

    #[test]
    fn pressure_is_parsed_exactly() {
        let text = "some avg10=1.25 avg60=0.00 avg300=100.00 total=42\n\
                    full avg10=0.10 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = parse_pressure(text).unwrap();
        assert_eq!(pressure.some.avg10, 125);
        assert_eq!(pressure.some.avg300, 10_000);
        assert_eq!(
            (pressure.some.total_ns, pressure.full.total_ns),
            (42_000, 7_000)
        );
        assert_eq!(parse_pressure("nonsense"), None);
    }
}
