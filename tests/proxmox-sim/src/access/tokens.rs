//! `priv/token.cfg`: the secrets of tokens.

use std::collections::BTreeMap;

use super::config::{Users, split_token};

/// Secrets by token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, String>);

impl Secrets {
    /// Reads the file.
    pub fn read(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let good = lines.filter(|(id, _)| split_token(id).is_some());
        Self(
            good.map(|(id, secret)| (id.to_owned(), secret.trim().to_owned()))
                .collect(),
        )
    }

    /// The text of the file.
    pub fn write(&self) -> String {
        let lines = self.0.iter().map(|(id, secret)| format!("{id} {secret}\n"));
        lines.collect()
    }
}

impl Users {
    /// Whose token `id=secret` is, if it is good at the moment `now`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// Why it is not, which Proxmox tells its log alone.
    pub fn verify<'a>(
        &self,
        token: &'a str,
        secrets: &Secrets,
        now: u64,
    ) -> Result<&'a str, String> {
        let (id, secret) = token.rsplit_once('=').ok_or("no tokenid specified")?;
        let (name, token) =
            split_token(id).ok_or_else(|| format!("'{id}' is not a valid token ID"))?;
        let user = self
            .users
            .get(name)
            .ok_or_else(|| format!("no such user ('{name}')"))?;
        let expired = |expire: u64| expire != 0 && expire < now;
        if !user.enabled {
            return Err(format!("user '{name}' is disabled"));
        }
        if expired(user.expire) {
            return Err(format!("user '{name}' access expired"));
        }
        let known = user.tokens.get(token);
        let known = known.ok_or_else(|| format!("no such token '{token}' for user '{name}'"))?;
        if expired(known.expire) {
            return Err(format!("token '{token}' access expired"));
        }
        match secrets.0.get(id) {
            Some(known) if known == secret => Ok(id),
            _ => Err("invalid token value!".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_verified() {
        let users = Users::read(
            "user:a@pve:1:0::::::\nuser:off@pve:0:0::::::\nuser:old@pve:1:5::::::\n\
             token:a@pve!t1:0:1::\ntoken:a@pve!old:5:1::\ntoken:off@pve!t1:0:1::\ntoken:old@pve!t1:0:1::\n",
        );
        let secrets =
            Secrets::read("a@pve!t1 s\na@pve!old s\noff@pve!t1 s\nold@pve!t1 s\nnonsense s\n");
        assert_eq!(secrets.0.len(), 4);
        assert_eq!(Secrets::read(&secrets.write()), secrets);
        assert_eq!(users.verify("a@pve!t1=s", &secrets, 10), Ok("a@pve!t1"));
        for token in [
            "a@pve!t1=x",
            "a@pve!t2=s",
            "a@pve!old=s",
            "off@pve!t1=s",
            "old@pve!t1=s",
            "b@pve!t1=s",
            "a@pve=s",
            "nonsense",
        ] {
            assert!(users.verify(token, &secrets, 10).is_err(), "{token}");
        }
    }
}
