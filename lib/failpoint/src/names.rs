/// Every failpoint in the code, in the order in which the life of a pod meets them.
pub const ALL: &[&str] = &[
    // A pod's network: its cache file, the plugins' ADD, the result in the cache file, the plugins' DEL.
    "cni.cached",
    "cni.added",
    "cni.recorded",
    "cni.deleted",
    // A container: its directories, conmon, crun's part of it, its start, crun's delete, the directories gone.
    "oci.prepared",
    "oci.conmon-started",
    "oci.created",
    "oci.started",
    "oci.deleted",
    "oci.forgotten",
];
