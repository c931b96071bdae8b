//! `pveum`: users, tokens, roles and access control lists, as far as a token for nexcage takes them.

use std::collections::BTreeSet;

use serde_json::json;

use crate::access::{Secrets, Token, User, Users, is_user, normalize, privileges, split_token};
use crate::arguments::Arguments;
use crate::conf::{boolean, split_list};
use crate::ct::Node;
use crate::died::{Died, Outcome, io_died};

/// Runs a command, and gives what it prints.
///
/// # Errors
///
/// In Proxmox's words.
pub fn pveum(node: &Node, arguments: &[String]) -> Outcome<String> {
    let given = Arguments::parse(arguments);
    let words: Vec<_> = given.words.iter().map(String::as_str).collect();
    let mut files = Files::read(node)?;
    let printed = match words[..] {
        ["role", "add", role] => files.add_role(role, &given)?,
        ["role", "modify", role] => files.modify_role(role, &given)?,
        ["role", "delete", role] => files.delete_role(role)?,
        ["user", "add", user] => files.add_user(user, &given)?,
        ["user", "modify", user] => files.modify_user(user, &given)?,
        ["user", "delete", user] => files.delete_user(user)?,
        ["user", "token", "add", user, name] => files.add_token(user, name, &given)?,
        ["user", "token", "delete" | "remove", user, name] => files.delete_token(user, name)?,
        ["user", "token", "permissions", user, name] => {
            files.permissions(&format!("{user}!{name}"))
        }
        ["user", "permissions", user] => files.permissions(user),
        ["acl", "modify", path] => files.change_acl(path, &given, true)?,
        ["acl", "delete", path] => files.change_acl(path, &given, false)?,
        _ => {
            let words = words.join(" ");
            return Err(Died::new(format!("ERROR: unknown command 'pveum {words}'")));
        }
    };
    files.write(node)?;
    Ok(printed)
}

struct Files {
    users: Users,
    secrets: Secrets,
}

impl Files {
    fn read(node: &Node) -> Outcome<Self> {
        let read = |name: &str| {
            let file = node.house().pve(name);
            std::fs::read_to_string(&file).map_err(io_died("unable to open file", &file))
        };
        Ok(Self {
            users: Users::read(&read("user.cfg")?),
            secrets: Secrets::read(&read("priv/token.cfg")?),
        })
    }

    fn write(&self, node: &Node) -> Outcome {
        let at = |name: &str| node.house().pve(name);
        let known = |file: &camino::Utf8Path| std::fs::read_to_string(file).unwrap_or_default();
        for (file, text) in [
            (at("user.cfg"), self.users.write()),
            (at("priv/token.cfg"), self.secrets.write()),
        ] {
            if known(&file) != text {
                node.replace(&file, &text)?;
            }
        }
        Ok(())
    }

    fn add_role(&mut self, role: &str, given: &Arguments) -> Outcome<String> {
        if self.users.roles.contains_key(role) {
            return Err(Died::new(format!("role '{role}' already exists")));
        }
        self.users
            .roles
            .insert(role.to_owned(), privileges_of(given)?);
        Ok(String::new())
    }

    fn modify_role(&mut self, role: &str, given: &Arguments) -> Outcome<String> {
        refuse_built_in(role)?;
        let held = self.users.roles.get_mut(role);
        let held = held.ok_or_else(|| Died::new(format!("role '{role}' does not exist")))?;
        let new = privileges_of(given)?;
        match yes(given, "append") {
            true => held.extend(new),
            false => *held = new,
        }
        Ok(String::new())
    }

    fn delete_role(&mut self, role: &str) -> Outcome<String> {
        refuse_built_in(role)?;
        let had = self.users.roles.remove(role);
        had.ok_or_else(|| Died::new(format!("role '{role}' does not exist")))?;
        for roles in self
            .users
            .acl
            .values_mut()
            .flat_map(|grants| grants.values_mut())
        {
            roles.remove(role);
        }
        Ok(String::new())
    }

    fn add_user(&mut self, id: &str, given: &Arguments) -> Outcome<String> {
        if !is_user(id) {
            return Err(Died::parameter(
                "userid",
                format!("invalid format - value '{id}' does not look like a valid user name\n"),
            ));
        }
        if self.users.users.contains_key(id) {
            return Err(Died::new(format!(
                "create user failed: user '{id}' already exists"
            )));
        }
        let user = User {
            enabled: true,
            ..User::default()
        };
        self.users.users.insert(id.to_owned(), user);
        self.modify_user(id, given)
    }

    fn modify_user(&mut self, id: &str, given: &Arguments) -> Outcome<String> {
        let user = self.user(id)?;
        if let Some(comment) = given.options.get("comment") {
            user.comment.clone_from(comment);
        }
        if let Some(enabled) = given.options.get("enable") {
            user.enabled = boolean(enabled).unwrap_or(false);
        }
        if let Some(expire) = given.options.get("expire") {
            user.expire = expire.parse().unwrap_or(0);
        }
        Ok(String::new())
    }

    fn delete_user(&mut self, id: &str) -> Outcome<String> {
        self.user(id)?;
        self.users.users.remove(id);
        let tokens = format!("{id}!");
        let gone = |who: &str| who == id || who.starts_with(&tokens);
        self.secrets.0.retain(|who, _| !gone(who));
        for grants in self.users.acl.values_mut() {
            grants.retain(|who, _| !gone(who));
        }
        Ok(String::new())
    }

