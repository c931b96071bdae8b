//! What somebody may do: users, tokens, inheritance. Each level of a path replaces what was inherited, if it grants anything at all.

use std::collections::BTreeMap;

use super::config::{Users, split_token};
use super::roles::privileges;

/// Privileges, and whether each also holds further down.
pub type Privileges = BTreeMap<String, bool>;

/// Paths that are always listed.
const TOP: [&str; 8] = [
    "/",
    "/access",
    "/access/groups",
    "/nodes",
    "/pool",
    "/sdn",
    "/storage",
    "/vms",
];

/// The administrator of the node, who may do everything. No token is ever he.
pub const ROOT: &str = "root@pam";

impl Users {
    /// What a user or token may do on a path.
    pub fn permissions(&self, who: &str, path: &str) -> Privileges {
        if who == ROOT {
            return privileges()
                .into_iter()
                .map(|name| (name.to_owned(), true))
                .collect();
        }
        let Some((user, name)) = split_token(who) else {
            return self.privileges_of(who, path);
        };
        let token = self.users.get(user).and_then(|user| user.tokens.get(name));
        let Some(token) = token else {
            return Privileges::new();
        };
        let of_user = self.permissions(user, path);
        if !token.separate {
            return of_user;
        }
        let own = self.privileges_of(who, path).into_iter();
        let both = own.filter_map(|(name, down)| {
            let user_down = of_user.get(&name)?;
            Some((name, down && *user_down))
        });
        both.collect()
    }

    /// Paths where something is held, with what is.
    pub fn all_permissions(&self, who: &str) -> BTreeMap<String, Privileges> {
        let granted = self.acl.keys().map(String::as_str);
        let paths = TOP.into_iter().chain(granted);
        let held = paths.map(|path| (path.to_owned(), self.permissions(who, path)));
        held.filter(|(_, held)| !held.is_empty()).collect()
    }

    fn privileges_of(&self, who: &str, path: &str) -> Privileges {
        let mut held = Privileges::new();
        for (role, down) in self.roles_of(who, path) {
            let names = self.roles.get(&role).into_iter().flatten();
            for name in names {
                let entry = held.entry(name.clone()).or_insert(down);
                *entry = *entry || down;
            }
        }
        held
    }

    fn roles_of(&self, who: &str, path: &str) -> BTreeMap<String, bool> {
        let mut roles = BTreeMap::new();
        for level in levels(path) {
            let granted = self.acl.get(&level).and_then(|grants| grants.get(who));
            let here: BTreeMap<String, bool> = granted
                .into_iter()
                .flatten()
                .filter(|(_, down)| level == path || **down)
                .map(|(role, down)| (role.clone(), *down))
                .collect();
            if !here.is_empty() {
                roles = here;
            }
        }
        if roles.contains_key("NoAccess") {
            return BTreeMap::new();
        }
        roles
    }
}

/// `/`, `/vms`, `/vms/100`.
fn levels(path: &str) -> Vec<String> {
    let mut levels = vec!["/".to_owned()];
    let mut level = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        level = format!("{level}/{part}");
        levels.push(level.clone());
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
user:root@pam:1:0::::::\n\
user:nexcage@pve:1:0::::Kubernetes%3A pods::\n\
token:nexcage@pve!node:0:1::\n\
token:nexcage@pve!same:0:0::\n\
token:root@pam!all:0:0::\n\
role:Nexcage:VM.Audit,VM.PowerMgmt,No.Such:\n\
acl:1:/:nexcage@pve:PVEAuditor:\n\
acl:1:/vms:nexcage@pve,nexcage@pve!node:Nexcage:\n\
acl:0:/nodes:nexcage@pve,nexcage@pve!node:PVESysAdmin:\n\
acl:1:/vms/100:nexcage@pve!node:NoAccess:\n";

    fn has(users: &Users, who: &str, path: &str, name: &str) -> bool {
        users.permissions(who, path).contains_key(name)
    }

    #[test]
    fn grants_are_inherited_until_the_next() {
        let users = Users::read(CONFIG);
        let user = "nexcage@pve";
        assert!(has(&users, user, "/vms/900000", "VM.PowerMgmt"));
        assert!(has(&users, user, "/storage/nex", "Datastore.Audit"));
        assert!(
            !has(&users, user, "/vms/900000", "Sys.Audit"),
            "replaced by what /vms grants"
        );
        assert!(has(&users, user, "/nodes", "Sys.Console"));
        assert!(
            !has(&users, user, "/nodes/pve1", "Sys.Console"),
            "does not go down"
        );
        assert!(
            has(&users, user, "/nodes/pve1", "Sys.Audit"),
            "from / instead"
        );
    }

    #[test]
    fn tokens_have_what_both_have() {
        let users = Users::read(CONFIG);
        assert!(has(&users, "nexcage@pve!node", "/vms/101", "VM.Audit"));
        assert!(!has(&users, "nexcage@pve!node", "/vms/100", "VM.Audit"));
        assert!(!has(
            &users,
            "nexcage@pve!node",
            "/storage",
            "Datastore.Audit"
        ));
        assert!(has(
            &users,
            "nexcage@pve!same",
            "/storage",
            "Datastore.Audit"
        ));
        assert!(!has(&users, "nexcage@pve!other", "/vms", "VM.Audit"));
        assert!(has(&users, "root@pam", "/anything", "Sys.Modify"));
        assert!(has(&users, "root@pam!all", "/anything", "Sys.Modify"));
    }

    #[test]
    fn permissions_are_listed_with_their_reach() {
        let users = Users::read(CONFIG);
        let listed = users.all_permissions("nexcage@pve!node");
        let paths: Vec<_> = listed.keys().map(String::as_str).collect();
        assert_eq!(paths, ["/nodes", "/vms"]);
        assert!(listed["/vms"]["VM.Audit"]);
        assert!(!listed["/nodes"]["Sys.Audit"]);
        assert!(Users::default().all_permissions("x@pve").is_empty());
    }

    #[test]
    fn what_is_written_is_read() {
        let users = Users::read(CONFIG);
        let text = users.write();
        assert_eq!(Users::read(&text), users);
        assert!(
            text.contains("user:nexcage@pve:1:0::::Kubernetes%3A pods::\n"),
            "{text}"
        );
        assert!(
            !text.contains("PVEAuditor:VM"),
            "roles of Proxmox are not written"
        );
    }
}
