//! Backup jobs of the cluster that would take pods.

use std::collections::BTreeSet;
use std::io;
use std::ops::RangeInclusive;

use camino::Utf8Path;

use super::finding::Finding;
use super::vzdump::{Job, Takes, in_crontab, in_sections};
use super::{Doctor, blocking};

const CHECK: &str = "backups";

/// So many jobs, and of each so many numbers, are named.
const NAMED: usize = 5;

/// Nobody wants to see a longer list of numbers in a job.
const SHORT: usize = 1000;

/// Nothing where this is no node of Proxmox.
pub(super) async fn backups(doctor: &Doctor) -> Vec<Finding> {
    let node = doctor.proxmox.clone();
    if !node.mounted {
        return Vec::new();
    }
    let pods = node.settings.vmids.first..=node.settings.vmids.last;
    let read = blocking(move || jobs(&node.settings.pve_dir)).await;
    let finding = match read {
        Some(Ok(jobs)) => judge(&jobs, &doctor.proxmox.name, &pods),
        Some(Err(error)) => unread(&error),
        None => unread("the cluster file system does not answer"),
    };
    vec![finding]
}

fn unread(why: &str) -> Finding {
    let reason = format!("cannot look at backup jobs: {why}");
    Finding::warning(CHECK, reason, "see the checks above")
}

/// Every job of the cluster. Blocking.
///
/// # Errors
///
/// If a file is there and cannot be read.
fn jobs(pve_dir: &Utf8Path) -> Result<Vec<Job>, String> {
    let mut jobs = in_sections(&text(&pve_dir.join("jobs.cfg"))?);
    jobs.extend(in_crontab(&text(&pve_dir.join("vzdump.cron"))?));
    Ok(jobs)
}

/// Nothing, if there is no such file.
fn text(file: &Utf8Path) -> Result<String, String> {
    match std::fs::read(file) {
        // A comment need not be UTF-8.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("{file} cannot be read: {error}")),
    }
}

/// Of all jobs: those that would take one of these numbers on this node.
fn judge(jobs: &[Job], here: &str, pods: &RangeInclusive<u32>) -> Finding {
    let run_here = |job: &&Job| job.enabled && job.node.as_ref().is_none_or(|node| node == here);
    let taking: Vec<(&Job, String)> = jobs
        .iter()
        .filter(run_here)
        .filter_map(|job| Some((job, taken(&job.takes, pods)?)))
        .collect();
    if taking.is_empty() {
        let reason = match jobs.len() {
            0 => "there is no backup job".to_owned(),
            count => format!("no backup job takes pods, {count} looked at"),
        };
        return Finding::ok(CHECK, reason);
    }
    let named = taking
        .iter()
        .map(|(job, what)| format!("{} ({what})", job.name));
    let reason = format!(
        "{} would freeze pods, or end them in the mode stop: {}",
        match taking.len() {
            1 => "a backup job".to_owned(),
            count => format!("{count} backup jobs"),
        },
        some(named)
    );
    let all = |(job, _): &(&Job, String)| matches!(job.takes, Takes::AllBut(_));
    Finding::warning(
        CHECK,
        reason,
        remedy(pods, taking.iter().any(all), !taking.iter().all(all)),
    )
}

/// What a job would take of these numbers, if anything.
fn taken(takes: &Takes, pods: &RangeInclusive<u32>) -> Option<String> {
    let of_pods = |numbers: &BTreeSet<u32>| numbers.iter().filter(|n| pods.contains(n)).count();
    match takes {
        Takes::AllBut(excluded) => match (of_pods(excluded), count(pods)) {
            (0, _) => Some("all guests".to_owned()),
            (some, all) if some < all => Some(format!(
                "all guests but for {some} of {all} numbers of pods"
            )),
            _ => None,
        },
        Takes::These(numbers) => {
            let numbers = numbers.iter().filter(|number| pods.contains(number));
            let numbers: Vec<String> = numbers.map(u32::to_string).collect();
            (!numbers.is_empty()).then(|| some(numbers.into_iter()))
        }
        // Nobody puts pods in a pool but by hand.
        Takes::Pool(_) | Takes::Nothing => None,
    }
}

/// How many numbers there are.
fn count(pods: &RangeInclusive<u32>) -> usize {
    let beyond_first = pods.end().saturating_sub(*pods.start());
    usize::try_from(beyond_first).map_or(usize::MAX, |beyond| beyond.saturating_add(1))
}

/// What to do with jobs for all guests, and with those that name pods' numbers.
fn remedy(pods: &RangeInclusive<u32>, for_all: bool, by_number: bool) -> String {
    let count = count(pods);
    let exclude = match count <= SHORT {
        true => format!(
            "or exclude each number from {} to {}",
            pods.start(),
            pods.end()
        ),
        false => {
            format!("since an exclude knows no ranges, and {count} numbers are too many for it")
        }
    };
    let mut remedies = Vec::new();
    if for_all {
        remedies.push(format!(
            "select a pool or a list of guests instead of all, {exclude}"
        ));
    }
    if by_number {
        remedies.push("take pods' numbers out of lists".to_owned());
    }
    format!(
        "{}; see \"Backups\" in docs/proxmox.md",
        remedies.join("; ")
    )
}

