//! Changes that are asked for, and when they take effect.

use super::{Conf, Section};

impl Section {
    /// Sets a key, the two that are kept in another form too.
    pub fn set(&mut self, key: &str, value: &str) {
        match key {
            "description" => {
                let end = if value.is_empty() || value.ends_with('\n') {
                    ""
                } else {
                    "\n"
                };
                self.description = format!("{value}{end}");
            }
            "env" => {
                let variables = value.split('\0').filter(|variable| !variable.is_empty());
                self.env = variables.map(str::to_owned).collect();
            }
            _ => drop(self.values.insert(key.to_owned(), value.to_owned())),
        }
    }

    /// Removes a key.
    pub fn unset(&mut self, key: &str) {
        match key {
            "description" => self.description.clear(),
            "env" => self.env.clear(),
            _ => drop(self.values.remove(key)),
        }
    }

    /// Whether a key is set.
    pub fn has(&self, key: &str) -> bool {
        match key {
            "description" => !self.description.is_empty(),
            "env" => !self.env.is_empty(),
            _ => self.values.contains_key(key),
        }
    }

    /// Keys that are set, those of LXC apart.
    pub fn keys(&self) -> Vec<String> {
        let special = ["description", "env"]
            .into_iter()
            .filter(|key| self.has(key));
        special
            .map(str::to_owned)
            .chain(self.values.keys().cloned())
            .collect()
    }

    /// Moves a key from another section here.
    fn take(&mut self, from: &mut Self, key: &str) {
        match key {
            "description" => self.description = std::mem::take(&mut from.description),
            "env" => self.env = std::mem::take(&mut from.env),
            _ => {
                if let Some(value) = from.values.remove(key) {
                    self.values.insert(key.to_owned(), value);
                }
            }
        }
    }
}

impl Conf {
    /// Asks for a value.
    pub fn request(&mut self, key: &str, value: &str) {
        self.pending.set(key, value);
        self.delete.retain(|known| known != key);
    }

    /// Asks for a key to be gone.
    pub fn request_deletion(&mut self, key: &str) {
        self.pending.unset(key);
        if !self.delete.iter().any(|known| known == key) {
            self.delete.push(key.to_owned());
        }
    }

    /// Takes back what was asked for.
    pub fn revert(&mut self, key: &str) {
        self.pending.unset(key);
        self.delete.retain(|known| known != key);
    }

    /// Puts one key into effect, whatever was asked for it.
    pub fn apply(&mut self, key: &str) {
        if let Some(at) = self.delete.iter().position(|known| known == key) {
            self.delete.remove(at);
            self.current.unset(key);
        } else {
            self.current.take(&mut self.pending, key);
        }
    }

    /// Puts everything into effect: the container does not run.
    pub fn apply_pending(&mut self) {
        for key in self.delete.clone().into_iter().chain(self.pending.keys()) {
            self.apply(&key);
        }
    }

    /// Forgets what is asked for and already so.
    pub fn forget_settled(&mut self) {
        for key in self.pending.keys() {
            let same = match key.as_str() {
                "description" => self.pending.description == self.current.description,
                "env" => self.pending.env == self.current.env,
                key => self.pending.get(key) == self.current.get(key),
            };
            if same {
                self.pending.unset(&key);
            }
        }
        let current = &self.current;
        self.delete.retain(|key| current.has(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_wait_and_are_applied() {
        let (mut conf, _) = Conf::read(
            100,
            "cores: 1\nhostname: a\nmemory: 128\nlxc.init.cmd: /x\n",
        );
        conf.request("hostname", "b");
        conf.request("cores", "1");
        conf.request("description", "two\nlines");
        conf.request_deletion("memory");
        conf.request_deletion("swap");
        conf.forget_settled();
        assert_eq!(conf.pending.keys(), ["description", "hostname"]);
        assert_eq!(conf.delete, ["memory"]);
        assert_eq!(conf.current.get("hostname"), Some("a"));
        conf.apply("hostname");
        assert_eq!(conf.current.get("hostname"), Some("b"));
        conf.apply_pending();
        assert!(conf.pending.is_empty() && conf.delete.is_empty());
        let wanted = "#two\n#lines\ncores: 1\nhostname: b\nlxc.init.cmd: /x\n";
        assert_eq!(conf.write(), wanted);
    }

    #[test]
    fn what_was_asked_for_can_be_taken_back() {
        let (mut conf, _) = Conf::read(100, "hostname: a\n");
        conf.request("hostname", "b");
        conf.request_deletion("tags");
        conf.revert("hostname");
        conf.revert("tags");
        assert_eq!(conf.write(), "hostname: a\n");
    }
}
