//! How the simulator was told to misbehave: a file that tasks and the API read.

use serde::{Deserialize, Serialize};

use crate::house::House;

/// Everything that may be wrong with a node, apart from quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misbehaviour {
    /// Milliseconds that each task waits before it does anything.
    pub task_delay_ms: u64,
    /// How tasks end, whatever happens.
    pub task_end: Option<TaskEnd>,
    /// What the API answers, whatever is asked.
    pub http: Option<Http>,
    /// Whether pvedaemon is down, so that pveproxy can answer little by itself.
    pub daemon_down: bool,
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskEnd {
    /// It does its work, and warns.
    Warnings,
    /// It does nothing, and fails with these words.
    Error(String),
}

/// An answer of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Http {
    /// This status with these words, as where a proxy speaks.
    Status(u16, String),
    /// A page, as from something else that listens there.
    Html,
    /// None, for ever.
    Stall,
    /// The beginning of one.
    Truncated,
}

impl Misbehaviour {
    /// What is told at the moment.
    pub fn read(house: &House) -> Self {
        let text = std::fs::read_to_string(house.misbehaviour()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Tells everybody.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, house: &House) -> anyhow::Result<()> {
        let file = house.misbehaviour();
        let temporary = format!("{file}.tmp");
        std::fs::write(&temporary, serde_json::to_string(self)?)?;
        std::fs::rename(temporary, file)?;
        Ok(())
    }
}
