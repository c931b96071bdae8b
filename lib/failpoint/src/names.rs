/// Every failpoint in the code, in the order in which the life of a pod meets them.
pub const ALL: &[&str] = &[
    // A pod's network: its cache file, the plugins' ADD, the result in the cache file, the plugins' DEL.
    "cni.cached",
    "cni.added",
    "cni.recorded",
    "cni.deleted",
];
