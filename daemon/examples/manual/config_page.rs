//! nexcage.json(5): the reference of the configuration, as a man page.
//!
//! The text is that of `docs/config.md`, which is made from the types; here only its few forms of Markdown become roff: headings of
//! two levels, paragraphs, lists, `code` and *emphasis*.

use anyhow::Context as _;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// The page.
pub(crate) fn page() -> anyhow::Result<Vec<u8>> {
    let mut roff = Roff::new();
    roff.control("TH", ["nexcage.json", "5", "", "", "nexcage"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("nexcage.json - configuration of nexcage")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([italic("/etc/nexcage/config.json")]);
    roff.control("SH", ["DESCRIPTION"]);
    for block in blocks(&nexcage_config::markdown()) {
        add(&block, &mut roff);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("nexcage"),
        roman("(1), "),
        bold("nexcage-daemon"),
        roman("(8)"),
    ]);
    let mut page = Vec::new();
    roff.to_writer(&mut page)
        .context("cannot write nexcage.json(5)")?;
    Ok(page)
}

#[derive(Debug, PartialEq, Eq)]
enum Block {
    Section(String),
    Key(String),
    Paragraph(String),
    Item(String),
}

/// Headings, paragraphs and items, each on one line. The title and comments are left out.
fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    for part in markdown.split("\n\n").map(str::trim) {
        if part.is_empty() || part.starts_with("<!--") || part.starts_with("# ") {
            continue;
        }
        if let Some(text) = part.strip_prefix("### ") {
            blocks.push(Block::Key(text.to_owned()));
        } else if let Some(text) = part.strip_prefix("## ") {
            blocks.push(Block::Section(text.replace('`', "")));
        } else if part.starts_with("* ") {
            let items = part
                .split("\n* ")
                .map(|item| one_line(item.trim_start_matches("* ")));
            blocks.extend(items.map(Block::Item));
        } else {
            blocks.push(Block::Paragraph(one_line(part)));
        }
    }
    blocks
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn add(block: &Block, roff: &mut Roff) {
    match block {
        Block::Section(name) => {
            roff.control("SH", [name.as_str()]);
        }
        Block::Key(text) => {
            roff.control("SS", []);
            roff.text(inlines(text));
        }
        Block::Paragraph(text) => {
            roff.control("PP", []);
            roff.text(inlines(text));
        }
        Block::Item(text) => {
            roff.control("IP", [r"\(bu", "2"]);
            roff.text(inlines(text));
        }
    }
}

/// `code` becomes bold, *emphasis* italic, and [text](target) its text.
fn inlines(text: &str) -> Vec<Inline> {
    let mut parts = Vec::new();
    for (i, part) in text.split('`').enumerate() {
        if i % 2 == 1 {
            parts.push(bold(part));
            continue;
        }
        for (i, part) in part.split('*').enumerate() {
            match i % 2 {
                1 => parts.push(italic(part)),
                _ if !part.is_empty() => parts.push(roman(part)),
                _ => {}
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_falls_into_blocks() {
        let text = "# Title\n\n<!-- no\n-->\n\n## `a`\n\nSome\nwords.\n\n### `a.b`\n\none of\n\n* `x`: this\n  way\n* `y`: that\n";
        let expected = [
            Block::Section("a".into()),
            Block::Paragraph("Some words.".into()),
            Block::Key("`a.b`".into()),
            Block::Paragraph("one of".into()),
            Block::Item("`x`: this way".into()),
            Block::Item("`y`: that".into()),
        ];
        assert_eq!(blocks(text), expected);
    }

    #[test]
    fn every_key_is_on_the_page() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        let keys = nexcage_config::markdown()
            .lines()
            .filter(|line| line.starts_with("### "))
            .count();
        assert!(keys > 30, "{keys}");
        assert_eq!(
            page.lines().filter(|line| line.starts_with(".SS")).count(),
            keys
        );
        assert!(!page.contains('`'), "{page}");
    }
}
