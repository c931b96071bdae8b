//! Many numbers in few.

use std::time::Duration;

use serde::Serialize;

/// The middle and the end of some measurements.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// In the order they were measured.
    pub(crate) all: Vec<f64>,
}

impl Summary {
    /// By the nearest rank; none of nothing.
    pub(crate) fn of(all: Vec<f64>) -> Option<Self> {
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(at - 1).copied()
        };
        Some(Self {
            p50: rank(50)?,
            p99: rank(99)?,
            all,
        })
    }
}

/// Milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Mebibytes.
#[allow(clippy::cast_precision_loss, reason = "shown with two decimals")]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_measured_values() {
        let of = |n: i32| Summary::of((1..=n).rev().map(f64::from).collect()).unwrap();
        assert_eq!((of(50).p50, of(50).p99), (25.0, 50.0));
        assert_eq!((of(200).p50, of(200).p99), (100.0, 198.0));
        assert_eq!((of(1).p50, of(1).p99), (1.0, 1.0));
        assert_eq!(Summary::of(Vec::new()), None);
    }
}
