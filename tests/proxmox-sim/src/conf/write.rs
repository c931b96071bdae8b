//! Writing a configuration.

use super::text::encode;
use super::{Conf, Section};

impl Conf {
    /// The file's text.
    pub fn write(&self) -> String {
        let mut text = section(&self.current, &[]);
        if !self.pending.is_empty() || !self.delete.is_empty() {
            text.push_str("\n[pve:pending]\n");
            text.push_str(&section(&self.pending, &self.delete));
        }
        for (name, snapshot) in &self.snapshots {
            text.push_str(&format!("\n[{name}]\n"));
            text.push_str(&section(snapshot, &[]));
        }
        text
    }
}

fn section(section: &Section, delete: &[String]) -> String {
    let mut text = String::new();
    // Perl's split leaves empty lines at the end out.
    let description = section.description.trim_end_matches('\n');
    for line in description.split('\n').filter(|_| !description.is_empty()) {
        text.push_str(&format!("#{}\n", encode(line)));
    }
    let mut values: Vec<_> = section
        .values
        .iter()
        .map(|(k, v)| (k.as_str(), v.clone()))
        .collect();
    if !delete.is_empty() {
        values.push(("delete", delete.join(",")));
        values.sort();
    }
    for (key, value) in values {
        text.push_str(&format!("{key}: {value}\n"));
    }
    for variable in &section.env {
        text.push_str(&format!("lxc.environment.runtime: {variable}\n"));
    }
    for (key, value) in &section.lxc {
        text.push_str(&format!("{key}: {value}\n"));
    }
    text
}
