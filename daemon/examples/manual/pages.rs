//! Man pages of the command line: nexcage(1), one for each subcommand, and the daemon's in section 8.

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;

/// File name and text of every page.
pub(crate) fn pages(command: Command) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    // Each page's name and usage begin with `nexcage`, which clap works out when it builds the tree.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, "nexcage", &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let section = if name == "nexcage-daemon" { "8" } else { "1" };
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name.to_uppercase())
        .section(section)
        .manual("nexcage")
        .render(&mut page)
        .with_context(|| format!("cannot write the page {name}"))?;
    // clap knows no sections, and refers to every subcommand in section 1.
    let page = String::from_utf8(page)
        .with_context(|| format!("the page {name} is not UTF-8"))?
        .replace(r"nexcage\-daemon(1)", r"nexcage\-daemon(8)");
    pages.push((format!("{name}.{section}"), page.into_bytes()));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add(sub, &format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_page() {
        let pages = pages(nexcage::command()).unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in [
            "nexcage.1",
            "nexcage-daemon.8",
            "nexcage-run.1",
            "nexcage-config-check.1",
        ] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        for (name, page) in &pages {
            let text = std::str::from_utf8(page).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{name}:\n{text}");
            assert!(!text.contains("daemon(1)"), "{name}:\n{text}");
        }
    }
}
