//! What the kernel says of a process (proc_pid_stat(5)).

/// State and start time of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Third field of `/proc/<pid>/stat`.
    pub(crate) state: char,
    /// Field 22, in clock ticks from boot.
    pub(crate) start_time: u64,
}

impl Stat {
    /// Of a process; `None` if there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Whether it has ended and only waits for its parent to notice.
    pub(crate) fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The second field is the program's name in parentheses and may contain anything.
fn parse(stat: &str) -> Option<Stat> {
    let mut rest = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    Some(Stat {
        state: rest.next()?.chars().next()?,
        start_time: rest.nth(18)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_may_contain_anything() {
        let stat = "7 (a) b) R) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let expected = Stat {
            state: 'S',
            start_time: 4242,
        };
        assert_eq!(parse(stat), Some(expected));
    }

    #[test]
    fn this_process_lives() {
        let me = Stat::of(std::process::id()).unwrap();
        assert!(!me.is_dead() && me.start_time > 0);
        assert_eq!(Stat::of(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
