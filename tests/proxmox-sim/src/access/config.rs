//! `user.cfg`: users, tokens, roles, access control lists. Pools and groups are not simulated, and kept out of the file.

use std::collections::{BTreeMap, BTreeSet};

use super::roles::{built_in, privileges};
use crate::conf::{decode, encode, split_list};

/// Everything about access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// By id, `name@realm`.
    pub users: BTreeMap<String, User>,
    /// Privileges by role.
    pub roles: BTreeMap<String, BTreeSet<String>>,
    /// Grants by path.
    pub acl: BTreeMap<String, Grants>,
}

/// Who holds which roles on a path, and whether they go further down: by user or token, then by role.
pub type Grants = BTreeMap<String, BTreeMap<String, bool>>;

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Whether he may log in.
    pub enabled: bool,
    /// Seconds since 1970; 0 is never.
    pub expire: u64,
    /// A remark.
    pub comment: String,
    /// By name.
    pub tokens: BTreeMap<String, Token>,
}

/// A token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Seconds since 1970; 0 is never.
    pub expire: u64,
    /// Whether it has privileges of its own, which cannot be more than the user's.
    pub separate: bool,
    /// A remark.
    pub comment: String,
}

impl Default for Users {
    fn default() -> Self {
        let root = User {
            enabled: true,
            ..User::default()
        };
        Self {
            users: BTreeMap::from([("root@pam".to_owned(), root)]),
            roles: built_in(),
            acl: BTreeMap::new(),
        }
    }
}

impl Users {
    /// Reads `user.cfg`. Lines that make no sense are left out.
    pub fn read(text: &str) -> Self {
        let mut users = Self::default();
        for line in text.lines() {
            let fields: Vec<_> = line.split(':').map(str::trim).collect();
            let field = |index: usize| fields.get(index).copied().unwrap_or_default();
            match field(0) {
                "user" => {
                    let user = users.users.entry(field(1).to_owned()).or_default();
                    user.enabled = field(2) == "1";
                    user.expire = field(3).parse().unwrap_or(0);
                    user.comment = decode(field(7));
                }
                "token" => {
                    let token = Token {
                        expire: field(2).parse().unwrap_or(0),
                        separate: field(3) == "1",
                        comment: decode(field(4)),
                    };
                    if let Some((user, name)) = split_token(field(1))
                        && let Some(user) = users.users.get_mut(user)
                    {
                        user.tokens.insert(name.to_owned(), token);
                    }
                }
                "role" => {
                    let known = privileges();
                    let names = split_list(field(2)).into_iter();
                    let names = names.filter(|name| known.contains(name)).map(str::to_owned);
                    users.roles.insert(field(1).to_owned(), names.collect());
                }
                "acl" => users.read_acl(field(1) == "1", field(2), field(3), field(4)),
                _ => {}
            }
        }
        users
    }

    fn read_acl(&mut self, down: bool, path: &str, who: &str, roles: &str) {
        let Some(path) = normalize(path) else {
            return;
        };
        for role in split_list(roles) {
            if !self.roles.contains_key(role) {
                continue;
            }
            for who in split_list(who) {
                let grants = self.acl.entry(path.clone()).or_default();
                let held = grants.entry(who.to_owned()).or_default();
                held.insert(role.to_owned(), down);
            }
        }
    }

    /// The text of `user.cfg`.
    pub fn write(&self) -> String {
        let mut text = String::new();
        for (id, user) in &self.users {
            let (enabled, comment) = (u8::from(user.enabled), encode(&user.comment));
            text.push_str(&format!(
                "user:{id}:{enabled}:{}::::{comment}::\n",
                user.expire
            ));
            for (name, token) in &user.tokens {
                let (separate, comment) = (u8::from(token.separate), encode(&token.comment));
                text.push_str(&format!(
                    "token:{id}!{name}:{}:{separate}:{comment}:\n",
                    token.expire
                ));
            }
        }
        text.push('\n');
        let built_in = built_in();
        for (role, names) in self
            .roles
            .iter()
            .filter(|(role, _)| !built_in.contains_key(*role))
        {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            text.push_str(&format!("role:{role}:{}:\n", names.join(",")));
        }
        text.push('\n');
        for (path, grants) in &self.acl {
            for (who, roles) in grants.iter().filter(|(who, _)| *who != "root@pam") {
                for (role, down) in roles {
                    text.push_str(&format!("acl:{}:{path}:{who}:{role}:\n", u8::from(*down)));
                }
            }
        }
        text
    }
}

/// `user@realm!name`: the user and the name.
pub fn split_token(id: &str) -> Option<(&str, &str)> {
    let (user, name) = id.rsplit_once('!')?;
    let good = name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    (good && is_user(user)).then_some((user, name))
}

/// `name@realm`.
pub fn is_user(id: &str) -> bool {
    id.rsplit_once('@').is_some_and(|(name, realm)| {
        !name.is_empty()
            && !name.contains([':', '/', ' ', '\t', '\n'])
            && realm.len() > 1
            && realm.starts_with(|c: char| c.is_ascii_alphabetic())
            && realm
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
    })
}

/// A path as Proxmox compares it.
pub fn normalize(path: &str) -> Option<String> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let path = format!("/{}", parts.join("/"));
    let good = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    path.bytes().all(good).then_some(path)
}
