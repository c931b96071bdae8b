/// Every failpoint in the code, in the order in which the life of a pod meets them.
pub const ALL: &[&str] = &[];
