//! Which guests Proxmox's backup jobs take, as `jobs.cfg` and the older `vzdump.cron` have it.
//!
//! What Proxmox leaves out of a file because it makes no sense is left out here, too, so that a job is what it would be there.

use std::collections::BTreeSet;

/// A job that makes backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// Its name, or where it is.
    pub(super) name: String,
    /// Whether it is ever run.
    pub(super) enabled: bool,
    /// The one node on which it does something; without it, on each.
    pub(super) node: Option<String>,
    pub(super) takes: Takes,
}

/// What a job takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Takes {
    /// All guests but for these numbers.
    AllBut(BTreeSet<u32>),
    /// Guests with these numbers.
    These(BTreeSet<u32>),
    /// Members of a pool, whoever these are when it runs.
    Pool(String),
    /// Nothing: Proxmox refuses to run it.
    Nothing,
}

/// The jobs of `jobs.cfg`: sections, each with a line of its type and name, indented lines of keys and values, and an empty line.
pub(super) fn in_sections(text: &str) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut lines = text
        .split('\n')
        .filter(|line| !line.trim_start().starts_with('#'));
    while let Some(line) = lines.next() {
        let Some((kind, name)) = header(line) else {
            continue;
        };
        let mut options = Options::default();
        // Whatever stands in between belongs to no other section.
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            if let Some((key, value)) = property(line) {
                options.set_once(key, value);
            }
        }
        if kind == "vzdump" {
            jobs.push(options.job(name.to_owned()));
        }
    }
    jobs
}

/// `type: name`.
fn header(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_end();
    let (kind, name) = match line.split_once(char::is_whitespace) {
        Some((kind, name)) => (kind.strip_suffix(':')?, name.trim_start()),
        None => line.rsplit_once(':')?,
    };
    let is_header = !kind.is_empty() && !name.is_empty() && !name.contains(char::is_whitespace);
    is_header.then_some((kind, name))
}

/// An indented key, with its value if it has one.
fn property(line: &str) -> Option<(&str, Option<&str>)> {
    let text = line.strip_prefix(char::is_whitespace)?.trim();
    match text.split_once(char::is_whitespace) {
        Some((key, value)) => Some((key, Some(value.trim_start()))),
        None => (!text.is_empty()).then_some((text, None)),
    }
}

/// The jobs of `vzdump.cron`, which cron itself runs: those that are disabled have their command commented out.
pub(super) fn in_crontab(text: &str) -> Vec<Job> {
    let lines = text.lines().enumerate();
    let commands = lines.filter_map(|(index, line)| Some((index + 1, command(line)?)));
    let jobs = commands.filter_map(|(number, command)| {
        let words = words(command);
        let program = words.iter().position(|word| is_vzdump(word))?;
        let options = Options::of_arguments(words.get(program + 1..).unwrap_or_default());
        Some(options.job(format!("line {number} of vzdump.cron")))
    });
    jobs.collect()
}

/// What a line of a crontab runs: behind five fields of time, or one that stands for them, and the user.
fn command(line: &str) -> Option<&str> {
    let line = line.trim();
    let fields = match line.chars().next()? {
        '#' => return None,
        '@' => 2,
        _ => 6,
    };
    (0..fields).try_fold(line, |rest, _| {
        Some(rest.split_once(char::is_whitespace)?.1.trim_start())
    })
}

fn is_vzdump(word: &str) -> bool {
    word.rsplit('/').next() == Some("vzdump")
}

