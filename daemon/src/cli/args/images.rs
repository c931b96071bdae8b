//! Images.

use clap::Args;

use super::OutputArgs;
use crate::cli::syntax::Credentials;

/// List images
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  nexcage images --output json\n\nJSON: an array of images: id, \
    repo_tags, repo_digests, size (bytes), pinned"
)]
pub(in crate::cli) struct ImagesArgs {
    /// Do not shorten ids and digests
    #[arg(long)]
    pub(in crate::cli) no_trunc: bool,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Pull an image; prints its id
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nexcage pull docker.io/library/debian:13\n  \
    pass registry | nexcage pull --creds-stdin registry.example/app:1\n\nJSON: image_id"
)]
pub(in crate::cli) struct PullArgs {
    /// Image to pull: a name with a tag, a digest, or both
    #[arg(value_name = "REF")]
    pub(in crate::cli) reference: String,
    /// Credentials for the registry; other users of this machine can see them in the list of processes
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "creds_stdin")]
    pub(in crate::cli) creds: Option<Credentials>,
    /// Read USER:PASSWORD from standard input
    #[arg(long)]
    pub(in crate::cli) creds_stdin: bool,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}
