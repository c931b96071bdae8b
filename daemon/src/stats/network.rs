//! Interfaces of a pod's network namespace.

/// Counters of one interface, from its own point of view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InterfaceUsage {
    pub(crate) name: String,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_errors: u64,
}

/// The interfaces a process sees, without `lo`.
pub(crate) fn interfaces(pid: u32) -> Vec<InterfaceUsage> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    parse(&text)
}

/// proc_pid_net(5), `/proc/pid/net/dev`: two lines of heading, then one per interface.
fn parse(text: &str) -> Vec<InterfaceUsage> {
    text.lines()
        .skip(2)
        .filter_map(parse_line)
        .filter(|i| i.name != "lo")
        .collect()
}

fn parse_line(line: &str) -> Option<InterfaceUsage> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let at = |n: usize| counters.get(n).copied();
    Some(InterfaceUsage {
        name: name.trim().to_owned(),
        rx_bytes: at(0)?,
        rx_errors: at(2)?,
        tx_bytes: at(8)?,
        tx_errors: at(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_from_their_columns() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes\n    \
            lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n  \
            eth0: 100 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16\n";
        let eth0 = InterfaceUsage {
            name: "eth0".into(),
            rx_bytes: 100,
            rx_errors: 3,
            tx_bytes: 900,
            tx_errors: 11,
        };
        assert_eq!(parse(text), [eth0]);
    }
}