/// The first of many.
fn some(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(NAMED);
    let named: Vec<String> = all.take(NAMED).collect();
    match more {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    const FEW: RangeInclusive<u32> = 900_000..=900_199;
    const MANY: RangeInclusive<u32> = 900_000..=999_999;

    fn job(name: &str, takes: Takes) -> Job {
        Job {
            name: name.to_owned(),
            enabled: true,
            node: None,
            takes,
        }
    }

    fn all_but(excluded: impl IntoIterator<Item = u32>) -> Takes {
        Takes::AllBut(excluded.into_iter().collect())
    }

    fn these(numbers: impl IntoIterator<Item = u32>) -> Takes {
        Takes::These(numbers.into_iter().collect())
    }

    fn judged(takes: Takes) -> Finding {
        judge(&[job("nightly", takes)], "pve1", &FEW)
    }

    #[test]
    fn jobs_that_leave_pods_alone() {
        assert_eq!(judge(&[], "pve1", &FEW).reason, "there is no backup job");
        for takes in [
            all_but(FEW),
            all_but(899_000..=901_000),
            these([100, 899_999, 900_200]),
            Takes::Pool("shop".into()),
            Takes::Nothing,
        ] {
            let finding = judged(takes.clone());
            assert_eq!(finding.state, State::Ok, "{takes:?}");
            assert_eq!(finding.reason, "no backup job takes pods, 1 looked at");
        }
        let mut idle = job("nightly", all_but([]));
        idle.enabled = false;
        assert_eq!(judge(&[idle], "pve1", &FEW).state, State::Ok);
        let mut elsewhere = job("nightly", all_but([]));
        elsewhere.node = Some("pve2".into());
        assert_eq!(judge(&[elsewhere.clone()], "pve1", &FEW).state, State::Ok);
        assert_eq!(judge(&[elsewhere], "pve2", &FEW).state, State::Warning);
    }

    #[test]
    fn jobs_that_take_pods_are_named() {
        let all = judged(all_but([100]));
        assert_eq!(all.state, State::Warning);
        insta::assert_snapshot!(all.reason, @"a backup job would freeze pods, or end them in the mode stop: nightly (all guests)");
        insta::assert_snapshot!(all.remedy.unwrap(), @r#"select a pool or a list of guests instead of all, or exclude each number from 900000 to 900199; see "Backups" in docs/proxmox.md"#);
        let one_is_missing = judged(all_but(900_001..=900_199)).reason;
        assert!(
            one_is_missing.ends_with("nightly (all guests but for 199 of 200 numbers of pods)"),
            "{one_is_missing}"
        );
        let list = judged(these(900_195..=900_300));
        assert!(
            list.reason
                .ends_with("nightly (900195, 900196, 900197, 900198, 900199)")
        );
        insta::assert_snapshot!(list.remedy.unwrap(), @r#"take pods' numbers out of lists; see "Backups" in docs/proxmox.md"#);
    }

    #[test]
    fn what_there_is_much_of_is_cut() {
        let jobs: Vec<Job> = (1..=7)
            .map(|n| match n {
                1 => job("list", these(900_000..=900_099)),
                n => job(&format!("all{n}"), all_but([])),
            })
            .collect();
        let finding = judge(&jobs, "pve1", &MANY);
        insta::assert_snapshot!(finding.reason, @"7 backup jobs would freeze pods, or end them in the mode stop: list (900000, 900001, 900002, 900003, 900004 and 95 more), all2 (all guests), all3 (all guests), all4 (all guests), all5 (all guests) and 2 more");
        insta::assert_snapshot!(finding.remedy.unwrap(), @r#"select a pool or a list of guests instead of all, since an exclude knows no ranges, and 100000 numbers are too many for it; take pods' numbers out of lists; see "Backups" in docs/proxmox.md"#);
    }

    #[tokio::test]
    async fn both_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(dir.path()).unwrap();
        let pve_dir = nexcage_config::AbsolutePath::new(base.to_owned()).unwrap();
        let mut doctor = Doctor::of(nexcage_config::Config::default());
        doctor.proxmox.settings.pve_dir = pve_dir;
        doctor.proxmox.mounted = false;
        assert_eq!(backups(&doctor).await, []);

        doctor.proxmox.mounted = true;
        let found = backups(&doctor).await;
        assert_eq!(found[0].reason, "there is no backup job");

        std::fs::write(base.join("jobs.cfg"), b"vzdump: n\xc3ghtly\n\tall 1\n").unwrap();
        let cron = "0 2 * * * root vzdump --all 1\n";
        std::fs::write(base.join("vzdump.cron"), cron).unwrap();
        let found = backups(&doctor).await;
        assert_eq!(found.len(), 1);
        assert!(
            found[0]
                .reason
                .ends_with("n\u{fffd}ghtly (all guests), line 1 of vzdump.cron (all guests)"),
            "{found:?}"
        );

        std::fs::remove_file(base.join("jobs.cfg")).unwrap();
        std::fs::create_dir(base.join("jobs.cfg")).unwrap();
        let found = backups(&doctor).await;
        assert_eq!(found[0].state, State::Warning);
        assert!(
            found[0].reason.contains("jobs.cfg cannot be read"),
            "{found:?}"
        );
    }
}
