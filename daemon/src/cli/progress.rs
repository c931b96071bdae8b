//! Showing how far a pull is: bars on a terminal, a line per layer elsewhere. Both on standard error.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::human;
use super::proto::{Layer, LayerPhase, PullUpdate};

/// A pull that is being shown.
#[derive(Debug)]
pub(super) struct Progress {
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bars {
        all: MultiProgress,
        waiting: ProgressBar,
        layers: HashMap<String, ProgressBar>,
    },
    /// The layers that were told.
    Lines { told: Vec<String> },
}

impl Progress {
    /// Begins to show the pull of an image.
    pub(super) fn start(reference: &str) -> Self {
        if !rustix::termios::isatty(std::io::stderr()) {
            eprintln!("pulling {reference}");
            return Self {
                shown: Shown::Lines { told: Vec::new() },
            };
        }
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let waiting = all.add(ProgressBar::new_spinner());
        waiting.set_message(format!("pulling {reference}"));
        waiting.enable_steady_tick(Duration::from_millis(100));
        Self {
            shown: Shown::Bars {
                all,
                waiting,
                layers: HashMap::new(),
            },
        }
    }

    /// Shows the state that an update tells.
    pub(super) fn update(&mut self, update: &PullUpdate) {
        match &mut self.shown {
            Shown::Lines { told } => {
                for line in lines(update, told) {
                    eprintln!("{line}");
                }
            }
            Shown::Bars { all, layers, .. } => {
                for layer in &update.layers {
                    let bar = layers
                        .entry(layer.id.clone())
                        .or_insert_with(|| all.add(bar(layer)));
                    show(bar, layer);
                }
            }
        }
    }

    /// Leaves the terminal to what follows. The layers' bars stay, as the lines do.
    pub(super) fn end(self) {
        if let Shown::Bars {
            waiting, layers, ..
        } = self.shown
        {
            waiting.finish_and_clear();
            layers.values().for_each(ProgressBar::abandon);
        }
    }
}

/// Lines for the layers that became ready since the last update.
fn lines(update: &PullUpdate, told: &mut Vec<String>) -> Vec<String> {
    let mut lines = Vec::new();
    for layer in &update.layers {
        if layer.phase() == LayerPhase::Unpacked && !told.contains(&layer.id) {
            told.push(layer.id.clone());
            let id = human::short_id(&layer.id);
            lines.push(format!(
                "{id}: {}, {}",
                phase(layer),
                human::size(layer.total_bytes)
            ));
        }
    }
    lines
}

fn bar(layer: &Layer) -> ProgressBar {
    // A template that does not parse leaves indicatif's own bar.
    let style =
        ProgressStyle::with_template("{prefix}: {msg:11} [{bar:32}] {bytes:>10} of {total_bytes}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
    ProgressBar::new(layer.total_bytes)
        .with_style(style)
        .with_prefix(human::short_id(&layer.id).to_owned())
}

fn show(bar: &ProgressBar, layer: &Layer) {
    if bar.is_finished() {
        return;
    }
    bar.set_message(phase(layer));
    bar.set_length(layer.total_bytes);
    match layer.phase() {
        // Layers that are here already were not downloaded, and are as ready as the others.
        LayerPhase::Unpacked => {
            bar.set_position(layer.total_bytes);
            bar.abandon();
        }
        _ => bar.set_position(layer.done_bytes),
    }
}

fn phase(layer: &Layer) -> &'static str {
    match layer.phase() {
        LayerPhase::Waiting => "waiting",
        LayerPhase::Downloading => "downloading",
        LayerPhase::Downloaded => "downloaded",
        LayerPhase::Unpacked => "unpacked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(digit: &str, phase: LayerPhase) -> Layer {
        let id = format!("sha256:{}", digit.repeat(64));
        Layer {
            id,
            phase: phase.into(),
            done_bytes: 10,
            total_bytes: 2048,
        }
    }

    #[test]
    fn each_layer_is_told_once() {
        let mut told = Vec::new();
        let mut update = PullUpdate::default();
        assert!(lines(&update, &mut told).is_empty());
        update.layers = vec![
            layer("a", LayerPhase::Downloaded),
            layer("b", LayerPhase::Unpacked),
        ];
        assert_eq!(
            lines(&update, &mut told),
            ["bbbbbbbbbbbb: unpacked, 2.0 KiB"]
        );
        update.layers = vec![
            layer("a", LayerPhase::Unpacked),
            layer("b", LayerPhase::Unpacked),
        ];
        assert_eq!(
            lines(&update, &mut told),
            ["aaaaaaaaaaaa: unpacked, 2.0 KiB"]
        );
        assert!(lines(&update, &mut told).is_empty());
    }
}