    fn add_token(&mut self, id: &str, name: &str, given: &Arguments) -> Outcome<String> {
        let full = format!("{id}!{name}");
        if split_token(&full).is_none() {
            return Err(Died::parameter(
                "tokenid",
                "value does not match the regex pattern",
            ));
        }
        let separate = given
            .options
            .get("privsep")
            .and_then(|text| boolean(text))
            .unwrap_or(true);
        let expire = given
            .options
            .get("expire")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let token = Token {
            expire,
            separate,
            comment: given.options.get("comment").cloned().unwrap_or_default(),
        };
        let user = self.user(id)?;
        if user.tokens.contains_key(name) {
            return Err(Died::parameter("tokenid", "Token already exists."));
        }
        user.tokens.insert(name.to_owned(), token);
        let secret = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
        let secret = secret
            .map_err(io_died("can't open", "uuid"))?
            .trim()
            .to_owned();
        self.secrets.0.insert(full.clone(), secret.clone());
        let privsep = u8::from(separate).to_string();
        if given
            .options
            .get("output-format")
            .is_some_and(|format| format == "json")
        {
            let value =
                json!({"full-tokenid": full, "info": {"privsep": privsep}, "value": secret});
            return Ok(format!("{value}\n"));
        }
        Ok(format!(
            "full-tokenid: {full}\ninfo: {{\"privsep\":\"{privsep}\"}}\nvalue: {secret}\n"
        ))
    }

    fn delete_token(&mut self, id: &str, name: &str) -> Outcome<String> {
        let had = self.user(id)?.tokens.remove(name);
        had.ok_or_else(|| Died::new(format!("no such token '{name}' for user '{id}'")))?;
        let full = format!("{id}!{name}");
        self.secrets.0.remove(&full);
        for grants in self.users.acl.values_mut() {
            grants.remove(&full);
        }
        Ok(String::new())
    }

    fn permissions(&self, who: &str) -> String {
        let mut text = String::new();
        for (path, held) in self.users.all_permissions(who) {
            for (name, down) in held {
                let mark = if down { " (*)" } else { "" };
                text.push_str(&format!("{path} {name}{mark}\n"));
            }
        }
        text
    }

    fn change_acl(&mut self, path: &str, given: &Arguments, add: bool) -> Outcome<String> {
        let path = normalize(path).ok_or_else(|| Died::parameter("path", "invalid ACL path"))?;
        let list = |names: [&str; 2]| {
            let values = names.into_iter().filter_map(|name| given.options.get(name));
            let parts = values.flat_map(|text| split_list(text));
            parts.map(str::to_owned).collect::<Vec<_>>()
        };
        let roles = list(["roles", "role"]);
        if roles.is_empty() {
            return Err(Died::parameter(
                "roles",
                "property is missing and it is not optional",
            ));
        }
        let (users, tokens) = (list(["users", "user"]), list(["tokens", "token"]));
        if users.is_empty() && tokens.is_empty() {
            let words = "either 'users', 'groups' or 'tokens' is required.";
            return Err(Died::parameters(
                [("users", words), ("tokens", words)]
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .into(),
            ));
        }
        for role in &roles {
            if !self.users.roles.contains_key(role) {
                return Err(Died::new(format!("role '{role}' does not exist")));
            }
        }
        for user in &users {
            self.user(user)?;
        }
        for token in &tokens {
            let known = split_token(token)
                .and_then(|(user, name)| self.users.users.get(user)?.tokens.get(name));
            known.ok_or_else(|| Died::new(format!("no such token '{token}'")))?;
        }
        let down = given
            .options
            .get("propagate")
            .and_then(|text| boolean(text))
            .unwrap_or(true);
        let grants = self.users.acl.entry(path).or_default();
        for who in users.into_iter().chain(tokens) {
            let held = grants.entry(who).or_default();
            for role in &roles {
                match add {
                    true => drop(held.insert(role.clone(), down)),
                    false => drop(held.remove(role)),
                }
            }
        }
        grants.retain(|_, roles| !roles.is_empty());
        self.users.acl.retain(|_, grants| !grants.is_empty());
        Ok(String::new())
    }

    fn user(&mut self, id: &str) -> Outcome<&mut User> {
        let user = self.users.users.get_mut(id);
        user.ok_or_else(|| Died::new(format!("no such user ('{id}')")))
    }
}

fn privileges_of(given: &Arguments) -> Outcome<BTreeSet<String>> {
    let known = privileges();
    let names = split_list(given.options.get("privs").map_or("", String::as_str));
    if let Some(unknown) = names.iter().find(|name| !known.contains(**name)) {
        return Err(Died::new(format!("invalid privilege '{unknown}'")));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

fn refuse_built_in(role: &str) -> Outcome {
    match crate::access::built_in().contains_key(role) {
        true => Err(Died::new(format!(
            "auto-generated role '{role}' can not be modified"
        ))),
        false => Ok(()),
    }
}

fn yes(given: &Arguments, name: &str) -> bool {
    given
        .options
        .get(name)
        .and_then(|text| boolean(text))
        .unwrap_or(false)
}