/// A command's words without their quotes, up to a comment.
fn words(command: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What matters of a job's settings.
#[derive(Debug, Default)]
struct Options {
    enabled: Option<bool>,
    all: Option<bool>,
    node: Option<String>,
    pool: Option<String>,
    vmid: Option<BTreeSet<u32>>,
    exclude: Option<BTreeSet<u32>>,
}

impl Options {
    /// As in a section: the first usable value of a key is the one that counts.
    fn set_once(&mut self, key: &str, value: Option<&str>) {
        let switch = match value {
            None | Some("1") => Some(true),
            Some("0") => Some(false),
            Some(_) => None,
        };
        match (key, value) {
            ("enabled", _) => self.enabled = self.enabled.or(switch),
            ("all", _) => self.all = self.all.or(switch),
            (_, None) => {}
            ("node", Some(node)) => _ = self.node.get_or_insert_with(|| node.to_owned()),
            ("pool", Some(pool)) => _ = self.pool.get_or_insert_with(|| pool.to_owned()),
            ("vmid", Some(list)) => self.vmid = self.vmid.take().or_else(|| numbers(list)),
            ("exclude", Some(list)) => self.exclude = self.exclude.take().or_else(|| numbers(list)),
            _ => {}
        }
    }

    /// As behind `vzdump` on a command line.
    fn of_arguments(arguments: &[String]) -> Self {
        let mut options = Self::default();
        let mut arguments = arguments.iter().map(String::as_str).peekable();
        while let Some(argument) = arguments.next() {
            let Some(option) = argument.strip_prefix('-') else {
                // A redirection is none.
                let vmids = numbers(argument).unwrap_or_default();
                options.vmid.get_or_insert_default().extend(vmids);
                continue;
            };
            let option = option.strip_prefix('-').unwrap_or(option);
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None if option == "all" => {
                    ("all", arguments.next_if(|next| switch(next).is_some()))
                }
                None => (option, arguments.next_if(|next| !next.starts_with('-'))),
            };
            match (key, value) {
                ("all", value) => options.all = value.map_or(Some(true), switch),
                ("exclude", Some(list)) => {
                    let more = numbers(list).unwrap_or_default();
                    options.exclude.get_or_insert_default().extend(more);
                }
                _ => options.set_once(key, value),
            }
        }
        options
    }

    /// A pool goes before a list, and that before all; an exclude alone means all others.
    fn job(self, name: String) -> Job {
        let vmids = self.vmid.filter(|vmids| !vmids.is_empty());
        let takes = match (self.pool, vmids, self.all, self.exclude) {
            (Some(pool), _, _, _) => Takes::Pool(pool),
            (None, Some(vmids), _, _) => Takes::These(vmids),
            (None, None, _, Some(exclude)) => Takes::AllBut(exclude),
            (None, None, Some(true), None) => Takes::AllBut(BTreeSet::new()),
            (None, None, _, None) => Takes::Nothing,
        };
        Job {
            name,
            enabled: self.enabled.unwrap_or(true),
            node: self.node,
            takes,
        }
    }
}

