//! The images of the local registry that tests use. `xtask/src/images/catalog.rs` has them all.

/// A shell and small programs; runs `sh`.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
/// The same image by another name, in another registry.
pub const BUSYBOX_ELSEWHERE: &str = "docker.io/library/busybox:latest";
/// A web server on port 80.
pub const NGINX: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-2";
