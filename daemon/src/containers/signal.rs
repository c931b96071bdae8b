//! Signals by number and by the names that images and CRI use.

use std::fmt;

use serde::{Deserialize, Serialize};

/// First real-time signal of glibc, which keeps 32 and 33 for itself (signal(7)); what
/// Docker and containerd mean by `SIGRTMIN` as well.
const RTMIN: i32 = 34;
/// Last real-time signal.
const RTMAX: i32 = 64;

/// Numbers of x86 and ARM (signal(7)); the first name of a number is the one shown.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", RTMIN),
    ("RTMAX", RTMAX),
];

/// A signal that can be sent to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Signal(i32);

impl Signal {
    /// What a container gets that asks for nothing else.
    pub(crate) const TERM: Self = Self(15);

    /// The signal with this number.
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        (1..=RTMAX).contains(&number).then_some(Self(number))
    }

    /// Reads `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3` and `SIGRTMAX-2`, in any case: the forms
    /// that `STOPSIGNAL` of an image may have.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse() {
            return Self::from_number(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let step = |digits: &str| digits.parse::<u8>().ok().map(i32::from);
        let number = if let Some(above) = name.strip_prefix("RTMIN+") {
            RTMIN + step(above)?
        } else if let Some(below) = name.strip_prefix("RTMAX-") {
            let number = RTMAX - step(below)?;
            (number >= RTMIN).then_some(number)?
        } else {
            NAMES.iter().find(|(known, _)| *known == name)?.1
        };
        Self::from_number(number)
    }

    /// Its number on this machine.
    pub(crate) fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None if self.0 > RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            // 32 and 33 have no name.
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_form_an_image_may_have() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-2", 62),
        ] {
            assert_eq!(
                Signal::parse(text).map(Signal::number),
                Some(number),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_signal() {
        for text in [
            "",
            "0",
            "65",
            "-1",
            "SIGNOPE",
            "SIG",
            "SIGRTMIN+31",
            "SIGRTMAX-31",
            "RTMIN+-1",
        ] {
            assert_eq!(Signal::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_signal_reads_back_from_its_name(number in 1..=RTMAX) {
            let signal = Signal::from_number(number).unwrap();
            prop_assert_eq!(Signal::parse(&signal.to_string()), Some(signal));
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = Signal::parse(&text);
        }
    }
}
