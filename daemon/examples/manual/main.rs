//! Writes what packages install beside the program: man pages and shell completions.
//!
//! `cargo run -p nexcage --example manual -- DIRECTORY` makes `man/`, `bash/`, `zsh/` and `fish/` there. All of it
//! follows from the definition of the command line and from the types of the configuration, and none of it is in the program
//! itself: what only a build needs is a dependency of an example.

mod config_page;
mod pages;

use std::fs;

use anyhow::Context as _;
use camino::Utf8PathBuf;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let directory: Utf8PathBuf = std::env::args()
        .nth(1)
        .context("usage: manual DIRECTORY")?
        .into();
    let man = directory.join("man");
    fs::create_dir_all(&man).with_context(|| format!("cannot make {man}"))?;
    let mut pages = pages::pages(nexcage::command())?;
    pages.push(("nexcage.json.5".to_owned(), config_page::page()?));
    for (name, page) in pages {
        let path = man.join(name);
        fs::write(&path, page).with_context(|| format!("cannot write {path}"))?;
    }
    for (shell, name) in [
        (Shell::Bash, "bash"),
        (Shell::Zsh, "zsh"),
        (Shell::Fish, "fish"),
    ] {
        complete(shell, &directory.join(name))?;
    }
    Ok(())
}

fn complete(shell: Shell, directory: &Utf8PathBuf) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {directory}"))?;
    let written = clap_complete::generate_to(shell, &mut nexcage::command(), "nexcage", directory)
        .with_context(|| format!("cannot write the completions for {shell}"))?;
    if shell == Shell::Bash {
        // bash-completion looks for a file with the name of the command.
        fs::rename(&written, directory.join("nexcage")).context("cannot rename completions")?;
    }
    Ok(())
}
