//! pmxcfs, the file system of `/etc/pve`: its rules, and where it is kept.

mod fuse;
mod mount;
mod names;
mod special;
mod store;
mod tree;
mod view;

pub use mount::Pmxcfs;
pub use names::Guest;
pub use names::GuestType;
pub use names::guest_of;
pub use names::is_lock;
pub use names::is_node_name;
pub use names::is_private;
pub use special::Cluster;
pub use tree::FIRST;
pub use tree::MAX_FILE;
pub use tree::OpenError;
pub use tree::ROOT;
pub use tree::Stat;
pub use tree::Tree;
