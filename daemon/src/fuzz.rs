//! What the fuzz targets in `fuzz/` call. For nobody else.

use crate::containers::capability;
use crate::containers::seccomp::{Profile, Target};

/// A seccomp profile, resolved for a container with some capabilities and for one with none.
pub fn seccomp(text: &[u8]) {
    let Ok(profile) = Profile::parse(text) else {
        return;
    };
    let some = [capability("SYS_ADMIN"), capability("BPF")];
    let some: Vec<_> = some.into_iter().flatten().collect();
    for capabilities in [&some[..], &[]] {
        let _ = profile.resolve(Target::this_machine(), capabilities);
    }
}

/// The log of a container.
pub fn log(log: &[u8]) {
    crate::cli::log_line::fuzz(log);
}