/// On or off, on a command line.
fn switch(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

/// A list of guests' numbers. One that is none spoils all of it.
fn numbers(list: &str) -> Option<BTreeSet<u32>> {
    let separators = |c: char| matches!(c, ',' | ';' | '\0') || c.is_whitespace();
    let entries = list.split(separators).filter(|entry| !entry.is_empty());
    entries.map(number).collect()
}

fn number(entry: &str) -> Option<u32> {
    let is_number = (3..=9).contains(&entry.len())
        && !entry.starts_with('0')
        && entry.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| entry.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(numbers: &[u32]) -> BTreeSet<u32> {
        numbers.iter().copied().collect()
    }

    /// What the one job of a text takes.
    fn takes(options: &str) -> Takes {
        let mut jobs = in_sections(&format!("vzdump: one\n{options}"));
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0).takes
    }

    #[test]
    fn jobs_are_sections() {
        let text = "\
# by hand
vzdump: backup-1f2e-93
\tcomment every night: all of them
\tschedule 02:00
\tall 1
\tcompress zstd
\tenabled 1
\texclude 104,105
\tfleecing 0
\tmode snapshot
\tnotes-template {{guestname}}
\tstorage local

realm-sync: all
\tall 1

vzdump: weekly
\tschedule sun 04:00
\tenabled 0
\t# not any more
\tnode pve2
\tpool shop

vzdump: some
\tschedule sat
\tvmid 100,900001
";
        let job = |name: &str, enabled, node: Option<&str>, takes| Job {
            name: name.to_owned(),
            enabled,
            node: node.map(str::to_owned),
            takes,
        };
        let expected = [
            job(
                "backup-1f2e-93",
                true,
                None,
                Takes::AllBut(set(&[104, 105])),
            ),
            job(
                "weekly",
                false,
                Some("pve2"),
                Takes::Pool("shop".to_owned()),
            ),
            job("some", true, None, Takes::These(set(&[100, 900_001]))),
        ];
        assert_eq!(in_sections(text), expected);
        assert_eq!(in_sections(""), []);
    }

    #[test]
    fn sections_end_at_an_empty_line_alone() {
        let text = "vzdump: a\n\tvmid 100\n  \nvzdump: b\n\tvmid 200\n\n\nvzdump:c\n all";
        let names = in_sections(text);
        let names: Vec<_> = names.iter().map(|job| (&*job.name, &job.takes)).collect();
        let expected = [
            ("a", &Takes::These(set(&[100]))),
            ("c", &Takes::AllBut(set(&[]))),
        ];
        assert_eq!(names, expected);
        for line in ["vzdump", "vzdump: a b", ": a", " vzdump: a", "a b: c"] {
            assert_eq!(in_sections(&format!("{line}\n\tall 1\n")), [], "{line}");
        }
    }

    #[test]
    fn what_is_selected() {
        assert_eq!(takes("\tall 1\n"), Takes::AllBut(set(&[])));
        assert_eq!(takes("\tall\n"), Takes::AllBut(set(&[])));
        assert_eq!(takes("\tall 0\n"), Takes::Nothing);
        assert_eq!(takes("\tstorage local\n"), Takes::Nothing);
        assert_eq!(takes("\texclude 100\n"), Takes::AllBut(set(&[100])));
        assert_eq!(takes("\tpool p\n\texclude 100\n"), Takes::Pool("p".into()));
        assert_eq!(
            takes("\tall 0\n\tvmid 100;101 102\n"),
            Takes::These(set(&[100, 101, 102]))
        );
        // What Proxmox does not accept, it does without.
        assert_eq!(takes("\tall 1\n\texclude 100,x\n"), Takes::AllBut(set(&[])));
        assert_eq!(takes("\tall yes\n"), Takes::Nothing);
        assert_eq!(
            takes("\texclude 100\n\texclude 101\n"),
            Takes::AllBut(set(&[100]))
        );
        assert!(in_sections("vzdump: a\n\tenabled no\n")[0].enabled);
    }

    #[test]
    fn a_crontab() {
        let text = "\
# cluster wide vzdump cron schedule
# Automatically generated file - do not edit

PATH=\"/usr/sbin:/usr/bin:/sbin:/bin\"

0 2 * * *           root vzdump --quiet 1 --all 1 --exclude 104,105 --mode snapshot --exclude-path '/tmp/?* #'
0 3 * * 6           root #vzdump --quiet 1 --all 1
0 4 * * 7           root vzdump 100 900001 --quiet 1 --node pve2 --storage 'the store'
30 4 * * 7          root /usr/bin/vzdump -pool=shop --mode stop
@daily root nice vzdump --all >/dev/null 2>&1
0 5 * * 7           root echo vzdumper --all 1
";
        let jobs = in_crontab(text);
        let found: Vec<_> = jobs
            .iter()
            .map(|job| (&*job.name, job.node.as_deref(), &job.takes))
            .collect();
        let expected = [
            (
                "line 6 of vzdump.cron",
                None,
                &Takes::AllBut(set(&[104, 105])),
            ),
            (
                "line 8 of vzdump.cron",
                Some("pve2"),
                &Takes::These(set(&[100, 900_001])),
            ),
            (
                "line 9 of vzdump.cron",
                None,
                &Takes::Pool("shop".to_owned()),
            ),
            ("line 10 of vzdump.cron", None, &Takes::AllBut(set(&[]))),
        ];
        assert_eq!(found, expected);
        assert!(jobs.iter().all(|job| job.enabled));
    }

    #[test]
    fn quotes_are_taken_off() {
        let found = words(r#"a 'b c' "d \"e" f\ g '' h'i'"j" '\' # k"#);
        assert_eq!(found, ["a", "b c", "d \"e", "f g", "", "hij", "\\"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, lines in "([ \t#]?(vzdump|all|exclude|-|'|\"|:|\\*|[0-9]| |\\\\|é)*\n){0,8}") {
            for text in [text, lines] {
                let _ = in_sections(&text);
                let _ = in_crontab(&text);
            }
        }

        #[test]
        fn a_written_job_is_read_back(
            numbers in proptest::collection::btree_set(100_u32..=999_999_999, 1..20),
            excluded: bool,
            enabled: bool,
            noise in proptest::collection::vec("[a-z]{1,3}-[a-z]{1,3} [ -~]{0,20}", 0..4),
        ) {
            let list = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let (key, takes) = match excluded {
                true => ("exclude", Takes::AllBut(numbers)),
                false => ("vmid", Takes::These(numbers)),
            };
            let noise: String = noise.iter().map(|line| format!("\t{line}\n")).collect();
            let text = format!("vzdump: a\n{noise}\t{key} {list}\n\tenabled {}\n\n", u8::from(enabled));
            let job = Job { name: "a".to_owned(), enabled, node: None, takes: takes.clone() };
            prop_assert_eq!(in_sections(&text), [job]);
            let option = if excluded { "--exclude" } else { "" };
            let cron = format!("0 0 * * * root vzdump {option} {list} --quiet 1");
            let found: Vec<Takes> = in_crontab(&cron).into_iter().map(|job| job.takes).collect();
            prop_assert_eq!(found, [takes]);
        }
    }
}
