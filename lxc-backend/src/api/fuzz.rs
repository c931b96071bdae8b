//! Answers of the API from a stranger.

use bytes::Bytes;
use http::StatusCode;
use proxmox_api::access::permissions as access;
use proxmox_api::cluster::status as cluster_status;
use proxmox_api::nodes::node::lxc;
use proxmox_api::nodes::node::lxc::vmid::status::current;
use proxmox_api::nodes::node::tasks::upid;
use serde::de::DeserializeOwned;

use super::answer::{self, Answer, Asked};
use super::error::PveError;
use super::map;
use super::task::Upid;

const ASKED: Asked<'_> = Asked {
    url: "https://127.0.0.1:8006",
    doing: "start container 100",
};

/// A status line without the version, an empty line, and a body: read as the answer to each question that is asked.
pub fn proxmox_answer(input: &[u8]) {
    let Some(answer) = parse(input) else {
        return;
    };
    if let Some(items) = read::<Vec<lxc::GetOutputItems>>(&answer) {
        for item in items {
            let _ = map::summary(item);
        }
    }
    if let Some(Ok(status)) = read::<current::GetOutput>(&answer).map(map::status) {
        assert!(status.cpu.is_finite() && status.cpu >= 0.0);
    }
    if let Some(Ok(held)) = read::<access::GetOutput>(&answer).map(map::permissions) {
        let _ = held.has("/vms/100", "VM.Audit");
    }
    let _ = read::<Vec<cluster_status::GetOutputItems>>(&answer).map(map::cluster);
    let _ = read::<proxmox_api::version::GetOutput>(&answer);
    let _ = read::<upid::status::GetOutput>(&answer);
    let _ = read::<Vec<upid::log::GetOutputItems>>(&answer);
    if let Some(upid) = read::<String>(&answer).and_then(|text| Upid::parse(&text)) {
        let encoded = upid.encoded();
        assert!(!encoded.contains(['/', '?', '#', ' ']), "{encoded}");
    }
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Option<T> {
    match answer::value(answer, ASKED) {
        Ok(value) => {
            assert!(answer.status.is_success());
            Some(value)
        }
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.chars().count() < 3000 && !text.contains('\n'),
                "{text}"
            );
            if let PveError::Forbidden { .. } = error {
                let _ = error.missing_privilege();
            }
            None
        }
    }
}

fn parse(input: &[u8]) -> Option<Answer> {
    let end = input.windows(2).position(|two| two == b"\n\n")?;
    let line = std::str::from_utf8(&input[..end]).ok()?;
    let (status, reason) = line.split_once(' ').unwrap_or((line, ""));
    Some(Answer {
        status: StatusCode::from_bytes(status.as_bytes()).ok()?,
        reason: (!reason.is_empty()).then(|| answer::excerpt(reason)),
        body: Bytes::copy_from_slice(&input[end + 2..]),
    })
}
