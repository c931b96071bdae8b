//! `nexcage pull`.

use std::io::Read as _;
use std::process::ExitCode;

use nexcage_cri_api::v1;
use serde::Serialize;
use tonic::{Code, Request, Streaming};

use super::args::{Format, PullArgs};
use super::client::Client;
use super::error::CliError;
use super::output::{print, print_json};
use super::progress::Progress;
use super::proto::{PullRequest, PullUpdate};
use super::syntax::Credentials;

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Pulled {
    image_id: String,
}

/// Pulls an image and prints its id.
pub(super) async fn run(mut client: Client, args: PullArgs) -> Result<ExitCode, CliError> {
    let credentials = if args.creds_stdin {
        Some(read_credentials()?)
    } else {
        args.creds
    };
    let image_id = pull(&mut client, &args.reference, credentials).await?;
    match args.output.output {
        Format::Json => print_json(&Pulled { image_id })?,
        Format::Table => print(&format!("{image_id}\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Pulls an image, shows how far it is, and returns its id. There is no time limit: the daemon gives up when
/// nothing arrives any more.
pub(super) async fn pull(
    client: &mut Client,
    reference: &str,
    credentials: Option<Credentials>,
) -> Result<String, CliError> {
    let mut progress = Progress::start(reference);
    let pulled = pull_with(client, reference, credentials, &mut progress).await;
    progress.end();
    pulled.map_err(CliError::rpc(format!("cannot pull {reference}")))
}

async fn pull_with(
    client: &mut Client,
    reference: &str,
    credentials: Option<Credentials>,
    progress: &mut Progress,
) -> Result<String, tonic::Status> {
    let (username, password) = credentials
        .map(|c| (c.username, c.password))
        .unwrap_or_default();
    let request = PullRequest {
        reference: reference.to_owned(),
        username: username.clone(),
        password: password.clone(),
    };
    match client.pulls.pull(Request::new(request)).await {
        Ok(updates) => return follow(updates.into_inner(), progress).await,
        // Another CRI runtime, which tells nothing until it is done.
        Err(status) if status.code() == Code::Unimplemented => {}
        Err(status) => return Err(status),
    }
    let auth = v1::AuthConfig {
        username,
        password,
        ..Default::default()
    };
    let request = v1::PullImageRequest {
        image: Some(v1::ImageSpec {
            image: reference.to_owned(),
            ..Default::default()
        }),
        auth: (!auth.username.is_empty()).then_some(auth),
        sandbox_config: None,
    };
    Ok(client
        .images
        .pull_image(Request::new(request))
        .await?
        .into_inner()
        .image_ref)
}

async fn follow(
    mut updates: Streaming<PullUpdate>,
    progress: &mut Progress,
) -> Result<String, tonic::Status> {
    while let Some(update) = updates.message().await? {
        progress.update(&update);
        if !update.image_id.is_empty() {
            return Ok(update.image_id);
        }
    }
    Err(tonic::Status::unavailable(
        "the daemon ended the pull without a result",
    ))
}

fn read_credentials() -> Result<Credentials, CliError> {
    /// Tokens of cloud providers have a few KiB.
    const LIMIT: u64 = 64 << 10;
    let mut text = String::new();
    std::io::stdin()
        .take(LIMIT)
        .read_to_string(&mut text)
        .map_err(CliError::io(
            "cannot read the credentials from standard input",
        ))?;
    let line = text.lines().next().unwrap_or_default();
    line.parse()
        .map_err(|e| CliError::Usage(format!("the credentials on standard input {e}")))
}
