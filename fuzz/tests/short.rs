//! Each fuzz target for a moment: its seeds, and a number of random changes of them.
//!
//! The changes are the same in each run. For longer, and with a fuzzer that looks where it gets: `cargo xtask fuzz`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_fuzz::{TARGETS, Target};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// Changed inputs for each target, if there is time.
const INPUTS: u64 = 20_000;

/// Time for each target.
const TIME: Duration = Duration::from_secs(3);

/// Longest input in bytes.
const LONGEST: usize = 16 << 10;

/// Bytes at which parsers do something else.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\"'\\{}[]:,;=/.@ \t\r\n-+0189aZ%";

#[test]
fn no_target_finds_anything() {
    let mut bad = Vec::new();
    for target in TARGETS {
        if target.0 == "layer" && !rustix::process::geteuid().is_root() {
            eprintln!("skipped: unpacking layers needs root");
            continue;
        }
        bad.extend(try_target(target));
    }
    assert!(
        bad.is_empty(),
        "run again: cargo xtask fuzz --input FILE TARGET\n{}",
        bad.join("\n")
    );
}

/// Tells the first input that shows a mistake.
fn try_target((name, target): Target) -> Option<String> {
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let begun = Instant::now();
    // Any number, but the same each time.
    let mut random = StdRng::seed_from_u64(0x6e65_7863);
    let changed = (0..INPUTS).map(|_| change(&seeds, &mut random));
    let mut tried = 0;
    for input in seeds.iter().cloned().chain(changed) {
        if catch_unwind(|| target(&input)).is_err() {
            let file = keep(name, &input);
            return Some(format!("fuzz target {name}: {file}"));
        }
        tried += 1;
        if begun.elapsed() > TIME {
            break;
        }
    }
    println!("{name}: {tried} inputs");
    None
}

fn home() -> &'static Utf8Path {
    Utf8Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<Utf8PathBuf> = home()
        .join("seeds")
        .join(name)
        .read_dir_utf8()
        .unwrap()
        .map(|entry| entry.unwrap().into_path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

/// Writes the input where libFuzzer would.
fn keep(name: &str, input: &[u8]) -> Utf8PathBuf {
    let dir = home().join("artifacts").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("crash-short");
    std::fs::write(&file, input).unwrap();
    file
}

/// A seed with a few changes.
fn change(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = seeds.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..=6) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(1..=32)).min(input.len());
        match random.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = *TELLING.choose(random).unwrap(),
            2 => input.insert(at, *TELLING.choose(random).unwrap()),
            3 => drop(input.drain(at..end)),
            4 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            5 => {
                let mut bytes = [0; 8];
                random.fill_bytes(&mut bytes);
                input.splice(at..at, bytes);
            }
            _ => {
                // A piece of another one.
                let other = seeds.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                let to = (from + random.random_range(1..=64)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    input.truncate(LONGEST);
    input
}
