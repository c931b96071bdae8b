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
    // A layer: its record, its directory, its files, the record again, the flush; its removal.
    "overlay.layer-row",
    "overlay.layer-dir",
    "overlay.layer-unpacked",
    "overlay.layer-written",
    "overlay.flushed",
    "overlay.layer-removing",
    "overlay.layer-discarded",
    // A root filesystem: its record (or that of a read-only view), its directories, the mount; and back.
    "overlay.rootfs-row",
    "overlay.view-row",
    "overlay.rootfs-dirs",
    "overlay.layer-mapped",
    "overlay.rootfs-mounted",
    "overlay.rootfs-unmounted",
    "overlay.rootfs-discarded",
];
