//! Who may do what: `user.cfg` and `priv/token.cfg`, as Proxmox keeps and reads them.

mod check;
mod config;
mod roles;
mod tokens;

pub use check::Privileges;
pub use check::ROOT;
pub use config::Grants;
pub use config::Token;
pub use config::User;
pub use config::Users;
pub use config::is_user;
pub use config::normalize;
pub use config::split_token;
pub use roles::built_in;
pub use roles::privileges;
pub use tokens::Secrets;
